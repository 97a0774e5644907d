//! IQ3_S: 3.4375 bits per weight in super-blocks of 256: fours of weights from a grid of 512, and a sign for each weight.
//!
//! ```text
//! d: f16 | qs[64]: low 8 bits of the indices | qh[8]: bit 9 | signs[32] | scales[4]: 4 bits per 32 weights
//! value = (d (2 s + 1)) * grid * sign
//! ```

use std::sync::LazyLock;

use super::blocks::{Blocks, f16_at, grid, nibble, signed};
use super::codebooks;
use super::format::Invalid;

/// The storage format IQ3_S.
pub(super) const IQ3_S: Blocks<110, 256> =
    Blocks { id: 21, name: "IQ3_S", invalid: Invalid::Block { scales: &[0], codes: 0 }, decode };

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
