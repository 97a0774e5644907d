//! IQ4_NL: 4 bits per weight that choose one of 16 uneven levels, and one F16 scale per 32 weights.
//!
//! ```text
//! d: f16 | qs[16]      value = d level[q]      qs[m] = weight m (low 4 bits), m + 16 (high)
//! ```

use ternary_core::Error;

use super::blocks::{decode_blocks, f16_at, levels};
use super::format::{Format, Invalid, Layout};

/// The levels of IQ4_NL and IQ4_XS; they are part of the formats.
pub(super) const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The storage format IQ4_NL.
pub(super) struct Iq4Nl;

impl Format for Iq4Nl {
    fn layout(&self) -> Layout {
        Layout { id: Some(20), name: "IQ4_NL", block_len: 32, block_bytes: 18 }
    }

    fn invalid(&self) -> Invalid {
        Invalid::Block { scales: &[0], codes: 0 }
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        decode_blocks(bytes, out, |block: &[u8; 18], out: &mut [f32; 32]| {
            let [_, _, qs @ ..] = block;
            levels(f16_at(block, 0), &LEVELS, qs, out);
        });
        Ok(())
    }
}
