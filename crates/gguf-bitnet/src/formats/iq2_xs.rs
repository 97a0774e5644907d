//! IQ2_XS: 2.3125 bits per weight in super-blocks of 256: octets from a grid of 512, and their signs.
//!
//! ```text
//! d: f16 | qs[32]: u16: index 9 bits, signs 7 bits | scales[8]: 4 bits per 16 weights
//! value = (d (s + 1/2)) / 4 * grid * sign
//! ```

use std::sync::LazyLock;

use super::blocks::{Blocks, even_signs, f16_at, grid, nibble, signed};
use super::codebooks;
use super::format::Invalid;

/// The storage format IQ2_XS.
pub(super) const IQ2_XS: Blocks<74, 256> =
    Blocks { id: 17, name: "IQ2_XS", invalid: Invalid::Block { scales: &[0], codes: 0 }, decode };

static GRID: LazyLock<Vec<[u8; 8]>> = LazyLock::new(|| grid(&codebooks::IQ2_XS, codebooks::IQ2_LETTERS));

fn decode(block: &[u8; 74], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let (qs, scales) = block[2..].split_at(64);
    let grid = &*GRID;
    for (i, (out, &q)) in out.as_chunks_mut().0.iter_mut().zip(qs.as_chunks().0).enumerate() {
        let q = u16::from_le_bytes(q);
        let scale = d * (0.5 + f32::from(nibble(scales, i / 2))) * 0.25;
        signed(scale, &grid[usize::from(q & 511)], even_signs(u32::from(q >> 9)), out);
    }
}
