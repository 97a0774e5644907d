//! Q6_K: super-blocks of 256 weights, codes of 6 bits, a scale of 8 bits per 16 weights, one F16.
//!
//! ```text
//! ql[128] | qh[64] | scales[16]: i8 | d: f16           weight = d scales[i / 16] (q - 32)
//! half h = i / 128, quarter n = i / 32 % 4, m = i % 32:
//!     low 4 bits of q:  ql[64 h + 32 (n % 2) + m], the lower nibble for n < 2, the upper one else
//!     high 2 bits of q: qh[32 h + m], bits 2n..2n+1
//! ```
//! The encoder follows the published method of k-quants: for each run of 16 weights several scales
//! near `largest / -32` are tried. Each gives codes, and these codes a best scale by least squares; the
//! scale that lowers the weighted error most is kept. Then the run scales are rounded to multiples
//! of the F16, and the codes are chosen for these rounded scales.

use ternary_core::Error;

use super::blocks::{decode_blocks, f16_at};
use super::f16::{F16_LIMIT, f16_to_f32, f32_to_f16};
use super::format::{Encoder, Encoding, Format, Invalid, Layout};

/// Weights that share a scale.
const RUN: usize = 16;
/// Scales tried per run: 19 different ones and the first again, to fill vectors of four.
const TRIALS: usize = 20;
/// Codes per largest weight at each trial: -32, then a tenth of a code more or less at a time.
const INVERSE: [f32; TRIALS] = [
    -32.0, -31.1, -31.2, -31.3, -31.4, -31.5, -31.6, -31.7, -31.8, -31.9, -32.1, -32.2, -32.3, -32.4, -32.5, -32.6,
    -32.7, -32.8, -32.9, -32.0,
];
/// Adding and then subtracting this number rounds to the nearest integer, ties to even.
const ROUND: f32 = 12_582_912.0;

/// The storage format Q6_K.
pub(super) struct Q6K;

impl Format for Q6K {
    fn layout(&self) -> Layout {
        Layout { id: Some(14), name: "Q6_K", block_len: 256, block_bytes: 210 }
    }

    fn invalid(&self) -> Invalid {
        Invalid::Block { scales: &[208], codes: 0 }
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        decode_blocks(bytes, out, decode);
        Ok(())
    }

    fn encoder(&self) -> Option<&dyn Encoder> {
        Some(self)
    }
}

impl Encoder for Q6K {
    fn limit(&self) -> f32 {
        // The block's scale is stored as F16, which bounds the weights.
        F16_LIMIT * 127.0 * 31.0
    }

    fn encode(&self, row: &[f32], encoding: Encoding<'_>, out: &mut [u8]) -> Result<(), Error> {
        encode(row, encoding.importance, out);
        Ok(())
    }
}

fn decode(block: &[u8; 210], out: &mut [f32; 256]) {
    let (ql, rest) = block.split_at(128);
    let (qh, rest) = rest.split_at(64);
    let d = f16_at(block, 208);
    for (i, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * f32::from(rest[i] as i8);
        let (half, quarter, part) = (i / 8, i / 2 % 4, i % 2);
        let low = &ql[64 * half + 32 * (quarter % 2) + 16 * part..];
        let high = &qh[32 * half + 16 * part..];
        let (low_shift, high_shift) = (4 * (quarter / 2), 2 * quarter);
        for ((out, &low), &high) in out.iter_mut().zip(low).zip(high) {
            let q = low >> low_shift & 15 | (high >> high_shift & 3) << 4;
            *out = scale * (i32::from(q) - 32) as f32;
        }
    }
}

/// Encodes a row of whole super-blocks. `importance` weighs the squared errors; without it the squared weights do.
fn encode(row: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let blocks = row.as_chunks::<256>().0;
    for (b, (x, out)) in blocks.iter().zip(out.as_chunks_mut::<210>().0).enumerate() {
        let importance = importance.and_then(|h| h.as_chunks::<256>().0.get(b));
        encode_block(x, importance, out);
    }
}

fn encode_block(x: &[f32; 256], importance: Option<&[f32; 256]>, out: &mut [u8; 210]) {
    let runs = x.as_chunks::<RUN>().0;
    let mut ideal = [0.0f32; 16];
    for (i, (ideal, x)) in ideal.iter_mut().zip(runs).enumerate() {
        let given = importance.map(|h| h.as_chunks::<RUN>().0[i]).filter(|h| h.iter().any(|&h| h > 0.0));
        let weights = given.unwrap_or_else(|| x.map(|x| x * x));
        *ideal = best_scale(x, &weights);
    }
    let largest = ideal.iter().fold(0.0f32, |m: f32, &s| if s.abs() > m.abs() { s } else { m });
    out.fill(0);
    if largest == 0.0 {
        // With scale 0 the codes have no effect; other encoders write 0 too.
        return;
    }

    // The largest scale becomes -128 times the F16, at least the smallest F16 there is.
    let half = match f32_to_f16(largest / -128.0) {
        zero @ (0 | 0x8000) => zero | 1,
        half => half,
    };
    let d = f16_to_f32(half);
    out[208..].copy_from_slice(&half.to_le_bytes());
    let mut codes = [0u8; 256];
    for (i, (codes, x)) in codes.as_chunks_mut::<RUN>().0.iter_mut().zip(runs).enumerate() {
        let scale = round(ideal[i] / d).clamp(-128.0, 127.0);
        out[192 + i] = scale as i8 as u8;
        let step = d * scale;
        let inverse = if step == 0.0 { 0.0 } else { 1.0 / step };
        for (code, x) in codes.iter_mut().zip(x) {
            let v = x * inverse;
            let v = if v > 31.0 { 31.0 } else { v };
            let v = if v < -32.0 { -32.0 } else { v };
            // The sum holds the integer in the low bits of its mantissa.
            *code = ((v + (ROUND + 32.0)).to_bits() & 63) as u8;
        }
    }
    let (ql, rest) = out.split_at_mut(128);
    let halves = codes.as_chunks::<128>().0;
    for ((ql, qh), codes) in ql.as_chunks_mut::<64>().0.iter_mut().zip(rest.as_chunks_mut::<32>().0).zip(halves) {
        for m in 0..32 {
            let [a, b, c, d] = [codes[m], codes[m + 32], codes[m + 64], codes[m + 96]];
            ql[m] = a & 15 | c << 4;
            ql[m + 32] = b & 15 | d << 4;
            qh[m] = a >> 4 | b >> 4 << 2 | c >> 4 << 4 | d >> 4 << 6;
        }
    }
}

/// The scale `s` with codes in -32..=31 that lowers `sum w (x - s q)^2` most among the trials.
fn best_scale(x: &[f32; RUN], weights: &[f32; RUN]) -> f32 {
    let largest = x.iter().fold(0.0f32, |m: f32, &x| if x.abs() > m.abs() { x } else { m });
    let heaviest = weights.iter().fold(0.0f32, |m, &w| if w > m { w } else { m });
    // Numbers are taken in units of the largest, so that squares of tiny numbers do not underflow.
    let (unit, weight_unit) = (1.0 / largest, 1.0 / heaviest);
    if !unit.is_finite() {
        return 0.0;
    }
    if !weight_unit.is_finite() {
        return largest * INVERSE[0].recip();
    }
    let mut sum_xq = [0.0f32; TRIALS];
    let mut sum_qq = [0.0f32; TRIALS];
    for (&x, &w) in x.iter().zip(weights) {
        let (x, w) = (x * unit, w * weight_unit);
        for ((xq, qq), inverse) in sum_xq.iter_mut().zip(&mut sum_qq).zip(&INVERSE) {
            let v = round(inverse * x);
            let v = if v > 31.0 { 31.0 } else { v };
            let q = if v < -32.0 { -32.0 } else { v };
            *xq += w * x * q;
            *qq += w * q * q;
        }
    }
    // The error is that of all zeros less xq^2 / qq. The largest weight has a code, so qq > 0
    // unless its importance is 0.
    let (mut best_xq, mut best_qq) = (0.0, 1.0);
    for (xq, qq) in sum_xq.into_iter().zip(sum_qq) {
        if xq * xq * best_qq > best_xq * best_xq * qq {
            (best_xq, best_qq) = (xq, qq);
        }
    }
    best_xq / best_qq * largest
}

/// The nearest integer, ties to even, of a magnitude below 2^22.
#[inline(always)]
fn round(v: f32) -> f32 {
    (v + ROUND) - ROUND
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::TensorType;
    use crate::formats::dequantize;

    fn wave(n: usize, f: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * f).sin() * (1.0 + (i as f32 * 0.013).cos()) * 0.05).collect()
    }

    fn error(x: &[f32], importance: Option<&[f32]>) -> f64 {
        let mut bytes = vec![0; x.len() / 256 * 210];
        encode(x, importance, &mut bytes);
        let mut back = vec![0.0; x.len()];
        dequantize(TensorType::Q6K, &bytes, &mut back).unwrap();
        let h = |i: usize| importance.map_or(1.0, |h| f64::from(h[i]));
        x.iter().zip(back).enumerate().map(|(i, (a, b))| h(i) * f64::from(a - b).powi(2)).sum()
    }

    #[test]
    fn the_search_beats_the_plain_scale() {
        for f in [0.1, 0.77, 1.3, 2.9] {
            let x = wave(1024, f);
            let plain: f64 = x
                .chunks(RUN)
                .map(|run| {
                    let s = run.iter().fold(0.0f32, |m: f32, &v| if v.abs() > m.abs() { v } else { m }) / -32.0;
                    let q = |v: f32| (v / s).round().clamp(-32.0, 31.0);
                    run.iter().map(|&v| f64::from(v - s * q(v)).powi(2)).sum::<f64>()
                })
                .sum();
            // The plain scale above is exact, while the encoder's is rounded to 8 bits, and yet the encoder's error is
            // smaller.
            assert!(error(&x, None) < plain, "{} against {plain}", error(&x, None));
            let power: f64 = x.iter().map(|&v| f64::from(v).powi(2)).sum();
            assert!(error(&x, None) / power < 1e-3);
        }
    }

    #[test]
    fn importance_moves_the_error_to_where_it_counts_less() {
        let x = wave(1024, 0.77);
        let importance: Vec<f32> = (0..x.len()).map(|i| if i % 3 == 0 { 50.0 } else { 0.01 }).collect();
        let with = error(&x, Some(&importance));
        let mut bytes = vec![0; 4 * 210];
        encode(&x, None, &mut bytes);
        let mut back = vec![0.0; x.len()];
        dequantize(TensorType::Q6K, &bytes, &mut back).unwrap();
        let without: f64 = (0..x.len()).map(|i| f64::from(importance[i]) * f64::from(x[i] - back[i]).powi(2)).sum();
        assert!(with < without, "{with} against {without}");
    }

    #[test]
    fn zeros_tiny_and_representable_weights() {
        assert_eq!(error(&[0.0; 256], None), 0.0);
        assert_eq!(error(&[0.0; 256], Some(&[1.0; 256])), 0.0);
        assert_eq!(error(&[1.0; 256], Some(&[0.0; 256])), error(&[1.0; 256], None));
        let tiny: Vec<f32> = wave(256, 0.5).iter().map(|v| v * 1e-38).collect();
        assert!(error(&tiny, None).is_finite());
        let small: Vec<f32> = wave(256, 0.5).iter().map(|v| v * 1e-4).collect();
        let power: f64 = small.iter().map(|&v| f64::from(v).powi(2)).sum();
        assert!(error(&small, None) < 0.05 * power);
        // Multiples of one step, with -32 in every run, are encoded without an error.
        let exact: Vec<f32> = (0..256).map(|i| ((i * 7 % 64) as f32 - 32.0) * 0.25).map(|v| v.max(-8.0)).collect();
        let exact: Vec<f32> = exact.iter().enumerate().map(|(i, &v)| if i % 16 == 0 { -8.0 } else { v }).collect();
        assert_eq!(error(&exact, None), 0.0);
    }
}
