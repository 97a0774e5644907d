//! Q4_K: 4 bits per weight in super-blocks of 256, with 6-bit scales and minima per 32 weights.
//!
//! ```text
//! d: f16 | dmin: f16 | scales[12] | qs[128]      value = (d s) q - (dmin m), s and m 6 bits per 32
//! ```

use ternary_core::Error;

use super::blocks::{decode_blocks, f16_at, scale_min};
use super::format::{Format, Invalid, Layout};

/// The storage format Q4_K.
pub(super) struct Q4K;

impl Format for Q4K {
    fn layout(&self) -> Layout {
        Layout { id: Some(12), name: "Q4_K", block_len: 256, block_bytes: 144 }
    }

    fn invalid(&self) -> Invalid {
        Invalid::Block { scales: &[0, 2], codes: 0 }
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        decode_blocks(bytes, out, decode);
        Ok(())
    }
}

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
