//! The ternary matrix product with INT8 activations over weights as files store them.
//!
//! **Invariant:** `acc = fma(d_b * a_b, int_b as f32, acc)` over ascending blocks, `int_b` exact: the bits
//! of `ternary_core::oracle`. With codes c = t + 1, `int_b = sum c q - sum q`, and the second sum is the
//! same for all rows. A damaged code 3 gives a wrong number, never an overflow: |sum c q| <= 256 * 3 * 127.
//!
//! ```text
//! few tokens: four rows, block by block         many tokens: 32 rows become a tile (simd/tile.rs), once
//!           block 0     block 1
//!   row 0 | codes d   | codes d   | ..          unpack 4 x 256 codes -> 4 dot products -> 4 integers
//!   row 1 | codes d   | codes d   | ..          -> 4 fused multiply-adds
//! ```
//! Source: unsigned codes times signed activations is the I2_S idea of bitnet.cpp (arXiv 2410.16144).

use ternary_core::{BLOCK, Scales};

use super::rows::{TernaryRows, block_scales};
use super::tile_product::{TileTask, tile_product};
use crate::activations::{ActivationBuffer, QuantizedRows};
use crate::matmul::dense::panel_product;
use crate::matmul::formats::TernaryFormat;
use crate::memory::AlignedBuffer;
use crate::pool::ColumnBlock;
use crate::simd::{Kernel, QUAD_ROWS, Simd, TILE, TileBlock};

/// The product of some rows of a ternary matrix with all tokens, activations as INT8.
pub(crate) struct TernaryProduct<'a, 'b, P> {
    /// The rows of the matrix.
    pub(crate) rows: TernaryRows<'a, P>,
    /// The tokens of the product.
    pub(crate) acts: &'a QuantizedRows,
    /// The rows to compute, as columns of `y`.
    pub(crate) out: ColumnBlock<'b, f32>,
    /// Room for a tile: a block per block of a row.
    pub(crate) tile: &'a mut [TileBlock],
}

/// From this many tokens on, rows are put into a tile once instead of being unpacked for each.
const TILE_FROM_TOKENS: usize = 4;

/// Blocks of scratch for the product of rows of `n_blocks` with `n` tokens.
pub(crate) fn tile_scratch(n_blocks: usize, n: usize) -> usize {
    if n < TILE_FROM_TOKENS { 0 } else { n_blocks }
}

/// The INT8 form of one token: a code array, a scale and a sum per block.
#[derive(Clone, Copy, Default)]
struct Token<'a> {
    codes: &'a [[i8; BLOCK]],
    scales: &'a [f32],
    sums: &'a [i32],
}

impl<'a> Token<'a> {
    /// Row `t` of `acts`, which has `n_blocks` blocks.
    #[inline(always)]
    fn new(acts: &'a QuantizedRows, t: usize, n_blocks: usize) -> Token<'a> {
        // One length for all, so that loops need no bounds checks.
        Token {
            codes: &acts.codes(t)[..n_blocks],
            scales: &acts.scales(t)[..n_blocks],
            sums: &acts.sums(t)[..n_blocks],
        }
    }
}

impl<P: TernaryFormat> Kernel for TernaryProduct<'_, '_, P> {
    type Output = ();
    const INTEGER: bool = true;

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        if self.out.n_rows() < TILE_FROM_TOKENS {
            self.by_rows(s);
        } else {
            self.by_tiles(s);
        }
    }
}

impl<P: TernaryFormat> TernaryProduct<'_, '_, P> {
    #[inline(always)]
    fn by_tiles<S: Simd>(&mut self, s: S) {
        let columns = self.out.columns();
        let tensor_scale = self.rows.tensor_scale();
        for column in columns.clone().step_by(TILE) {
            let len = TILE.min(columns.end - column);
            self.rows.fill_tile(s, column, len, self.tile);
            let task = TileTask { tensor_scale, acts: self.acts, first: 0, len, column, first_token: 0, fetch: false };
            tile_product(s, self.tile, task, &mut self.out);
        }
    }

    #[inline(always)]
    fn by_rows<S: Simd>(&mut self, s: S) {
        let columns = self.out.columns();
        let tensor = self.rows.tensor;
        let row_bytes = tensor.blocks_per_row() * size_of::<P::Block>();
        let bytes: &[u8] = tensor.bytes();
        for start in columns.clone().step_by(QUAD_ROWS) {
            let mut rows: [&[P::Block]; QUAD_ROWS] = [&[]; QUAD_ROWS];
            for (i, row) in rows.iter_mut().enumerate() {
                let r = (start + i).min(columns.end - 1);
                *row = P::blocks(&bytes[r * row_bytes..(r + 1) * row_bytes]);
            }
            for t in 0..self.out.n_rows() {
                self.row_sums(s, rows, t, start);
            }
        }
    }

    /// Four rows, which are the columns from `start` on, times token `t`. Memory bounds the speed, so coming bytes are fetched
    /// in the order of addresses, and four blocks share the work after their sums.
    #[inline(always)]
    fn row_sums<S: Simd>(&mut self, s: S, rows: [&[P::Block]; QUAD_ROWS], t: usize, start: usize) {
        let (rows, n_blocks) = same_length(rows);
        let token = Token::new(self.acts, t, n_blocks);
        let scales = self.rows.tensor.scales();
        let mut acc = s.quad([0.0; QUAD_ROWS]);
        let n_fours = if S::FOUR_BLOCKS { n_blocks / 4 } else { 0 };
        if n_fours > 0 {
            // One loop for each kind of scales, so that neither has a branch in it.
            acc = match scales {
                Scales::PerBlock => sum_fours::<S, P>(s, rows, token, n_fours, Scales::PerBlock),
                per_tensor => sum_fours::<S, P>(s, rows, token, n_fours, per_tensor),
            };
        }
        for b in 4 * n_fours..n_blocks {
            ahead(s, &rows[0][0], b);
            // A loop, because a closure would be compiled without the level's instructions.
            let mut dots = [s.zero_sums(); QUAD_ROWS];
            for i in 0..QUAD_ROWS {
                dots[i] = s.dot_codes(&P::load(s, &rows[i][b]), &token.codes[b]);
            }
            let w_scales = block_scales::<S, P>(s, scales, rows.map(|row| &row[b]));
            acc = s.accumulate(acc, dots, token.sums[b], w_scales, token.scales[b]);
        }
        self.write(t, start, s.quad_values(acc));
    }

    /// Writes the results of four rows for one token; rows behind the last one are dropped.
    #[inline(always)]
    fn write(&mut self, t: usize, start: usize, sums: [f32; QUAD_ROWS]) {
        let columns = self.out.columns();
        let width = QUAD_ROWS.min(columns.end - start);
        self.out.row_mut(t)[start - columns.start..][..width].copy_from_slice(&sums[..width]);
    }
}

/// The sums of the first `4 * n_fours` blocks of four rows, four blocks at a time.
#[inline(always)]
fn sum_fours<S: Simd, P: TernaryFormat>(
    s: S,
    rows: [&[P::Block]; QUAD_ROWS],
    token: Token<'_>,
    n_fours: usize,
    scales: Scales,
) -> S::Quad {
    let first = &rows[0][0];
    // One length for all, so that the loop needs no bounds checks.
    let rows = rows.map(|row| &row.as_chunks::<4>().0[..n_fours]);
    let codes = &token.codes.as_chunks::<4>().0[..n_fours];
    let act_sums = &token.sums.as_chunks::<4>().0[..n_fours];
    let a_scales = &token.scales.as_chunks::<4>().0[..n_fours];
    let mut acc = s.quad([0.0; QUAD_ROWS]);
    for q in 0..n_fours {
        let rows = [&rows[0][q], &rows[1][q], &rows[2][q], &rows[3][q]];
        let mut dots = [[s.zero_sums(); QUAD_ROWS]; 4];
        let mut w_scales = [s.quad([0.0; QUAD_ROWS]); 4];
        for b in 0..4 {
            ahead(s, first, 4 * q + b);
            for i in 0..QUAD_ROWS {
                dots[b][i] = s.dot_codes(&P::load(s, &rows[i][b]), &codes[q][b]);
            }
            w_scales[b] = block_scales::<S, P>(s, scales, [&rows[0][b], &rows[1][b], &rows[2][b], &rows[3][b]]);
        }
        acc = s.accumulate_four(acc, dots, &act_sums[q], w_scales, &a_scales[q]);
    }
    acc
}

/// The rows cut to one length, so that loops over blocks need no bounds checks, and that length.
#[inline(always)]
fn same_length<B>([r0, r1, r2, r3]: [&[B]; QUAD_ROWS]) -> ([&[B]; QUAD_ROWS], usize) {
    let n = r0.len();
    ([r0, &r1[..n], &r2[..n], &r3[..n]], n)
}

/// Bytes by which rows are fetched ahead of their use; the best value measured on Zen 4. Much smaller distances disturb
/// the hardware prefetcher, which already copes badly with four rows read in turn.
const AHEAD_BYTES: usize = 8 << 10;

/// Fetches as many bytes of the coming rows as block `b` has in the four rows from `first` on.
#[inline(always)]
fn ahead<S: Simd, B>(s: S, first: &B, b: usize) {
    let part = QUAD_ROWS * size_of::<B>();
    s.prefetch_bytes(first, AHEAD_BYTES + b * part, part);
}

/// The product of some rows of a ternary matrix with all tokens, activations as they are.
pub(crate) struct TernaryFloatProduct<'a, 'b, P> {
    /// The rows of the matrix.
    pub(crate) rows: TernaryRows<'a, P>,
    /// The tokens of the product.
    pub(crate) acts: &'a ActivationBuffer,
    /// The rows to compute, as columns of `y`.
    pub(crate) out: ColumnBlock<'b, f32>,
    /// Room for converted rows.
    pub(crate) panel: &'a mut AlignedBuffer<f32>,
}

impl<P: TernaryFormat> Kernel for TernaryFloatProduct<'_, '_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        panel_product(s, &self.rows, self.acts, &mut self.out, self.panel);
    }
}
