//! F32 rows to stored bytes: the counterpart of [`dequantize`](crate::dequantize) for the types that
//! are written.
//!
//! **Invariant:** results depend on the row alone: same bits on every machine. What a type cannot
//! hold is an error that names the element, never an infinity in the file.

use ternary_core::{Packing, Rounding};

use super::float::f32_to_f16;
use super::q6_k;
use crate::error::{Error, Result};
use crate::formats::TensorType;

/// F16 rounds to infinity from here on.
const F16_LIMIT: f32 = 65520.0;
/// BF16 rounds to infinity from here on: the largest BF16 and half a unit.
const BF16_LIMIT: f32 = f32::from_bits(0x7f7f_8000);

/// Appends one row (or several whole rows) in a type that is not ternary; see [`encode_row`].
///
/// ```
/// use gguf_bitnet::{TensorType, dequantize, quantize_row};
/// let row: Vec<f32> = (0..32).map(|i| i as f32 / 31.0).collect();
/// let mut bytes = Vec::new();
/// quantize_row(TensorType::Q8_0, &row, &mut bytes)?;
/// let mut back = [0.0; 32];
/// dequantize(TensorType::Q8_0, &bytes, &mut back)?;
/// assert!(row.iter().zip(back).all(|(a, b)| (a - b).abs() < 0.005));
/// # Ok::<(), gguf_bitnet::Error>(())
/// ```
///
/// # Errors
/// As [`encode_row`]; [`Error::NotWritable`] for ternary types, which need a [`Rounding`].
pub fn quantize_row(ty: TensorType, row: &[f32], out: &mut Vec<u8>) -> Result<()> {
    if ty.is_ternary() {
        return Err(Error::NotWritable { ty });
    }
    encode_row(ty, Rounding::AbsMean, row, None, out)
}

/// Appends one row (or several whole rows) to `out`, in any type that is written.
///
/// `rounding` says how ternary types choose their trits; others ignore it. `importance`, one value
/// per element, weighs the squared error of ternary types and of Q6_K; others ignore it.
///
/// # Errors
/// [`Error::NotWritable`] for types that are only read, [`Error::RowNotBlocks`] for a length that
/// does not divide into blocks, [`Error::NotRepresentable`] for NaN, infinite and too large values,
/// [`Error::ImportanceLength`] and [`Error::BadImportance`]. Nothing is appended then.
pub fn encode_row(
    ty: TensorType,
    rounding: Rounding,
    row: &[f32],
    importance: Option<&[f32]>,
    out: &mut Vec<u8>,
) -> Result<()> {
    if !ty.is_writable() {
        return Err(Error::NotWritable { ty });
    }
    let bytes = ty.row_bytes(row.len())?;
    check_values(ty, row)?;
    check_importance(row, importance)?;
    let start = out.len();
    out.resize(start + bytes, 0);
    let encoded = &mut out[start..];
    match ty {
        TensorType::F16 => numbers(row, encoded, |v| f32_to_f16(v).to_le_bytes()),
        TensorType::Bf16 => numbers(row, encoded, |v| f32_to_bf16(v).to_le_bytes()),
        TensorType::Q8_0 => blocks(row, encoded, q8_0),
        TensorType::Q6K => q6_k::encode(row, importance, encoded),
        TensorType::Tq1_0 => ternary(Packing::Tq1_0, rounding, row, importance, encoded)?,
        TensorType::Tq2_0 => ternary(Packing::Tq2_0, rounding, row, importance, encoded)?,
        TensorType::BitnetT158 => ternary(Packing::BitnetT158, rounding, row, importance, encoded)?,
        _ => numbers(row, encoded, f32::to_le_bytes),
    }
    Ok(())
}

/// Values of this magnitude or more do not fit the type.
fn limit(ty: TensorType) -> f32 {
    match ty {
        TensorType::F16 => F16_LIMIT,
        TensorType::Bf16 => BF16_LIMIT,
        // The scale is an F16.
        TensorType::Q8_0 => F16_LIMIT * 127.0,
        TensorType::Q6K => F16_LIMIT * 127.0 * 31.0,
        _ => f32::INFINITY,
    }
}

fn check_values(ty: TensorType, row: &[f32]) -> Result<()> {
    let limit = limit(ty);
    // Without an early exit, so that it becomes vector code; false for NaN.
    let all_fit = row.iter().fold(true, |all, v| all & (v.abs() < limit));
    if !all_fit && let Some(at) = row.iter().position(|v| v.is_nan() || v.abs() >= limit) {
        return Err(Error::NotRepresentable { ty, at, value: row[at] });
    }
    Ok(())
}

fn check_importance(row: &[f32], importance: Option<&[f32]>) -> Result<()> {
    let Some(importance) = importance else { return Ok(()) };
    if importance.len() != row.len() {
        return Err(Error::ImportanceLength { cols: row.len(), got: importance.len() });
    }
    match importance.iter().position(|h| !h.is_finite() || *h < 0.0) {
        Some(at) => Err(Error::BadImportance { at, value: importance[at] }),
        None => Ok(()),
    }
}

/// One number of `N` bytes per value.
fn numbers<const N: usize>(row: &[f32], out: &mut [u8], encode: impl Fn(f32) -> [u8; N]) {
    for (out, &v) in out.as_chunks_mut().0.iter_mut().zip(row) {
        *out = encode(v);
    }
}

/// One block of `B` bytes per `W` values.
fn blocks<const W: usize, const B: usize>(row: &[f32], out: &mut [u8], encode: impl Fn(&[f32; W], &mut [u8; B])) {
    for (out, x) in out.as_chunks_mut().0.iter_mut().zip(row.as_chunks().0) {
        encode(x, out);
    }
}

fn ternary(
    packing: Packing,
    rounding: Rounding,
    row: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> Result<()> {
    Ok(ternary_core::quantize_row(packing, rounding, row, importance, out)?)
}

/// The nearest BF16, ties to even, of a finite value below the limit.
fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// Q8_0: scale = largest magnitude / 127, codes rounded with halves away from zero, as the
/// reference does.
fn q8_0(x: &[f32; 32], out: &mut [u8; 34]) {
    let mut largest = [0.0f32; 8];
    for x in x.as_chunks::<8>().0 {
        for (largest, x) in largest.iter_mut().zip(x) {
            *largest = if x.abs() > *largest { x.abs() } else { *largest };
        }
    }
    let largest = largest.iter().fold(0.0f32, |m, &v| if v > m { v } else { m });
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let (d, codes) = out.split_at_mut(2);
    d.copy_from_slice(&f32_to_f16(scale).to_le_bytes());
    for (code, x) in codes.iter_mut().zip(x) {
        // The inverse of a subnormal scale overflows; clamping keeps infinities in range.
        let v = (x * inverse).clamp(-127.0, 127.0);
        // The largest F32 below one half: adding it and cutting off rounds halves away from zero.
        *code = (v + 0.499_999_97_f32.copysign(v)) as i32 as i8 as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_to_nearest_even() {
        for bits in (0..0x7f7f_8000u32).step_by(4099).chain([0x3f80_8000, 0x3f81_8000, 0x7f7f_7fff, 1]) {
            for value in [f32::from_bits(bits), -f32::from_bits(bits)] {
                assert_eq!(f32_to_bf16(value), half::bf16::from_f32(value).to_bits(), "{bits:#x}");
            }
        }
    }

    #[test]
    fn the_cut_rounds_halves_away_from_zero() {
        let trick = |v: f32| (v + 0.499_999_97_f32.copysign(v)) as i32 as f32;
        for half in -254..=254 {
            let v = half as f32 / 2.0;
            for v in [v, v.next_up(), v.next_down()] {
                assert_eq!(trick(v), v.round(), "{v:e}");
            }
        }
    }
}
