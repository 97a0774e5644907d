//! Q4_0: 4 bits per weight and one F16 scale per 32 weights.
//!
//! ```text
//! d: f16 | qs[16]      value = d (q - 8)      qs[m] = weight m (low 4 bits), m + 16 (high)
//! ```

use ternary_core::Error;

use super::blocks::{decode_blocks, f16_at};
use super::format::{Format, Invalid, Layout};

/// The storage format Q4_0.
pub(super) struct Q4_0;

impl Format for Q4_0 {
    fn layout(&self) -> Layout {
        Layout { id: Some(2), name: "Q4_0", block_len: 32, block_bytes: 18 }
    }

    fn invalid(&self) -> Invalid {
        Invalid::Block { scales: &[0], codes: 0 }
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        decode_blocks(bytes, out, decode);
        Ok(())
    }
}

fn decode(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for m in 0..16 {
        let byte = block[2 + m];
        out[m] = d * (i32::from(byte & 15) - 8) as f32;
        out[m + 16] = d * (i32::from(byte >> 4) - 8) as f32;
    }
}
