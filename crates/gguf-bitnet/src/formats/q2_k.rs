//! Q2_K: 2 bits per weight in super-blocks of 256, with 4-bit scales and minima per 16 weights.
//!
//! ```text
//! scales[16] | qs[64] | d: f16 | dmin: f16      value = (d s) q - (dmin m), s and m 4 bits per 16
//! ```

use super::blocks::{Blocks, f16_at, two_bit_run};
use super::format::Invalid;

/// The storage format Q2_K.
pub(super) const Q2_K: Blocks<84, 256> =
    Blocks { id: 10, name: "Q2_K", invalid: Invalid::Block { scales: &[80, 82], codes: 0 }, decode };

fn decode(block: &[u8; 84], out: &mut [f32; 256]) {
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
