//! The types with super-blocks of 256 weights: Q2_K to Q6_K and IQ1_S.
//!
//! ```text
//! Q2_K:  scales[16] | qs[64] | d, dmin        value = (d s) q - (dmin m), s and m 4 bits per 16
//! Q3_K:  hmask[32] | qs[64] | scales[12] | d  value = (d (s - 32)) q,     s 6 bits per 16
//! Q4_K:  d, dmin | scales[12] | qs[128]       value = (d s) q - (dmin m), s and m 6 bits per 32
//! Q5_K:  d, dmin | scales[12] | qh[32] | qs[128]
//! Q6_K:  ql[128] | qh[64] | scales[16]: i8 | d   value = (d s) (q - 32)
//! IQ1_S: d | qs[32] | qh[8]: u16              value = (d (2 s + 1)) (grid +- 1/8), s 3 bits per 32
//! ```
//! Weights are numbered so that neighbouring bytes hold neighbouring weights: in Q2_K and Q3_K byte
//! `qs[32 h + m]`, bits 2n..2n+1, holds weight `128 h + 32 n + m`. Source: the block layouts of the
//! GGML format.

use super::decode::f16_at;
use super::iq1_grid::GRID;

pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (scales, rest) = block.split_at(16);
    let (qs, _) = rest.split_at(64);
    let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
    for (i, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * f32::from(scales[i] & 15);
        let min = dmin * f32::from(scales[i] >> 4);
        let (bytes, shift) = two_bit_run(qs, i);
        for (out, &byte) in out.iter_mut().zip(bytes) {
            *out = scale * f32::from(byte >> shift & 3) - min;
        }
    }
}

/// The 16 bytes and the shift that hold run `i` of 16 weights in the two-bit planes of `qs`.
fn two_bit_run(qs: &[u8], i: usize) -> (&[u8], usize) {
    let (half, plane, part) = (i / 8, i / 2 % 4, i % 2);
    (&qs[32 * half + 16 * part..][..16], 2 * plane)
}

pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let (hmask, rest) = block.split_at(32);
    let (qs, rest) = rest.split_at(64);
    let scales = &rest[..12];
    let d = f16_at(block, 108);
    for (i, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let low = if i < 8 { scales[i] & 15 } else { scales[i - 8] >> 4 };
        let high = scales[8 + i % 4] >> (2 * (i / 4)) & 3;
        let scale = d * (i32::from(low | high << 4) - 32) as f32;
        let (bytes, shift) = two_bit_run(qs, i);
        let high_bytes = &hmask[16 * (i % 2)..][..16];
        for ((out, &byte), &high) in out.iter_mut().zip(bytes).zip(high_bytes) {
            let q = i32::from(byte >> shift & 3) - 4 * i32::from(!high >> (i / 2) & 1);
            *out = scale * q as f32;
        }
    }
}

/// Scale and minimum of 32 weights number `j`, six bits each.
fn scale_min(scales: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (scales[j] & 63, scales[j + 4] & 63)
    } else {
        let low = scales[j + 4];
        (low & 15 | scales[j - 4] >> 6 << 4, low >> 4 | scales[j] >> 6 << 4)
    };
    (f32::from(scale), f32::from(min))
}

pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    let (scales, qs) = block[4..].split_at(12);
    for (j, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_min(scales, j);
        let (scale, min) = (d * scale, dmin * min);
        let shift = 4 * (j % 2);
        for (out, &byte) in out.iter_mut().zip(&qs[32 * (j / 2)..]) {
            *out = scale * f32::from(byte >> shift & 15) - min;
        }
    }
}

pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    let (scales, rest) = block[4..].split_at(12);
    let (qh, qs) = rest.split_at(32);
    for (j, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_min(scales, j);
        let (scale, min) = (d * scale, dmin * min);
        let shift = 4 * (j % 2);
        for ((out, &byte), &high) in out.iter_mut().zip(&qs[32 * (j / 2)..]).zip(qh) {
            let q = byte >> shift & 15 | (high >> j & 1) << 4;
            *out = scale * f32::from(q) - min;
        }
    }
}

pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let (ql, rest) = block.split_at(128);
    let (qh, rest) = rest.split_at(64);
    let d = f16_at(block, 208);
    for (i, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * f32::from(rest[i] as i8);
        let (half, plane, part) = (i / 8, i / 2 % 4, i % 2);
        let low = &ql[64 * half + 32 * (plane % 2) + 16 * part..];
        let high = &qh[32 * half + 16 * part..];
        let (low_shift, high_shift) = (4 * (plane / 2), 2 * plane);
        for ((out, &low), &high) in out.iter_mut().zip(low).zip(high) {
            let q = low >> low_shift & 15 | (high >> high_shift & 3) << 4;
            *out = scale * (i32::from(q) - 32) as f32;
        }
    }
}

pub(super) fn iq1_s(block: &[u8; 50], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let (qs, qh) = block[2..].split_at(32);
    let qh = qh.as_chunks::<2>().0;
    let grid = &*GRID;
    for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let high = u16::from_le_bytes(qh[i / 4]);
        let scale = d * f32::from(2 * (high >> 12 & 7) + 1);
        let delta = if high >> 15 == 1 { -0.125 } else { 0.125 };
        let index = usize::from(qs[i]) | usize::from(high >> (3 * (i % 4)) & 7) << 8;
        for (out, &trit) in out.iter_mut().zip(&grid[index]) {
            *out = scale * (f32::from(trit) + delta);
        }
    }
}
