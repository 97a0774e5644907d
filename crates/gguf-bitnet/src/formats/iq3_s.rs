//! IQ3_S: 3.4375 bits per weight in super-blocks of 256: fours of weights from a grid of 512, and a sign for each weight.
//!
//! ```text
//! d: f16 | qs[64]: low 8 bits of the indices | qh[8]: bit 9 | signs[32] | scales[4]: 4 bits per 32 weights
//! value = (d (2 s + 1)) * grid * sign
//! ```

use std::sync::LazyLock;

use ternary_core::Error;

use super::blocks::{decode_blocks, f16_at, grid, nibble, signed};
use super::codebooks;
use super::format::{Format, Invalid, Layout};

/// The storage format IQ3_S.
pub(super) struct Iq3S;

impl Format for Iq3S {
    fn layout(&self) -> Layout {
        Layout { id: Some(21), name: "IQ3_S", block_len: 256, block_bytes: 110 }
    }

    fn invalid(&self) -> Invalid {
        Invalid::Block { scales: &[0], codes: 0 }
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        decode_blocks(bytes, out, decode);
        Ok(())
    }
}

static GRID: LazyLock<Vec<[u8; 4]>> = LazyLock::new(|| grid(&codebooks::IQ3_S, codebooks::IQ3_S_LETTERS));

fn decode(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let (qs, rest) = block[2..].split_at(64);
    let (qh, rest) = rest.split_at(8);
    let (signs, scales) = rest.split_at(32);
    let grid = &*GRID;
    for (i, (out, &low)) in out.as_chunks_mut().0.iter_mut().zip(qs).enumerate() {
        let index = usize::from(low) | usize::from(qh[i / 8] >> (i % 8) & 1) << 8;
        let scale = d * f32::from(2 * nibble(scales, i / 8) + 1);
        signed(scale, &grid[index], signs[i / 2] >> (4 * (i % 2)), out);
    }
}
