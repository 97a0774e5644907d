//! The trait of packings of ternary weights.

use ternary_core::{BLOCK, Scales, f16};

use crate::simd::Simd;

/// A packing at compile time.
pub(crate) trait TernaryFormat: Copy + Sync {
    /// The bytes of a block.
    type Block: Copy;
    /// The blocks of a row.
    fn blocks(row: &[u8]) -> &[Self::Block];
    /// The bits of the block's f16 scale.
    fn scale_bits(block: &Self::Block) -> u16;
    /// Codes 0..=2 of the block in natural order, one per byte. (A damaged code may be 3.)
    fn codes(block: &Self::Block) -> [u8; BLOCK];
    /// The codes as the 64 bytes of a TQ2_0 block.
    #[inline(always)]
    fn tq2_bytes(block: &Self::Block) -> [u8; BLOCK / 4] {
        let codes = Self::codes(block);
        let mut bytes = [0; BLOCK / 4];
        for (half, bytes) in codes.as_chunks::<128>().0.iter().zip(bytes.as_chunks_mut::<32>().0) {
            for (m, byte) in bytes.iter_mut().enumerate() {
                *byte = half[m] | half[32 + m] << 2 | half[64 + m] << 4 | half[96 + m] << 6;
            }
        }
        bytes
    }
    /// The codes in registers.
    #[inline(always)]
    fn load<S: Simd>(s: S, block: &Self::Block) -> S::Codes {
        s.load_codes(&Self::codes(block))
    }
}

/// The f16 scale of a block in a tile: 1 where the tensor has one scale.
#[inline(always)]
pub(crate) fn block_scale<P: TernaryFormat>(scales: Scales, block: &P::Block) -> [u8; 2] {
    match scales {
        Scales::PerBlock => P::scale_bits(block).to_le_bytes(),
        Scales::PerTensor(_) => f16::ONE.to_le_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{T158, Tq1, Tq2};
    use super::*;
    use ternary_core::Packing;

    fn codes_of(packing: Packing, block: &[u8]) -> [u8; BLOCK] {
        match packing {
            Packing::Tq2_0 => Tq2::codes(block.try_into().unwrap()),
            Packing::Tq1_0 => Tq1::codes(block.try_into().unwrap()),
            Packing::BitnetT158 => T158::codes(block.try_into().unwrap()),
        }
    }

    /// Every packing decodes as `ternary_core` does, for codes in all patterns.
    #[test]
    fn codes_are_those_of_the_packings() {
        let mut trits = [0i8; BLOCK];
        for seed in 0..50usize {
            for (i, t) in trits.iter_mut().enumerate() {
                *t = ((i * (seed + 7) + i / 3 + seed) % 3) as i8 - 1;
            }
            let expected: [u8; BLOCK] = trits.map(|t| (t + 1) as u8);
            for packing in Packing::ALL {
                let mut block = vec![0; packing.block_bytes()];
                packing.encode(&trits, f16::from_f32(0.5), &mut block);
                assert_eq!(codes_of(packing, &block), expected, "{}", packing.name());
            }
        }
    }

    /// All 256 values of a TQ1_0 byte give codes 0..=2, the ones `ternary_core` reads.
    #[test]
    fn every_tq1_byte_decodes_like_the_reference() {
        for byte in 0..=255u8 {
            let mut block = [byte; 54];
            block[52..].copy_from_slice(&[0, 0x3c]);
            let mut trits = [0; BLOCK];
            Packing::Tq1_0.decode(&block, &mut trits).unwrap();
            assert_eq!(Tq1::codes(&block), trits.map(|t| (t + 1) as u8));
        }
    }
}
