//! TQ1_0: five trits per byte.

use ternary_core::BLOCK;

use super::ternary::TernaryFormat;
use crate::simd::{Simd, tq1_codes};

/// TQ1_0: five trits per byte, as a fraction of 243 scaled to 256.
#[derive(Clone, Copy)]
pub(crate) struct Tq1;

impl TernaryFormat for Tq1 {
    type Block = [u8; 54];

    #[inline(always)]
    fn blocks(row: &[u8]) -> &[[u8; 54]] {
        row.as_chunks().0
    }

    #[inline(always)]
    fn scale_bits(block: &[u8; 54]) -> u16 {
        u16::from_le_bytes([block[52], block[53]])
    }

    #[inline(always)]
    fn codes(block: &[u8; 54]) -> [u8; BLOCK] {
        tq1_codes(block.first_chunk().expect("a block is longer than its codes"))
    }

    #[inline(always)]
    fn load<S: Simd>(s: S, block: &[u8; 54]) -> S::Codes {
        s.unpack_tq1(block.first_chunk().expect("a block is longer than its codes"))
    }
}
