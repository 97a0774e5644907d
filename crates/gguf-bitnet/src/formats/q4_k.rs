//! Q4_K: 4 bits per weight in super-blocks of 256, with 6-bit scales and minima per 32 weights.
//!
//! ```text
//! d: f16 | dmin: f16 | scales[12] | qs[128]      value = (d s) q - (dmin m), s and m 6 bits per 32
//! ```

use super::blocks::{Blocks, f16_at, scale_min};
use super::format::Invalid;

/// The storage format Q4_K.
pub(super) const Q4_K: Blocks<144, 256> =
    Blocks { id: 12, name: "Q4_K", invalid: Invalid::Block { scales: &[0, 2], codes: 0 }, decode };

fn decode(block: &[u8; 144], out: &mut [f32; 256]) {
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
