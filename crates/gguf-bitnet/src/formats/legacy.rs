//! The types with blocks of 32 weights: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
//!
//! ```text
//! Q4_0: d | qs[16]            value = d (q - 8)      qs[m] = weight m (low 4 bits), m + 16 (high)
//! Q4_1: d, m | qs[16]         value = d q + m
//! Q5_0: d | qh: u32 | qs[16]  value = d (q - 16)     bit m of qh = fifth bit of weight m
//! Q5_1: d, m | qh | qs[16]    value = d q + m
//! Q8_0: d | qs[32]: i8        value = d q
//! ```
//! d and m are F16. Source: the block layouts of the GGML format.

use super::decode::f16_at;

pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for m in 0..16 {
        let byte = block[2 + m];
        out[m] = d * (i32::from(byte & 15) - 8) as f32;
        out[m + 16] = d * (i32::from(byte >> 4) - 8) as f32;
    }
}

pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, min) = (f16_at(block, 0), f16_at(block, 2));
    for m in 0..16 {
        let byte = block[4 + m];
        out[m] = d * f32::from(byte & 15) + min;
        out[m + 16] = d * f32::from(byte >> 4) + min;
    }
}

pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    for m in 0..16 {
        let [low, upper] = five_bits(block[6 + m], high, m);
        out[m] = d * (low - 16) as f32;
        out[m + 16] = d * (upper - 16) as f32;
    }
}

pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, min) = (f16_at(block, 0), f16_at(block, 2));
    let high = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    for m in 0..16 {
        let [low, upper] = five_bits(block[8 + m], high, m);
        out[m] = d * low as f32 + min;
        out[m + 16] = d * upper as f32 + min;
    }
}

/// Weights m and m + 16 from their byte and the word of fifth bits.
fn five_bits(byte: u8, high: u32, m: usize) -> [i32; 2] {
    let low = u32::from(byte & 15) | (high >> m & 1) << 4;
    let upper = u32::from(byte >> 4) | (high >> (m + 16) & 1) << 4;
    [low as i32, upper as i32]
}

pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for (out, &q) in out.iter_mut().zip(&block[2..]) {
        *out = d * f32::from(q as i8);
    }
}
