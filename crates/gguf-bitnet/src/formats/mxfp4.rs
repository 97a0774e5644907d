//! MXFP4: 4-bit floating-point numbers (E2M1) and one power of two per 32 weights.
//!
//! ```text
//! e: u8 | qs[16]      value = 2^(e - 127) number[q]      qs[m] = weight m (low 4 bits), m + 16 (high)
//! ```
//! e = 255 is NaN. Source: the OCP Microscaling Formats specification, version 1.0.

use super::blocks::{Blocks, levels};
use super::format::Invalid;

/// Twice the numbers of E2M1: sign 1 | exponent 2 | mantissa 1.
const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The storage format MXFP4.
pub(super) const MXFP4: Blocks<17, 32> =
    Blocks { id: 39, name: "MXFP4", invalid: Invalid::Scale(|block| half_power(block[0])), decode };

fn decode(&[e, ref qs @ ..]: &[u8; 17], out: &mut [f32; 32]) {
    levels(half_power(e), &DOUBLED, qs, out);
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
