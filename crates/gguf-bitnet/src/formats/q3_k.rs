//! Q3_K: 3 bits per weight in super-blocks of 256, with 6-bit scales per 16 weights.
//!
//! ```text
//! hmask[32] | qs[64] | scales[12] | d: f16      value = (d (s - 32)) q, s 6 bits per 16
//! ```
//! `qs` holds the low two bits of the codes, `hmask` the inverted third ones.

use super::blocks::{Blocks, f16_at, two_bit_run};
use super::format::Invalid;

/// The storage format Q3_K.
pub(super) const Q3_K: Blocks<110, 256> =
    Blocks { id: 11, name: "Q3_K", invalid: Invalid::Block { scales: &[108], codes: 0 }, decode };

fn decode(block: &[u8; 110], out: &mut [f32; 256]) {
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
