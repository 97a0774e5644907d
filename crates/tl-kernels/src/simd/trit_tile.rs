//! Tiles of 32 rows that keep five weights in a byte: TQ1_0 transposed, as large as in the file.
//!
//! **Invariant:** the bits of `ternary_core::oracle`, as for tiles of 2-bit codes (simd/tile.rs). Every byte decodes to codes
//! 0..=2; rows behind the last one of a matrix have code 1 (the weight 0) and scale 0.
//!
//! ```text
//! TritBlock, 1728 bytes: 32 rows x 256 columns          one line per column k = 0..13, two cache lines each
//!   codes   | row 0: bytes 4k..4k+4 | row 1: bytes 4k..4k+4 | .. | row 31 |      of the 52 bytes of a TQ1_0 block
//!   scales  | f16 of row 0 | .. | row 31 |
//! ```
//! Trit n of the four bytes of a column meets four neighbouring activations; [`QUADS`] says which. A byte q is a
//! fraction of 256: with `f_0 = q` and `f_(n+1) = 3 f_n mod 256`, code n is `3 f_n >> 8`, so
//!
//! ```text
//! 256 code_n = 3 f_n - f_(n+1)        sum of code_n a_n = (3 sum of f_n a_n - sum of f_(n+1) a_n) / 256, exactly
//! ```
//! On levels that multiply bytes four at a time, few tokens need no codes: two products per trit and token replace two
//! comparisons and two selections. For many tokens a tile is expanded to 2-bit fields once, which all of them share.

use super::{TILE, TileBlock, TileSimd, TokenBlock};

/// Rows whose bytes are handled together, one byte each.
pub(crate) const GROUP_ROWS: usize = 64;

/// Columns of a block, each with four bytes of every row.
pub(crate) const COLUMNS: usize = 13;

/// Columns whose bytes hold weights 32 n + m.
const LONG: usize = 8;

/// Columns whose bytes hold weights 160 + 16 n + m.
const SHORT: usize = 4;

/// Place of the four activations that meet trit n of column k, in fours of the field order (activations.rs). The last
/// column has four trits.
#[cfg(any(test, target_arch = "x86_64"))]
pub(crate) const QUADS: [[usize; 5]; COLUMNS] = quads();

/// The weights of 32 rows and 256 columns.
#[derive(Debug, Clone, Copy, bytemuck::AnyBitPattern, bytemuck::NoUninit)]
#[repr(C, align(64))]
pub struct TritBlock {
    /// Column k: bytes `4 k .. 4 k + 4` of the TQ1_0 block of each row.
    pub(crate) codes: [[u8; 4 * TILE]; COLUMNS],
    /// The f16 scale of each row, little-endian.
    pub(crate) scales: [[u8; 2]; TILE],
}

impl TritBlock {
    /// A block in which all rows are padding: the byte 128 is one half, which is 0.11111 in base 3.
    pub(crate) const PADDING: TritBlock = TritBlock { codes: [[0x80; 4 * TILE]; COLUMNS], scales: [[0; 2]; TILE] };
}

#[cfg(any(test, target_arch = "x86_64"))]
const fn quads() -> [[usize; 5]; COLUMNS] {
    let mut quads = [[0; 5]; COLUMNS];
    let mut k = 0;
    while k < COLUMNS {
        let mut n = 0;
        while n < trits(k) {
            let natural = match k {
                0..LONG => 32 * n + 4 * k,
                LONG..12 => 160 + 16 * n + 4 * (k - LONG),
                _ => 240 + 4 * n,
            };
            let (half, field, byte) = (natural / 128, natural % 128 / 32, natural % 32);
            quads[k][n] = (64 * field + 32 * half + byte) / 4;
            n += 1;
        }
        k += 1;
    }
    quads
}

/// Trits in a byte of column `k`.
#[cfg(any(test, target_arch = "x86_64"))]
pub(crate) const fn trits(k: usize) -> usize {
    if k + 1 < COLUMNS { 5 } else { 4 }
}

/// One byte of each of 64 rows.
pub trait RowBytes: Copy {
    /// A byte for each row.
    type Rows: Copy;

    /// Reads the bytes of 64 rows.
    fn load_rows(self, bytes: &[u8; GROUP_ROWS]) -> Self::Rows;
    /// Writes the bytes of 64 rows.
    fn store_rows(self, a: Self::Rows, bytes: &mut [u8; GROUP_ROWS]);
    /// 0 in every row.
    fn zero_rows(self) -> Self::Rows;
}

/// The operations on tiles of trits.
pub trait TritTileSimd: TileSimd + RowBytes {
    /// `3 a`, modulo 256.
    fn triple_rows(self, a: Self::Rows) -> Self::Rows;
    /// `sums + unit * (3 fractions >> 8)`
    fn add_trits(self, sums: Self::Rows, fractions: Self::Rows, unit: u8) -> Self::Rows;

    /// Most tokens of a product that is cheaper by [`TritTileSimd::trit_block`] than by expanding a tile once.
    const TRIT_TOKENS: usize = 1;

    /// [`TileSimd::tile_block`]; `T` is at most 4.
    #[inline(always)]
    fn trit_block<const T: usize>(self, block: &TritBlock, tokens: &[TokenBlock<'_>; T], acc: &mut [[f32; TILE]; T]) {
        let mut fields = TileBlock::PADDING;
        expand(self, block, &mut fields);
        self.tile_block(&fields, tokens, acc);
    }
}

/// Writes the weights of `block` as 2-bit codes.
#[inline(always)]
pub(crate) fn expand<S: TritTileSimd>(s: S, block: &TritBlock, out: &mut TileBlock) {
    out.scales = block.scales;
    // Weights 128 h + 32 n + 4 k are field n of chunk 8 h + k: the first chunks take four trits of a long column each.
    let (first, last) = out.codes.split_at_mut(LONG);
    for k in 0..LONG {
        for h in 0..2 {
            let mut fractions = s.load_rows(half(&block.codes[k], h));
            let mut codes = s.zero_rows();
            for unit in [1, 4, 16, 64] {
                codes = s.add_trits(codes, fractions, unit);
                fractions = s.triple_rows(fractions);
            }
            s.store_rows(codes, half_mut(&mut first[k], h));
            s.store_rows(s.add_trits(s.zero_rows(), fractions, 1), half_mut(&mut last[k], h));
        }
    }
    // Then field 0 of the other chunks is a fifth trit; fields 1 to 3 are rows of 16 weights, split over two chunks.
    for k in 0..SHORT {
        for h in 0..2 {
            let mut fractions = s.load_rows(half(&block.codes[LONG + k], h));
            let mut codes = [s.load_rows(half(&last[k], h)), s.load_rows(half(&last[SHORT + k], h))];
            for (n, unit) in [4, 4, 16, 16, 64].into_iter().enumerate() {
                codes[n % 2] = s.add_trits(codes[n % 2], fractions, unit);
                fractions = s.triple_rows(fractions);
            }
            s.store_rows(codes[0], half_mut(&mut last[k], h));
            s.store_rows(codes[1], half_mut(&mut last[SHORT + k], h));
        }
    }
    for h in 0..2 {
        let mut fractions = s.load_rows(half(&block.codes[COLUMNS - 1], h));
        for chunk in &mut last[SHORT..] {
            let codes = s.load_rows(half(chunk, h));
            s.store_rows(s.add_trits(codes, fractions, 64), half_mut(chunk, h));
            fractions = s.triple_rows(fractions);
        }
    }
}

#[inline(always)]
fn half(column: &[u8; 4 * TILE], h: usize) -> &[u8; GROUP_ROWS] {
    &column.as_chunks().0[h]
}

#[inline(always)]
fn half_mut(column: &mut [u8; 4 * TILE], h: usize) -> &mut [u8; GROUP_ROWS] {
    &mut column.as_chunks_mut().0[h]
}

/// Puts the packed bytes of a block into row `r`.
#[inline(always)]
pub(crate) fn fill_row(block: &mut TritBlock, r: usize, packed: &[u8; 52], scale: [u8; 2]) {
    for (column, quad) in block.codes.iter_mut().zip(packed.as_chunks::<4>().0) {
        column.as_chunks_mut::<4>().0[r] = *quad;
    }
    block.scales[r] = scale;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Isa;
    use crate::simd::{Kernel, Simd, field_order, tq1_codes};
    use ternary_core::BLOCK;

    /// A block with every byte value, and the codes of its rows in natural order.
    fn block() -> (TritBlock, [[u8; BLOCK]; TILE]) {
        let mut block = TritBlock::PADDING;
        let codes = std::array::from_fn(|r| {
            let packed: [u8; 52] = std::array::from_fn(|i| (i * 5 + r * 37 + i * r / 3) as u8);
            fill_row(&mut block, r, &packed, half::f16::from_f32(r as f32).to_le_bytes());
            tq1_codes(&packed)
        });
        (block, codes)
    }

    #[test]
    fn every_weight_meets_its_activation() {
        let order = field_order(&std::array::from_fn::<usize, BLOCK, _>(|i| i));
        let mut natural: Vec<usize> = Vec::new();
        for (k, quads) in QUADS.iter().enumerate() {
            for &quad in &quads[..trits(k)] {
                natural.extend(&order[4 * quad..4 * quad + 4]);
            }
        }
        natural.sort_unstable();
        assert!(natural.into_iter().eq(0..BLOCK));
    }

    struct Expand(TritBlock);

    impl Kernel for Expand {
        type Output = TileBlock;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> TileBlock {
            let mut out = TileBlock::PADDING;
            expand(s, &self.0, &mut out);
            out
        }
    }

    #[test]
    fn expanded_codes_are_those_of_the_packing_on_every_level() {
        let (block, codes) = block();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
            let out = isa.level().unwrap().run(Expand(block));
            assert_eq!(out.scales, block.scales);
            for (r, codes) in codes.iter().enumerate() {
                for (place, code) in field_order(codes).into_iter().enumerate() {
                    let byte = out.codes[place % 64 / 4][4 * r + place % 4];
                    assert_eq!(byte >> (2 * (place / 64)) & 3, code, "{isa}, row {r}, place {place}");
                }
            }
        }
    }

    #[test]
    fn padding_is_the_weight_0() {
        let out = Isa::Scalar.level().unwrap().run(Expand(TritBlock::PADDING));
        assert_eq!(out.codes, TileBlock::PADDING.codes);
    }

    /// Every byte value in every column: the sum by products of fractions is the sum of codes.
    #[test]
    fn every_byte_is_multiplied_as_it_decodes_on_every_level() {
        struct One<'a>(&'a TritBlock, TokenBlock<'a>);
        impl Kernel for One<'_> {
            type Output = [f32; TILE];
            const INTEGER: bool = true;

            #[inline(always)]
            fn run<S: Simd>(self, s: S) -> [f32; TILE] {
                // All numbers of tokens give the same.
                let mut acc = [[0.25; TILE]; 4];
                s.trit_block(self.0, &[self.1; 4], &mut acc);
                let mut three = [[0.25; TILE]; 3];
                s.trit_block(self.0, &[self.1; 3], &mut three);
                let mut two = [[0.25; TILE]; 2];
                s.trit_block(self.0, &[self.1; 2], &mut two);
                let mut one = [[0.25; TILE]];
                s.trit_block(self.0, &[self.1], &mut one);
                assert!(acc.iter().chain(&three).chain(&two).all(|acc| *acc == one[0]));
                one[0]
            }
        }
        let mut block = TritBlock { scales: [half::f16::ONE.to_le_bytes(); TILE], ..TritBlock::PADDING };
        for pattern in 0..4 {
            let acts: [i8; BLOCK] = std::array::from_fn(|i| match pattern {
                0 => 127,
                1 => -127,
                2 => [127, -127][i % 2],
                _ => (i * 89 % 255) as i32 as u8 as i8,
            });
            let acts = acts.map(|a| a.max(-127));
            let ordered = field_order(&acts);
            for base in (0..=255u8).step_by(TILE) {
                let codes: Vec<[u8; BLOCK]> = (0..TILE)
                    .map(|r| {
                        fill_row(&mut block, r, &[base + r as u8; 52], half::f16::ONE.to_le_bytes());
                        tq1_codes(&[base + r as u8; 52])
                    })
                    .collect();
                let token = TokenBlock { codes: &ordered, sum: 7, scale: 1.0 };
                let expected: Vec<f32> = codes
                    .iter()
                    .map(|codes| codes.iter().zip(&acts).map(|(&c, &a)| i32::from(c) * i32::from(a)).sum::<i32>())
                    .map(|sum| (sum - 7) as f32 + 0.25)
                    .collect();
                for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
                    assert_eq!(isa.level().unwrap().run(One(&block, token)).to_vec(), expected, "{isa}");
                }
            }
        }
    }
}
