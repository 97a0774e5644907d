//! The start-up check: the chosen kernel on real rows of a loaded layer against the scalar oracle.
//!
//! **Invariant:** results are compared bit for bit. A kernel that is off by one rounding fails.

use ternary_core::{ActMode, dot16};

use super::oracle;
use crate::activations::ActivationBuffer;
use crate::error::{Error, Result};
use crate::matmul::{Linear, PANEL_FROM_TOKENS};
use crate::pool::{ColumnBlock, Pool};

/// Neighbouring rows checked at each of three places of a layer: its start, its middle and its end.
const ROWS: usize = 6;

/// Tokens checked: one for the decoding path, three and four for few tokens, eight for the most that read dense rows
/// and TQ1_0 tiles as they are stored, nine for panels and expanded tiles. Levels that multiply prompts by token tables
/// are checked with one full table as well.
const BATCHES: [usize; 5] = [1, 3, 4, 8, 9];
const _: () = assert!(BATCHES[3] >= PANEL_FROM_TOKENS, "rows of integers become panels, too");

/// Runs the layer's kernel on a few of its rows.
///
/// # Errors
/// [`Error::SelfTest`] for the first row that differs from the oracle, [`Error::TableEntry`] for a lookup table that is
/// wrong, or a damaged ternary block.
pub fn check(linear: &Linear) -> Result<()> {
    let (rows, cols) = (linear.rows(), linear.cols());
    let len = ROWS.min(rows);
    for start in [0, (rows - len) / 2, rows - len] {
        let part = linear.slice_rows(start, start + len)?;
        let tables = match &part {
            Linear::Ternary(w) => Some(w.table_tokens()).filter(|n| *n > 0 && start == 0),
            _ => None,
        };
        for (n, by_tables) in BATCHES.map(|n| (n, false)).into_iter().chain(tables.map(|n| (n, true))) {
            let x: Vec<f32> = (0..n * cols).map(probe).collect();
            let expected = reference(&part, &x, n)?;
            let mut acts = ActivationBuffer::new();
            acts.set(&x, n, cols);
            acts.quantize(part.act_mode());
            let mut got = vec![0.0; n * len];
            if let Linear::Ternary(w) = &part {
                w.verify_tables(&acts)?;
            }
            match &part {
                Linear::Ternary(w) if by_tables => w.forward_tables(&acts, ColumnBlock::whole(&mut got, 0..len)),
                _ => part.forward(&Pool::serial(), &acts, &mut got),
            }
            if let Some(i) = first_difference(&got, &expected) {
                let (isa, ty, row) = (part.isa(), part.type_name(), start + i % len);
                return Err(Error::SelfTest { isa, ty, row, expected: expected[i], got: got[i] });
            }
        }
    }
    Ok(())
}

/// The layer itself if [`check`] passes, otherwise the layer on the next lower level that passes. The errors of the levels
/// above it come with it, the highest first.
///
/// # Errors
/// The error of the lowest level: where that fails, the weights are damaged.
pub fn probe_and_fall_back(mut linear: Linear) -> Result<(Linear, Vec<Error>)> {
    let mut refused = Vec::new();
    loop {
        match (check(&linear), linear.isa().lower()) {
            (Ok(()), _) => return Ok((linear, refused)),
            (Err(error @ (Error::SelfTest { .. } | Error::TableEntry { .. })), Some(lower)) => {
                tracing::warn!(%error, fallback = %lower, "a kernel failed its self-test");
                refused.push(error);
                linear = linear.with_isa(lower)?;
            }
            (Err(error), _) => return Err(error),
        }
    }
}

/// The first place where two results differ in a bit, even in the sign of a zero. All NaNs count as equal.
fn first_difference(got: &[f32], expected: &[f32]) -> Option<usize> {
    let same = |got: f32, expected: f32| got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
    got.iter().zip(expected).position(|(got, expected)| !same(*got, *expected))
}

/// The result of the oracle, `[n, rows]`.
fn reference(linear: &Linear, x: &[f32], n: usize) -> Result<Vec<f32>> {
    let (rows, cols) = (linear.rows(), linear.cols());
    let mut y = vec![0.0; n * rows];
    if let Linear::Ternary(w) = linear {
        let padded = w.tensor().cols();
        let mut whole = vec![0.0; n * padded];
        for (whole, x) in whole.chunks_exact_mut(padded).zip(x.chunks_exact(cols)) {
            whole[..cols].copy_from_slice(x);
        }
        ternary_core::oracle::gemm(w.tensor(), &whole, n, w.act_mode(), &mut y)?;
        return Ok(y);
    }
    if let Linear::Rounded(w) = linear {
        for (t, x) in x.chunks_exact(cols).enumerate() {
            (0..rows).for_each(|r| y[t * rows + r] = w.reference(r, x));
        }
        return Ok(y);
    }
    if linear.act_mode() != ActMode::F32 {
        oracle::oracle(linear, x, n, &mut y);
        return Ok(y);
    }
    let scalar = linear.clone().with_isa(crate::Isa::Scalar)?;
    let mut row = vec![0.0; cols];
    for r in 0..rows {
        scalar.dequantize_row(r, &mut row)?;
        for (t, x) in x.chunks_exact(cols).enumerate() {
            y[t * rows + r] = dot16(&row, x);
        }
    }
    Ok(y)
}

/// Activation `i` of the probe: signs and magnitudes that follow no pattern from block to block.
fn probe(i: usize) -> f32 {
    let hash = (i as u32).wrapping_mul(0x9e37_79b9) ^ (i as u32) << 7;
    f32::from((hash >> 16) as u16 as i16) * (1.0 / 8192.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DenseType;
    use ternary_core::{Bytes, Packing, Rounding, Scales, TernaryTensor};

    #[test]
    fn every_type_passes_on_every_level() {
        let weights: Vec<f32> = (0..9 * 256).map(|i| probe(i * 3 + 1)).collect();
        let mut layers = vec![Linear::from_f32(9, 256, weights.clone()).unwrap()];
        for ty in [DenseType::F16, DenseType::Bf16, DenseType::Q8_0, DenseType::Q6K, DenseType::Q2_0] {
            // Any bytes are weights; keep f16 scales and values finite by clearing their top exponent bit.
            let len = 9 * ty.row_bytes(256).unwrap();
            let bytes: Vec<u8> = (0..len).map(|i| (probe(i).to_bits() >> 8) as u8 & 0xbf).collect();
            let layer = Linear::dense(ty, 9, 256, Bytes::from(bytes)).unwrap();
            for mode in [ActMode::F32, ActMode::A8Block, ActMode::A8Token] {
                layers.push(layer.clone().with_act_mode(mode));
            }
        }
        for packing in Packing::ALL {
            for mode in [ActMode::F32, ActMode::A8Block, ActMode::A8Token] {
                let tensor = TernaryTensor::quantize(packing, Rounding::LeastSquares, 9, 256, &weights, None).unwrap();
                layers.push(Linear::ternary(tensor, mode).unwrap());
            }
        }
        for linear in layers {
            for isa in crate::Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
                let linear = linear.clone().with_isa(isa).unwrap();
                check(&linear).unwrap();
                let (passed, refused) = probe_and_fall_back(linear).unwrap();
                assert_eq!((passed.isa(), refused.len()), (isa, 0));
            }
        }
    }

    #[test]
    fn one_bit_is_a_difference() {
        assert_eq!(first_difference(&[1.0, 0.0], &[1.0, 0.0]), None);
        assert_eq!(first_difference(&[1.0, 0.0], &[1.0, -0.0]), Some(1));
        assert_eq!(first_difference(&[f32::NAN], &[-f32::NAN]), None);
        assert_eq!(first_difference(&[1.0, 3.0], &[1.0f32.next_up(), 3.0]), Some(0));
    }

    #[test]
    fn damaged_codes_are_refused() {
        let bytes = Bytes::from(vec![0xff; 66]);
        let tensor = TernaryTensor::new(Packing::Tq2_0, 1, 256, bytes, Scales::PerBlock).unwrap();
        let linear = Linear::ternary(tensor, ActMode::A8Block).unwrap();
        assert!(matches!(probe_and_fall_back(linear), Err(Error::Ternary(_))));
    }
}
