//! IQ4_NL: 4 bits per weight that choose one of 16 uneven levels, and one F16 scale per 32 weights.
//!
//! ```text
//! d: f16 | qs[16]      value = d level[q]      qs[m] = weight m (low 4 bits), m + 16 (high)
//! ```

use super::blocks::{Blocks, f16_at, levels};
use super::format::Invalid;

/// The levels of IQ4_NL and IQ4_XS; they are part of the formats.
pub(super) const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The storage format IQ4_NL.
pub(super) const IQ4_NL: Blocks<18, 32> =
    Blocks { id: 20, name: "IQ4_NL", invalid: Invalid::Block { scales: &[0], codes: 0 }, decode };

fn decode(block: &[u8; 18], out: &mut [f32; 32]) {
    let [_, _, qs @ ..] = block;
    levels(f16_at(block, 0), &LEVELS, qs, out);
}
