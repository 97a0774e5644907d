//! IQ2_XXS: 2.0625 bits per weight in super-blocks of 256: octets from a grid of 256, and their signs.
//!
//! ```text
//! d: f16 | 8 runs of 32 weights: index[4], u32: 4 x 7 bits of signs, scale s in the upper 4
//! value = (d (s + 1/2)) / 4 * grid * sign
//! ```

use std::sync::LazyLock;

use super::blocks::{Blocks, even_signs, f16_at, grid, signed};
use super::codebooks;
use super::format::Invalid;

/// The storage format IQ2_XXS.
pub(super) const IQ2_XXS: Blocks<66, 256> =
    Blocks { id: 16, name: "IQ2_XXS", invalid: Invalid::Block { scales: &[0], codes: 0 }, decode };

static GRID: LazyLock<Vec<[u8; 8]>> = LazyLock::new(|| grid(&codebooks::IQ2_XXS, codebooks::IQ2_LETTERS));

fn decode(block: &[u8; 66], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let grid = &*GRID;
    for (run, out) in block[2..].as_chunks::<8>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let [indices @ .., s0, s1, s2, s3] = run;
        let word = u32::from_le_bytes([*s0, *s1, *s2, *s3]);
        let scale = d * (0.5 + (word >> 28) as f32) * 0.25;
        for (i, (out, &index)) in out.as_chunks_mut().0.iter_mut().zip(indices).enumerate() {
            signed(scale, &grid[usize::from(index)], even_signs(word >> (7 * i)), out);
        }
    }
}
