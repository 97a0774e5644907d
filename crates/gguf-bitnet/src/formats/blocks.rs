//! Pieces that several formats are made of: loops over blocks, F16 fields, bit fields shared by neighbouring formats.

use super::f16::f16_to_f32;

/// Decodes one block of `B` bytes per `W` values.
pub(super) fn decode_blocks<const B: usize, const W: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; B], &mut [f32; W]),
) {
    for (out, b) in out.as_chunks_mut().0.iter_mut().zip(bytes.as_chunks().0) {
        block(b, out);
    }
}

/// Encodes one block of `B` bytes per `W` values.
pub(super) fn encode_blocks<const W: usize, const B: usize>(
    row: &[f32],
    out: &mut [u8],
    encode: impl Fn(&[f32; W], &mut [u8; B]),
) {
    for (out, x) in out.as_chunks_mut().0.iter_mut().zip(row.as_chunks().0) {
        encode(x, out);
    }
}

/// Decodes one number of `N` bytes per value.
pub(super) fn decode_numbers<const N: usize>(bytes: &[u8], out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    for (out, &b) in out.iter_mut().zip(bytes.as_chunks().0) {
        *out = value(b);
    }
}

/// Encodes one number of `N` bytes per value.
pub(super) fn encode_numbers<const N: usize>(row: &[f32], out: &mut [u8], encode: impl Fn(f32) -> [u8; N]) {
    for (out, &v) in out.as_chunks_mut().0.iter_mut().zip(row) {
        *out = encode(v);
    }
}

/// The F16 that starts at byte `at` of a block.
pub(super) fn f16_at(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Weights m and m + 16 of a Q5_0 or Q5_1 block from their byte and the word of fifth bits.
pub(super) fn five_bits(byte: u8, high: u32, m: usize) -> [i32; 2] {
    let low = u32::from(byte & 15) | (high >> m & 1) << 4;
    let upper = u32::from(byte >> 4) | (high >> (m + 16) & 1) << 4;
    [low as i32, upper as i32]
}

/// The 16 bytes and the shift that hold run `i` of 16 weights in the two-bit codes of Q2_K and Q3_K: byte
/// `qs[32 h + m]`, bits 2n..2n+1, holds weight `128 h + 32 n + m`.
pub(super) fn two_bit_run(qs: &[u8], i: usize) -> (&[u8], usize) {
    let (half, pair, part) = (i / 8, i / 2 % 4, i % 2);
    (&qs[32 * half + 16 * part..][..16], 2 * pair)
}

/// Scale and minimum of run `j` of 32 weights in the twelve bytes of scales of Q4_K and Q5_K, six bits each.
pub(super) fn scale_min(scales: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (scales[j] & 63, scales[j + 4] & 63)
    } else {
        let low = scales[j + 4];
        (low & 15 | scales[j - 4] >> 6 << 4, low >> 4 | scales[j] >> 6 << 4)
    };
    (f32::from(scale), f32::from(min))
}
