//! MXFP4: 4-bit floating-point numbers (E2M1) and one power of two per 32 weights.
//!
//! ```text
//! e: u8 | qs[16]      value = 2^(e - 127) number[q]      qs[m] = weight m (low 4 bits), m + 16 (high)
//! ```
//! e = 255 is NaN. Source: the OCP Microscaling Formats specification, version 1.0.

use ternary_core::Error;

use super::blocks::{decode_blocks, levels};
use super::format::{Format, Invalid, Layout};

/// Twice the numbers of E2M1: sign 1 | exponent 2 | mantissa 1.
const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The storage format MXFP4.
pub(super) struct Mxfp4;

impl Format for Mxfp4 {
    fn layout(&self) -> Layout {
        Layout { id: Some(39), name: "MXFP4", block_len: 32, block_bytes: 17 }
    }

    fn invalid(&self) -> Invalid {
        Invalid::Scale(|block| half_power(block[0]))
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        decode_blocks(bytes, out, |&[e, ref qs @ ..]: &[u8; 17], out: &mut [f32; 32]| {
            levels(half_power(e), &DOUBLED, qs, out);
        });
        Ok(())
    }
}

/// 2^(e - 128), half of the block's scale; NaN for 255.
fn half_power(e: u8) -> f32 {
    match e {
        255 => f32::NAN,
        // The two smallest are subnormal.
        0 | 1 => f32::from_bits(0x0020_0000 << e),
        _ => f32::from_bits(u32::from(e - 1) << 23),
    }
}
