//! Products of tiles with many tokens by tables of partial sums, for levels that have no instruction for the dot product
//! of bytes. The kernel of tiles uses them for prompts; they are no kernel of their own.
//!
//! **Invariant:** the bits of `tile_product.rs`. A sum over a block is exact in 16 bits: 256 weights -1..=1 times activations of at
//! most 127 stay within 32,512, and so does each part of it. Damaged codes (3) have no entry. Where one is
//! found, tiles multiply all tokens.
//!
//! ```text
//! byte m of a block's row     the weights at places m, 64 + m, 128 + m, 192 + m: one of 81 combinations
//! table of byte m             entry e: the sum for combination e of each of T tokens      made once for all rows
//! row r                       sums[r] += table 0 [byte 0] + table 1 [byte 1] + .. + table 63 [byte 63]
//! ```
//! So one addition of sixteen lanes stands for 64 multiply-adds. The tables of eight bytes for 16 tokens, or of four
//! for 32, fit the first-level cache. The sums of all rows are read and written once for each set of tables.
//!
//! Tables depend on the tokens alone, so two matrices could share them; each product makes its own.
//! Source: the lookup tables of T-MAC (arXiv 2407.00088), with the roles exchanged: weights are the index, tokens the lanes.

use std::cell::RefCell;

use ternary_core::BLOCK;

use crate::activations::QuantizedRows;
use crate::memory::AlignedBuffer;
use crate::pool::ColumnBlock;
use crate::simd::{BlockColumn, Kernel, LANES, Simd, TABLE_LEN, TILE, TileBlock, TritBlock, expand};

/// Fewest rows for which making a table pays.
pub(crate) const TABLE_ROWS: usize = 256;

/// Fewest rows of a piece of work, so that making tables for each piece costs little.
const PIECE_ROWS: usize = 384;

/// Most tiles whose sums are kept at the same time.
const TABLE_TILES: usize = 48;

/// Room for tables and sums, made once for each thread.
#[derive(Default)]
pub(crate) struct TableScratch {
    tables: AlignedBuffer<i16>,
    /// The sums of the present block, `[tile][row][token]`.
    sums: AlignedBuffer<i16>,
    /// The results so far, `[tile][row][token]`.
    acc: AlignedBuffer<f32>,
    /// Tiles of TQ1_0 as fields, one block of each.
    fields: Vec<TileBlock>,
}

/// Calls `f` with this thread's own scratch.
pub(crate) fn with_tables<R>(f: impl FnOnce(&mut TableScratch) -> R) -> R {
    thread_local! {
        static SCRATCH: RefCell<TableScratch> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(f)
}

/// The blocks of some tiles, tile by tile.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tiles<'a> {
    /// Fields of two bits.
    Fields(&'a [TileBlock]),
    /// Five weights in a byte.
    Trits(&'a [TritBlock]),
}

/// The product of a matrix with many tokens by tables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableProduct<'a> {
    /// All tiles that have rows among the columns of the output.
    pub(crate) tiles: Tiles<'a>,
    /// Number of blocks in a tile.
    pub(crate) n_blocks: usize,
    /// Row of the first tile that is the first column of the output.
    pub(crate) first: usize,
    /// The one scale of the tensor, if it has one; the scales of its blocks are 1 then.
    pub(crate) tensor_scale: Option<f32>,
    /// The tokens of the product.
    pub(crate) acts: &'a QuantizedRows,
    /// Fewest rows for which tables are made: [`TABLE_ROWS`], less in tests.
    pub(crate) from_rows: usize,
}

impl TableProduct<'_> {
    /// Multiplies the tokens that fill tables, by the rule of the level, and returns their number; 0 where codes are
    /// damaged, and then the output is unspecified.
    #[inline(always)]
    pub(crate) fn run<S: Simd>(self, s: S, out: &mut ColumnBlock<'_, f32>, scratch: &mut TableScratch) -> usize {
        if out.columns().len() < self.from_rows {
            return 0;
        }
        match S::TABLE_TOKENS {
            16 => self.tokens::<S, 16>(s, out, scratch),
            32 => self.tokens::<S, 32>(s, out, scratch),
            _ => 0,
        }
    }

    /// As many tokens as fill tables of T; returns their number, or 0 for damaged codes.
    #[inline(always)]
    fn tokens<S: Simd, const T: usize>(
        self,
        s: S,
        out: &mut ColumnBlock<'_, f32>,
        scratch: &mut TableScratch,
    ) -> usize {
        let whole = out.n_rows() / T * T;
        let n_tiles = (self.first + out.columns().len()).div_ceil(TILE);
        let at_once = n_tiles.div_ceil(n_tiles.div_ceil(TABLE_TILES));
        for first_tile in (0..n_tiles).step_by(at_once) {
            for t in (0..whole).step_by(T) {
                let tiles = first_tile..n_tiles.min(first_tile + at_once);
                if !self.some_tiles::<S, T>(s, tiles, t, out, scratch) {
                    return 0;
                }
            }
        }
        whole
    }

    /// Some tiles times the tokens `t .. t + T`.
    #[inline(always)]
    fn some_tiles<S: Simd, const T: usize>(
        self,
        s: S,
        tiles: std::ops::Range<usize>,
        t: usize,
        out: &mut ColumnBlock<'_, f32>,
        scratch: &mut TableScratch,
    ) -> bool {
        let TableScratch { tables, sums, acc, fields } = scratch;
        let room = tiles.len() * TILE * T;
        tables.resize(TABLE_LEN);
        sums.resize(room);
        acc.resize(room);
        let tables = tables.as_mut_slice().as_chunks_mut::<T>().0;
        let sums = sums.as_mut_slice().as_chunks_mut::<T>().0.as_chunks_mut::<TILE>().0;
        let acc = acc.as_mut_slice().as_chunks_mut::<T>().0.as_chunks_mut::<TILE>().0;
        acc.as_flattened_mut().as_flattened_mut().fill(0.0);
        for b in 0..self.n_blocks {
            let column = self.column(s, tiles.start, tiles.len(), b, fields);
            let (mut tokens, mut scales) = ([&[0; BLOCK]; T], [0.0; T]);
            for j in 0..T {
                tokens[j] = &self.acts.codes(t + j)[b];
                let scale = self.acts.scales(t + j)[b];
                // 1 * (d * a) has the bits of d * a.
                scales[j] = self.tensor_scale.map_or(scale, |d| d * scale);
            }
            if !s.table_sums(&tokens, column, tables, sums) {
                return false;
            }
            for ((block, sums), acc) in column.blocks().zip(&*sums).zip(&mut *acc) {
                finish(s, block, sums, &scales, acc);
            }
        }
        self.write(s, tiles.start, acc, t, out);
        true
    }

    /// Block `b` of some tiles as fields.
    #[inline(always)]
    fn column<'f, S: Simd>(
        &'f self,
        s: S,
        first_tile: usize,
        n_tiles: usize,
        b: usize,
        fields: &'f mut Vec<TileBlock>,
    ) -> BlockColumn<'f> {
        let first = first_tile * self.n_blocks + b;
        match self.tiles {
            Tiles::Fields(blocks) => {
                let end = first + (n_tiles - 1) * self.n_blocks + 1;
                BlockColumn { blocks: &blocks[first..end], stride: self.n_blocks }
            }
            Tiles::Trits(blocks) => {
                fields.resize(TABLE_TILES, TileBlock::PADDING);
                let fields = &mut fields[..n_tiles];
                for (block, out) in blocks[first..].iter().step_by(self.n_blocks).zip(&mut *fields) {
                    expand(s, block, out);
                }
                BlockColumn { blocks: fields, stride: 1 }
            }
        }
    }

    /// Writes the rows of some tiles as columns of the tokens `t .. t + T`.
    #[inline(always)]
    fn write<S: Simd, const T: usize>(
        self,
        s: S,
        first_tile: usize,
        acc: &[[[f32; T]; TILE]],
        t: usize,
        out: &mut ColumnBlock<'_, f32>,
    ) {
        let mut tile = [[0.0; TILE]; T];
        for (i, acc) in acc.iter().enumerate() {
            s.by_token(acc, &mut tile);
            let row = (first_tile + i) * TILE;
            let (start, skipped) = (row.saturating_sub(self.first), self.first.saturating_sub(row));
            for (j, tile) in tile.iter().enumerate() {
                let tile = &tile[skipped..];
                let out = &mut out.row_mut(t + j)[start..];
                let len = tile.len().min(out.len());
                match out.first_chunk_mut() {
                    // A copy of constant length compiles to moves instead of a call of memcpy.
                    Some(out) if skipped == 0 => *out = *tile.first_chunk::<TILE>().expect("a whole tile"),
                    _ => out[..len].copy_from_slice(&tile[..len]),
                }
            }
        }
    }
}

/// `acc[r][t] = fma(scale[r] * scales[t], sums[r][t] as f32, acc[r][t])`
#[inline(always)]
fn finish<S: Simd, const T: usize>(
    s: S,
    block: &TileBlock,
    sums: &[[i16; T]; TILE],
    scales: &[f32; T],
    acc: &mut [[f32; T]; TILE],
) {
    for ((sums, acc), w_scale) in sums.iter().zip(acc).zip(&block.scales) {
        let w_scale = s.splat_f16(u16::from_le_bytes(*w_scale));
        let parts = sums.as_chunks::<LANES>().0.iter().zip(scales.as_chunks::<LANES>().0);
        for ((sums, scales), acc) in parts.zip(acc.as_chunks_mut::<LANES>().0) {
            let mut ints = [0; LANES];
            for (int, sum) in ints.iter_mut().zip(sums) {
                *int = i32::from(*sum);
            }
            let scales = s.mul(w_scale, s.load(scales));
            s.store(s.fma(scales, s.load_i32(&ints), s.load(acc)), acc);
        }
    }
}

/// [`TableSimd::TABLE_TOKENS`](crate::simd::TableSimd::TABLE_TOKENS) of a level, which decides how work is cut into pieces.
pub(crate) struct TableTokens;

impl Kernel for TableTokens {
    type Output = usize;
    const INTEGER: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, _s: S) -> usize {
        S::TABLE_TOKENS
    }
}

/// Rows per piece where tables are made for each piece: up to four pieces for each thread, if they do not get too small.
/// `None` where pieces of tiles would be as good.
pub(crate) fn rows_per_piece(list_rows: usize, threads: usize) -> Option<usize> {
    let pieces = (list_rows / threads.saturating_mul(PIECE_ROWS)).min(4);
    (pieces > 0).then(|| list_rows.div_ceil(threads * pieces))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ActivationBuffer;
    use crate::arch::Isa;
    use crate::simd::{CHUNKS, COMBINATIONS, portable_block};
    use ternary_core::ActMode;

    fn levels() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_supported())
    }

    /// Three tiles of two blocks: each row has each combination somewhere.
    fn all_combinations() -> Vec<TileBlock> {
        let mut blocks = vec![TileBlock::PADDING; 6];
        for (i, block) in blocks.iter_mut().enumerate() {
            for (k, byte) in block.codes.as_flattened_mut().iter_mut().enumerate() {
                let digit = |place: usize| ((37 * i + 31 * k + k / 128) % COMBINATIONS / place % 3) as u8;
                *byte = digit(1) | digit(3) << 2 | digit(9) << 4 | digit(27) << 6;
            }
        }
        blocks
    }

    /// Activations in -127..=127, the bounds often.
    fn activations<const T: usize>() -> [[i8; BLOCK]; T] {
        std::array::from_fn(|t| {
            std::array::from_fn(|i| match (i * 89 + t * 53 + i * t / 7) % 511 {
                k @ 0..=254 => (k as i32 - 127) as i8,
                k if k % 2 == 0 => 127,
                _ => -127,
            })
        })
    }

    /// The sums of block 1 of some tiles of two blocks, and whether the level found all codes valid.
    struct Sums<'a, const T: usize>(&'a [TileBlock], &'a [[i8; BLOCK]; T]);

    impl<const T: usize> Kernel for Sums<'_, T> {
        type Output = (Vec<[[i16; T]; TILE]>, bool);
        const INTEGER: bool = true;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let column = BlockColumn { blocks: &self.0[1..], stride: 2 };
            let mut sums = vec![[[-1; T]; TILE]; self.0.len() / 2];
            let valid = s.table_sums(&self.1.each_ref(), column, &mut vec![[77; T]; TABLE_LEN / T], &mut sums);
            (sums, valid)
        }
    }

    fn sums_are_those_of_the_definition<const T: usize>() {
        let (blocks, acts) = (all_combinations(), activations::<T>());
        for isa in levels() {
            let (sums, valid) = isa.level().unwrap().run(Sums(&blocks, &acts));
            assert!(valid, "{isa}");
            for (i, sums) in sums.iter().enumerate() {
                for (r, sums) in sums.iter().enumerate() {
                    for (t, sum) in sums.iter().enumerate() {
                        let weight = |p: usize| {
                            let byte = blocks[2 * i + 1].codes[p % 64 / 4][4 * r + p % 4];
                            i32::from(byte >> (2 * (p / 64)) & 3) - 1
                        };
                        let expected: i32 = (0..BLOCK).map(|p| weight(p) * i32::from(acts[t][p])).sum();
                        assert_eq!(i32::from(*sum), expected, "{isa}, tile {i}, row {r}, token {t} of {T}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_combination_is_summed_as_defined_on_every_level() {
        sums_are_those_of_the_definition::<16>();
        sums_are_those_of_the_definition::<32>();
    }

    /// All weights 1 and -1 with all activations 127 and -127 of the same or the other sign: the bound of 16 bits.
    #[test]
    fn the_largest_sums_fit_on_every_level() {
        let signs = |i: usize| [127i8, -127][i % 2];
        let acts: [[i8; BLOCK]; 32] =
            std::array::from_fn(|t| std::array::from_fn(|i| if t < 16 { signs(t) } else { signs(i) }));
        let acts16: [[i8; BLOCK]; 16] = std::array::from_fn(|t| acts[2 * t + usize::from(t > 7)]);
        for (byte, weight) in [(0xaa, 1), (0x00, -1)] {
            let blocks = [TileBlock { codes: [[byte; 4 * TILE]; CHUNKS], ..TileBlock::PADDING }; 4];
            for isa in levels() {
                let level = isa.level().unwrap();
                let total = |acts: &[i8; BLOCK]| acts.iter().map(|&a| weight * i16::from(a)).sum::<i16>();
                for sums in level.run(Sums(&blocks, &acts)).0.as_flattened() {
                    assert_eq!(*sums, acts.each_ref().map(total), "{isa}");
                }
                for sums in level.run(Sums(&blocks, &acts16)).0.as_flattened() {
                    assert_eq!(*sums, acts16.each_ref().map(total), "{isa}");
                }
            }
        }
    }

    #[test]
    fn each_damaged_code_is_noticed_on_every_level() {
        let (whole, acts16, acts32) = (all_combinations(), activations::<16>(), activations::<32>());
        for isa in levels() {
            let level = isa.level().unwrap();
            for place in (0..CHUNKS * 4 * TILE).step_by(if isa == Isa::Scalar { 97 } else { 13 }) {
                let mut blocks = whole.clone();
                // 1, 4, 16 or 64 times 3, or all codes of the byte.
                blocks[3].codes.as_flattened_mut()[place] |= [0x03, 0x0c, 0x30, 0xc0, 0xff][place % 5];
                assert!(!level.run(Sums(&blocks, &acts16)).1, "{isa}, 16 tokens, place {place}");
                assert!(!level.run(Sums(&blocks, &acts32)).1, "{isa}, 32 tokens, place {place}");
            }
        }
    }

    /// The results of a product by tables of T tokens, and the number of tokens that have results.
    struct Forced<'a, const T: usize>(TableProduct<'a>, &'a mut [f32], usize);

    impl<const T: usize> Kernel for Forced<'_, T> {
        type Output = usize;
        const INTEGER: bool = true;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> usize {
            let mut out = ColumnBlock::whole(self.1, 100..100 + self.2);
            self.0.tokens::<S, T>(s, &mut out, &mut TableScratch::default())
        }
    }

    /// Products by tables have the bits of tiles on every level, even on levels that never make tables.
    #[test]
    fn products_on_every_level_are_the_same() {
        let (n, first) = (35, 3);
        let mut buffer = ActivationBuffer::new();
        let x: Vec<f32> = (0..n * 2 * BLOCK).map(|i| ((i * 7919 + i / 13) % 4001) as f32 / 1000.0 - 2.0).collect();
        buffer.set_in(ActMode::A8Block, &x, n, 2 * BLOCK);
        let acts = buffer.quantized(ActMode::A8Block).unwrap();
        let mut blocks = all_combinations();
        for (i, block) in blocks.iter_mut().enumerate() {
            block.scales = std::array::from_fn(|r| half::f16::from_f32(0.01 + (i * r) as f32 / 64.0).to_le_bytes());
        }
        let product = TableProduct {
            tiles: Tiles::Fields(&blocks),
            n_blocks: 2,
            first,
            tensor_scale: Some(0.37),
            acts,
            from_rows: 1,
        };
        let rows = 3 * TILE - first - 5;
        let mut expected = vec![f32::NAN; n * rows];
        for r in 0..rows {
            for t in 0..n {
                let (tile, row) = ((first + r) / TILE, (first + r) % TILE);
                let mut acc = [0.0; TILE];
                for b in 0..2 {
                    let token = crate::simd::TokenBlock {
                        codes: &acts.codes(t)[b],
                        sum: acts.sums(t)[b],
                        scale: 0.37 * acts.scales(t)[b],
                    };
                    let acc = std::array::from_mut(&mut acc);
                    portable_block(&blocks[2 * tile + b], &[token], acc);
                }
                expected[t * rows + r] = acc[row];
            }
        }
        for isa in levels() {
            let level = isa.level().unwrap();
            let (mut by_16, mut by_32) = (vec![f32::NAN; n * rows], vec![f32::NAN; n * rows]);
            assert_eq!(level.run(Forced::<16>(product, &mut by_16, rows)), 32);
            assert_eq!(level.run(Forced::<32>(product, &mut by_32, rows)), 32);
            assert_eq!(by_16[..32 * rows], expected[..32 * rows], "{isa}");
            assert_eq!(by_32[..32 * rows], expected[..32 * rows], "{isa}");
            assert!(
                by_16[32 * rows..].iter().chain(&by_32[32 * rows..]).all(|y| y.is_nan()),
                "the last three tokens fill no table"
            );
        }
    }

    #[test]
    fn pieces_have_rows_enough_for_tables() {
        let pieces = [(383, 1), (768, 2), (1536, 2), (2048, 2), (5120, 2), (5120, 64)]
            .map(|(list_rows, threads)| rows_per_piece(list_rows, threads));
        assert_eq!(pieces, [None, Some(384), Some(384), Some(512), Some(640), None]);
    }

    /// Levels without products in fours make tables, and a product makes as many as its tokens fill.
    #[test]
    fn levels_without_products_in_fours_take_tables() {
        let mut buffer = ActivationBuffer::new();
        buffer.set_in(ActMode::A8Block, &[1.0; 50 * BLOCK], 50, BLOCK);
        let acts = buffer.quantized(ActMode::A8Block).unwrap();
        let blocks = vec![TileBlock::PADDING; TABLE_ROWS / TILE];
        let product = TableProduct {
            tiles: Tiles::Fields(&blocks),
            n_blocks: 1,
            first: 0,
            tensor_scale: None,
            acts,
            from_rows: TABLE_ROWS,
        };
        struct Obey<'a>(TableProduct<'a>, usize, usize);
        impl Kernel for Obey<'_> {
            type Output = usize;
            const INTEGER: bool = true;

            #[inline(always)]
            fn run<S: Simd>(self, s: S) -> usize {
                let mut out = vec![0.0; self.1 * self.2];
                self.0.run(s, &mut ColumnBlock::whole(&mut out, 0..self.2), &mut TableScratch::default())
            }
        }
        for isa in levels() {
            let level = isa.level().unwrap();
            let tokens = match isa {
                Isa::Avx2 => 16,
                Isa::Avx512 => 32,
                _ => 0,
            };
            assert_eq!(level.run(TableTokens), tokens, "{isa}");
            for n in [1_usize, 15, 16, 31, 32, 47, 48, 50] {
                let whole = n.checked_div(tokens).map_or(0, |tables| tables * tokens);
                assert_eq!(level.run(Obey(product, n, TABLE_ROWS)), whole, "{isa}, {n} tokens");
            }
            assert_eq!(level.run(Obey(product, 50, TABLE_ROWS - 1)), 0, "{isa}: too few rows");
        }
    }
}
