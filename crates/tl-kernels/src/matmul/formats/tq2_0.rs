//! TQ2_0: two halves of 32 bytes, four 2-bit fields per byte.

use ternary_core::BLOCK;

use super::ternary::TernaryFormat;
use crate::simd::Simd;

/// TQ2_0: two halves of 32 bytes, four 2-bit fields per byte, field n of byte m = weight 32 n + m of the half.
#[derive(Clone, Copy)]
pub(crate) struct Tq2;

impl TernaryFormat for Tq2 {
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
        for (packed, half) in block.as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<128>().0) {
            for (n, out) in half.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                for (out, byte) in out.iter_mut().zip(packed) {
                    *out = (byte >> (2 * n)) & 3;
                }
            }
        }
        codes
    }

    #[inline(always)]
    fn tq2_bytes(block: &[u8; 66]) -> [u8; BLOCK / 4] {
        *block.first_chunk().expect("a block is longer than its codes")
    }

    #[inline(always)]
    fn load<S: Simd>(s: S, block: &[u8; 66]) -> S::Codes {
        s.unpack_tq2(block.first_chunk().expect("a block is longer than its codes"))
    }
}
