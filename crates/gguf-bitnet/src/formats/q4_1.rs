//! Q4_1: 4 bits per weight, an F16 scale and an F16 minimum per 32 weights.
//!
//! ```text
//! d: f16 | m: f16 | qs[16]      value = d q + m      codes as in Q4_0
//! ```

use super::blocks::{Blocks, f16_at};
use super::format::Invalid;

/// The storage format Q4_1.
pub(super) const Q4_1: Blocks<20, 32> =
    Blocks { id: 3, name: "Q4_1", invalid: Invalid::Block { scales: &[0, 2], codes: 0 }, decode };

fn decode(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, min) = (f16_at(block, 0), f16_at(block, 2));
    for m in 0..16 {
        let byte = block[4 + m];
        out[m] = d * f32::from(byte & 15) + min;
        out[m + 16] = d * f32::from(byte >> 4) + min;
    }
}
