//! Q5_1: 5 bits per weight, an F16 scale and an F16 minimum per 32 weights.
//!
//! ```text
//! d: f16 | m: f16 | qh: u32 | qs[16]      value = d q + m      codes as in Q5_0
//! ```

use super::blocks::{Blocks, f16_at, five_bits};
use super::format::Invalid;

/// The storage format Q5_1.
pub(super) const Q5_1: Blocks<24, 32> =
    Blocks { id: 7, name: "Q5_1", invalid: Invalid::Block { scales: &[0, 2], codes: 0 }, decode };

fn decode(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, min) = (f16_at(block, 0), f16_at(block, 2));
    let high = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    for m in 0..16 {
        let [low, upper] = five_bits(block[8 + m], high, m);
        out[m] = d * low as f32 + min;
        out[m + 16] = d * upper as f32 + min;
    }
}
