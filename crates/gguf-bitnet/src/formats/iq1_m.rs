//! IQ1_M: 1.75 bits per weight in super-blocks of 256: octets of trits from the grid of IQ1_S.
//!
//! ```text
//! qs[32]: low 8 bits of the indices | qh[16]: per octet 3 high bits and the sign of the shift | scales[4]: u16
//! value = (d (2 s + 1)) (grid +- 1/8), s 3 bits per 16; d is an F16, 4 bits of it on top of each of the scales
//! ```

use super::blocks::Blocks;
use super::f16::f16_to_f32;
use super::format::Invalid;
use super::iq1_s::{GRID, shifted};

/// The storage format IQ1_M.
pub(super) const IQ1_M: Blocks<56, 256> =
    Blocks { id: 29, name: "IQ1_M", invalid: Invalid::Scale(|block| f16_to_f32(scale(block))), decode };

/// The F16 whose bits lie on top of the four words of scales.
fn scale(block: &[u8]) -> u16 {
    (0..4).fold(0, |d, i| d | u16::from(block[49 + 2 * i] >> 4) << (4 * i))
}

fn decode(block: &[u8; 56], out: &mut [f32; 256]) {
    let d = f16_to_f32(scale(block));
    let (qs, rest) = block.split_at(32);
    let (qh, scales) = rest.split_at(16);
    let grid = &*GRID;
    for (i, (out, &low)) in out.as_chunks_mut().0.iter_mut().zip(qs).enumerate() {
        let high = qh[i / 2] >> (4 * (i % 2));
        let index = usize::from(low) | usize::from(high & 7) << 8;
        let word = u16::from_le_bytes(scales.as_chunks().0[i / 8]);
        let scale = d * f32::from(2 * (word >> (3 * (i / 2 % 4)) & 7) + 1);
        shifted(scale, &grid[index], high & 8 != 0, out);
    }
}
