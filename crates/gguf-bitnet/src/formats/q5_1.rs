//! Q5_1: 5 bits per weight, an F16 scale and an F16 minimum per 32 weights.
//!
//! ```text
//! d: f16 | m: f16 | qh: u32 | qs[16]      value = d q + m      codes as in Q5_0
//! ```

use ternary_core::Error;

use super::blocks::{decode_blocks, f16_at, five_bits};
use super::format::{Format, Invalid, Layout};

/// The storage format Q5_1.
pub(super) struct Q5_1;

impl Format for Q5_1 {
    fn layout(&self) -> Layout {
        Layout { id: Some(7), name: "Q5_1", block_len: 32, block_bytes: 24 }
    }

    fn invalid(&self) -> Invalid {
        Invalid::Block { scales: &[0, 2], codes: 0 }
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        decode_blocks(bytes, out, decode);
        Ok(())
    }
}

fn decode(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, min) = (f16_at(block, 0), f16_at(block, 2));
    let high = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    for m in 0..16 {
        let [low, upper] = five_bits(block[8 + m], high, m);
        out[m] = d * low as f32 + min;
        out[m + 16] = d * upper as f32 + min;
    }
}
