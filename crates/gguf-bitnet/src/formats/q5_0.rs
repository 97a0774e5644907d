//! Q5_0: 5 bits per weight and one F16 scale per 32 weights.
//!
//! ```text
//! d: f16 | qh: u32 | qs[16]      value = d (q - 16)      bit m of qh = fifth bit of weight m
//! ```

use super::blocks::{Blocks, f16_at, five_bits};
use super::format::Invalid;

/// The storage format Q5_0.
pub(super) const Q5_0: Blocks<22, 32> =
    Blocks { id: 6, name: "Q5_0", invalid: Invalid::Block { scales: &[0], codes: 0 }, decode };

fn decode(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    for m in 0..16 {
        let [low, upper] = five_bits(block[6 + m], high, m);
        out[m] = d * (low - 16) as f32;
        out[m + 16] = d * (upper - 16) as f32;
    }
}
