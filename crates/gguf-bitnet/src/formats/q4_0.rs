//! Q4_0: 4 bits per weight and one F16 scale per 32 weights.
//!
//! ```text
//! d: f16 | qs[16]      value = d (q - 8)      qs[m] = weight m (low 4 bits), m + 16 (high)
//! ```

use super::blocks::{Blocks, f16_at};
use super::format::Invalid;

/// The storage format Q4_0.
pub(super) const Q4_0: Blocks<18, 32> =
    Blocks { id: 2, name: "Q4_0", invalid: Invalid::Block { scales: &[0], codes: 0 }, decode };

fn decode(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for m in 0..16 {
        let byte = block[2 + m];
        out[m] = d * (i32::from(byte & 15) - 8) as f32;
        out[m + 16] = d * (i32::from(byte >> 4) - 8) as f32;
    }
}
