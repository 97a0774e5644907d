//! BITNET_T158: four neighbouring 2-bit codes per byte.

use ternary_core::BLOCK;

use super::ternary::TernaryFormat;

/// BITNET_T158: four neighbouring 2-bit codes per byte.
#[derive(Clone, Copy)]
pub(crate) struct T158;

impl TernaryFormat for T158 {
    type Block = [u8; 66];

    #[inline(always)]
    fn blocks(row: &[u8]) -> &[[u8; 66]] {
        row.as_chunks().0
    }

    #[inline(always)]
    fn scale_bits(block: &[u8; 66]) -> u16 {
        u16::from_le_bytes([block[64], block[65]])
    }

    #[inline(always)]
    fn codes(block: &[u8; 66]) -> [u8; BLOCK] {
        let mut codes = [0; BLOCK];
        for (out, &byte) in codes.as_chunks_mut::<4>().0.iter_mut().zip(block) {
            // Field k moves from bit 2 k to bit 8 k.
            let byte = u32::from(byte);
            *out = ((byte | byte << 6 | byte << 12 | byte << 18) & 0x0303_0303).to_le_bytes();
        }
        codes
    }
}
