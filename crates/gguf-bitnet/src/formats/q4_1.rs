//! Q4_1: 4 bits per weight, an F16 scale and an F16 minimum per 32 weights.
//!
//! ```text
//! d: f16 | m: f16 | qs[16]      value = d q + m      codes as in Q4_0
//! ```

use ternary_core::Error;

use super::blocks::{decode_blocks, f16_at};
use super::format::{Format, Invalid, Layout};

/// The storage format Q4_1.
pub(super) struct Q4_1;

impl Format for Q4_1 {
    fn layout(&self) -> Layout {
        Layout { id: Some(3), name: "Q4_1", block_len: 32, block_bytes: 20 }
    }

    fn invalid(&self) -> Invalid {
        Invalid::Block { scales: &[0, 2], codes: 0 }
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        decode_blocks(bytes, out, decode);
        Ok(())
    }
}

fn decode(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, min) = (f16_at(block, 0), f16_at(block, 2));
    for m in 0..16 {
        let byte = block[4 + m];
        out[m] = d * f32::from(byte & 15) + min;
        out[m + 16] = d * f32::from(byte >> 4) + min;
    }
}
