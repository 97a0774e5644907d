//! Pieces that several formats are made of: loops over blocks, F16 fields, bit fields shared by neighbouring formats.

use ternary_core::Error;

use super::f16::f16_to_f32;
use super::format::{Format, Invalid, Layout};

/// A format that is only read, whose rows are blocks of `W` weights in `B` bytes.
pub(super) struct Blocks<const B: usize, const W: usize> {
    /// The GGML type id that GGUF files hold.
    pub(super) id: u32,
    pub(super) name: &'static str,
    pub(super) invalid: Invalid,
    /// Writes the values of a block.
    pub(super) decode: fn(block: &[u8; B], out: &mut [f32; W]),
}

impl<const B: usize, const W: usize> Format for Blocks<B, W> {
    fn layout(&self) -> Layout {
        Layout { id: Some(self.id), name: self.name, block_len: W, block_bytes: B }
    }

    fn invalid(&self) -> Invalid {
        self.invalid
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        decode_blocks(bytes, out, self.decode);
        Ok(())
    }
}

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

/// Number `i` of a list of 4-bit numbers, the low ones of each byte first.
pub(super) fn nibble(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 2] >> (4 * (i % 2)) & 15
}

/// Decodes 32 weights of 4 bits that choose a level: weight m is in the low bits of byte m, m + 16 in the high ones.
pub(super) fn levels(scale: f32, levels: &[i8; 16], qs: &[u8; 16], out: &mut [f32; 32]) {
    let (low, high) = out.split_at_mut(16);
    for ((low, high), &q) in low.iter_mut().zip(high).zip(qs) {
        *low = scale * f32::from(levels[usize::from(q & 15)]);
        *high = scale * f32::from(levels[usize::from(q >> 4)]);
    }
}

/// Decodes magnitudes from a grid; bit i of `signs` is set where weight i is negative.
pub(super) fn signed<const N: usize>(scale: f32, magnitudes: &[u8; N], signs: u8, out: &mut [f32; N]) {
    for (i, (out, &magnitude)) in out.iter_mut().zip(magnitudes).enumerate() {
        let value = scale * f32::from(magnitude);
        *out = if signs >> i & 1 == 1 { -value } else { value };
    }
}

/// Eight signs from the low seven bits of a word: the eighth makes the number of negative ones even.
pub(super) fn even_signs(word: u32) -> u8 {
    let seven = (word & 127) as u8;
    seven | ((seven.count_ones() & 1) as u8) << 7
}

/// The grid that a bit set describes: every vector whose number `sum(letter[i] * B^i)` is the place of a set bit, in
/// ascending order; bit `n % 64` of word `n / 64` is place n.
pub(super) fn grid<T: Copy, const N: usize, const B: usize>(members: &[u64], letters: [T; B]) -> Vec<[T; N]> {
    let is_member = |n: &usize| members[n / 64] >> (n % 64) & 1 == 1;
    let vector = |n: usize| std::array::from_fn(|i| letters[n / B.pow(i as u32) % B]);
    (0..64 * members.len()).filter(is_member).map(vector).collect()
}
