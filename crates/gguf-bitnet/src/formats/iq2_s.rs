//! IQ2_S: 2.5625 bits per weight in super-blocks of 256: octets from a grid of 1024, and a sign for each weight.
//!
//! ```text
//! d: f16 | qs[32]: low 8 bits of the indices | signs[32] | qh[8]: high 2 bits | scales[8]: 4 bits per 16 weights
//! value = (d (s + 1/2)) / 4 * grid * sign
//! ```

use std::sync::LazyLock;

use super::blocks::{Blocks, f16_at, grid, nibble, signed};
use super::codebooks;
use super::format::Invalid;

/// The storage format IQ2_S.
pub(super) const IQ2_S: Blocks<82, 256> =
    Blocks { id: 22, name: "IQ2_S", invalid: Invalid::Block { scales: &[0], codes: 0 }, decode };

static GRID: LazyLock<Vec<[u8; 8]>> = LazyLock::new(|| grid(&codebooks::IQ2_S, codebooks::IQ2_LETTERS));

fn decode(block: &[u8; 82], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let (qs, rest) = block[2..].split_at(32);
    let (signs, rest) = rest.split_at(32);
    let (qh, scales) = rest.split_at(8);
    let grid = &*GRID;
    for (i, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
        let index = usize::from(qs[i]) | usize::from(qh[i / 4] >> (2 * (i % 4)) & 3) << 8;
        let scale = d * (0.5 + f32::from(nibble(scales, i / 2))) * 0.25;
        signed(scale, &grid[index], signs[i], out);
    }
}
