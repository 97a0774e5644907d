//! IQ3_XXS: 3.0625 bits per weight in super-blocks of 256: fours of weights from a grid of 256, and their signs.
//!
//! ```text
//! d: f16 | qs[64]: indices | 8 x u32, per 32 weights: 4 x 7 bits of signs, scale s in the upper 4
//! value = (d (s + 1/2)) / 2 * grid * sign
//! ```

use std::sync::LazyLock;

use super::blocks::{Blocks, even_signs, f16_at, grid, signed};
use super::codebooks;
use super::format::Invalid;

/// The storage format IQ3_XXS.
pub(super) const IQ3_XXS: Blocks<98, 256> =
    Blocks { id: 18, name: "IQ3_XXS", invalid: Invalid::Block { scales: &[0], codes: 0 }, decode };

static GRID: LazyLock<Vec<[u8; 4]>> = LazyLock::new(|| grid(&codebooks::IQ3_XXS, codebooks::IQ3_XXS_LETTERS));

fn decode(block: &[u8; 98], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let (qs, words) = block[2..].split_at(64);
    let grid = &*GRID;
    for (i, (out, &index)) in out.as_chunks_mut().0.iter_mut().zip(qs).enumerate() {
        let word = u32::from_le_bytes(words.as_chunks().0[i / 8]);
        let scale = d * (0.5 + (word >> 28) as f32) * 0.5;
        // Two fours share an octet of signs.
        let signs = even_signs(word >> (7 * (i / 2 % 4)));
        signed(scale, &grid[usize::from(index)], signs >> (4 * (i % 2)), out);
    }
}
