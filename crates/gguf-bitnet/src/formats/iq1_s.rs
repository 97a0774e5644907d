//! IQ1_S: 1.5625 bits per weight in super-blocks of 256: octets of trits from a grid of 2048.
//!
//! ```text
//! d: f16 | qs[32] | qh[8]: u16      value = (d (2 s + 1)) (grid +- 1/8), s 3 bits per 32
//! ```
//! The grid has the 2048 of the 6561 ternary octets that the format can store.

use std::sync::LazyLock;

use super::blocks::{Blocks, f16_at, grid};
use super::codebooks;
use super::format::Invalid;

/// The storage format IQ1_S.
pub(super) const IQ1_S: Blocks<50, 256> =
    Blocks { id: 19, name: "IQ1_S", invalid: Invalid::Block { scales: &[0], codes: 0 }, decode };

fn decode(block: &[u8; 50], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let (qs, qh) = block[2..].split_at(32);
    let qh = qh.as_chunks::<2>().0;
    let grid = &*GRID;
    for (i, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
        let high = u16::from_le_bytes(qh[i / 4]);
        let scale = d * f32::from(2 * (high >> 12 & 7) + 1);
        let index = usize::from(qs[i]) | usize::from(high >> (3 * (i % 4)) & 7) << 8;
        shifted(scale, &grid[index], high >> 15 == 1, out);
    }
}

/// The octets by index; IQ1_M has the same.
pub(super) static GRID: LazyLock<Vec<[i8; 8]>> = LazyLock::new(|| grid(&codebooks::IQ1, [-1, 0, 1]));

/// Decodes an octet of trits that are shifted by an eighth, down or up.
pub(super) fn shifted(scale: f32, trits: &[i8; 8], down: bool, out: &mut [f32; 8]) {
    let delta = if down { -0.125 } else { 0.125 };
    for (out, &trit) in out.iter_mut().zip(trits) {
        *out = scale * (f32::from(trit) + delta);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_has_every_index_of_eleven_bits() {
        assert_eq!(GRID.len(), 2048);
        assert_eq!(GRID[0], [-1; 8]);
        assert_eq!(GRID[1], [1, -1, -1, -1, -1, -1, -1, -1]);
        assert_eq!(GRID[2047], [1; 8]);
    }
}
