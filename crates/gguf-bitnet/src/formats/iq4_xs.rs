//! IQ4_XS: 4.25 bits per weight in super-blocks of 256: the levels of IQ4_NL, with 6-bit scales per 32 weights.
//!
//! ```text
//! d: f16 | high 2 bits of the scales: u16 | low 4 bits: [4] | qs[128]      value = (d (s - 32)) level[q]
//! ```
//! Each run of 32 weights has 16 bytes of `qs`: weight m in the low 4 bits of byte m, m + 16 in the high ones.

use super::blocks::{Blocks, f16_at, levels, nibble};
use super::format::Invalid;
use super::iq4_nl::LEVELS;

/// The storage format IQ4_XS.
pub(super) const IQ4_XS: Blocks<136, 256> =
    Blocks { id: 23, name: "IQ4_XS", invalid: Invalid::Block { scales: &[0], codes: 0 }, decode };

fn decode(block: &[u8; 136], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let high = u16::from_le_bytes([block[2], block[3]]);
    let (low, qs) = block[4..].split_at(4);
    for (j, (out, qs)) in out.as_chunks_mut().0.iter_mut().zip(qs.as_chunks().0).enumerate() {
        let s = i32::from(nibble(low, j)) | i32::from(high >> (2 * j) & 3) << 4;
        levels(d * (s - 32) as f32, &LEVELS, qs, out);
    }
}
