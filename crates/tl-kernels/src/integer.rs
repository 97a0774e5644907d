//! The product of Q8_0 and Q6_K matrices with INT8 activations.
//!
//! **Invariant:** over ascending blocks, `acc = fma(d_b * a_b, int_b as f32, acc)` from 0, where `int_b` is the exact sum
//! of weights times codes over a block and `a_b` the scale of the activations it meets: the rule of ternary rows. A block
//! is 32 weights of Q8_0 or 256 of Q6_K; `int_b` of the latter has the scales of its groups in it.
//!
//! ```text
//! few tokens: four rows, block by block, as they are stored        |int_b| <= 16 groups * 16 * 128 * 32 * 127 < 2^28
//! many tokens: sixteen rows become a tile of INT8 weights by quads of columns, once;
//!              strips of four or eight tokens sweep it
//! ```
//! Source: integer products of blocks with their own scales are the idea of GGML's `vec_dot` functions.

use std::cell::RefCell;
use std::marker::PhantomData;

use half::f16;
use ternary_core::{ActMode, BLOCK, quantize_a8};

use crate::activation::{LANES, QuantizedRows};
use crate::aligned::CACHE_LINE_BYTES;
use crate::format::{DenseFormat, Q6K, Q8_0};
use crate::gemm::TILE_ROWS;
use crate::linear::Linear;
use crate::pool::ColumnBlock;
use crate::vector::{DenseTile, Kernel, Simd, fma};

/// From this many tokens on, rows are put into a tile once instead of being unpacked for each.
pub(crate) const TILE_FROM_TOKENS: usize = 8;

/// How far ahead of the rows in work memory is asked for.
const AHEAD_BYTES: usize = 16 << 10;

/// A type of integer weights in blocks, at compile time. Sealed, as nobody outside can name it.
pub trait IntegerFormat: DenseFormat {
    /// The bytes of a block.
    type Block: Copy;
    /// Codes of the activations a block meets.
    type Acts;
    /// Weights that share a scale within a block: the unit of a tile.
    const GROUP: usize;

    /// The blocks of a row.
    fn blocks(row: &[u8]) -> &[Self::Block];
    /// What block `b` of a row meets, in the order that [`IntegerFormat::dots`] takes.
    fn acts(codes: &[[i8; BLOCK]], b: usize) -> &Self::Acts;
    /// The bits of the block's f16 scale.
    fn scale_bits(block: &Self::Block) -> u16;
    /// `int_b` of a block of each of four rows, still spread over several partial sums.
    fn dots<S: Simd>(s: S, blocks: [&Self::Block; TILE_ROWS], acts: &Self::Acts) -> [S::Sums; TILE_ROWS];
    /// The integers of a block in natural order, and writes the scale of each group.
    fn unpack<S: Simd>(s: S, block: &Self::Block, codes: &mut [[i8; LANES]], scales: &mut [i32]);
}

impl IntegerFormat for Q8_0 {
    type Block = [u8; 34];
    type Acts = [i8; 32];
    const GROUP: usize = 32;

    #[inline(always)]
    fn blocks(row: &[u8]) -> &[[u8; 34]] {
        row.as_chunks().0
    }
    #[inline(always)]
    fn acts(codes: &[[i8; BLOCK]], b: usize) -> &[i8; 32] {
        // Field order: run k of 32 lies at 2 (k % 4) + k / 4.
        let (k, runs) = (b % 8, codes[b / 8].as_chunks().0);
        &runs[2 * (k % 4) + k / 4]
    }
    #[inline(always)]
    fn scale_bits(block: &[u8; 34]) -> u16 {
        u16::from_le_bytes([block[0], block[1]])
    }
    #[inline(always)]
    fn dots<S: Simd>(s: S, blocks: [&[u8; 34]; TILE_ROWS], acts: &[i8; 32]) -> [S::Sums; TILE_ROWS] {
        s.dots_q8(blocks, acts)
    }
    #[inline(always)]
    fn unpack<S: Simd>(_s: S, block: &[u8; 34], codes: &mut [[i8; LANES]], scales: &mut [i32]) {
        let (_, integers) = block.split_at(2);
        for (code, integer) in codes.as_flattened_mut().iter_mut().zip(integers) {
            *code = integer.cast_signed();
        }
        scales.fill(1);
    }
}

impl IntegerFormat for Q6K {
    type Block = [u8; 210];
    type Acts = [i8; BLOCK];
    const GROUP: usize = 16;

    #[inline(always)]
    fn blocks(row: &[u8]) -> &[[u8; 210]] {
        row.as_chunks().0
    }
    #[inline(always)]
    fn acts(codes: &[[i8; BLOCK]], b: usize) -> &[i8; BLOCK] {
        &codes[b]
    }
    #[inline(always)]
    fn scale_bits(block: &[u8; 210]) -> u16 {
        u16::from_le_bytes([block[208], block[209]])
    }
    #[inline(always)]
    fn dots<S: Simd>(s: S, blocks: [&[u8; 210]; TILE_ROWS], acts: &[i8; BLOCK]) -> [S::Sums; TILE_ROWS] {
        s.dots_q6(blocks, acts)
    }
    #[inline(always)]
    fn unpack<S: Simd>(s: S, block: &[u8; 210], codes: &mut [[i8; LANES]], scales: &mut [i32]) {
        let (low, rest) = block.split_at(128);
        let (high, rest) = rest.split_at(64);
        let mut unpacked = [[[0; LANES]; 8]; 2];
        let halves = low.as_chunks::<64>().0.iter().zip(high.as_chunks::<32>().0);
        for ((low, high), unpacked) in halves.zip(&mut unpacked) {
            s.unpack_q6(low, high, unpacked);
        }
        for (codes, unpacked) in codes.iter_mut().zip(unpacked.as_flattened()) {
            *codes = unpacked.map(u8::cast_signed);
        }
        for (scale, byte) in scales.iter_mut().zip(rest) {
            *scale = i32::from(byte.cast_signed());
        }
    }
}

/// The product of some rows of a matrix `[rows, cols]` with all tokens.
pub(crate) struct IntegerProduct<'a, 'b, F> {
    /// All rows, one after the other.
    pub(crate) bytes: &'a [u8],
    /// Bytes per row.
    pub(crate) row_bytes: usize,
    /// The tokens.
    pub(crate) acts: &'a QuantizedRows,
    /// The rows to compute, as columns of `y`.
    pub(crate) out: ColumnBlock<'b, f32>,
    /// The type of the weights.
    pub(crate) format: PhantomData<F>,
    /// Room for a tile.
    pub(crate) tile: &'a mut Tile,
}

impl<F: IntegerFormat> Kernel for IntegerProduct<'_, '_, F> {
    type Output = ();
    const INTEGER: bool = true;

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        if self.out.n_rows() < TILE_FROM_TOKENS {
            self.by_rows(s);
        } else {
            match S::DENSE_TILE {
                DenseTile::Rows4Tokens6 => self.by_tiles::<S, 8>(s),
                DenseTile::Rows2Tokens3 | DenseTile::Rows4Tokens1 => self.by_tiles::<S, 4>(s),
            }
        }
    }
}

impl<F: IntegerFormat> IntegerProduct<'_, '_, F> {
    #[inline(always)]
    fn row(&self, r: usize) -> &[F::Block] {
        F::blocks(&self.bytes[r * self.row_bytes..(r + 1) * self.row_bytes])
    }

    #[inline(always)]
    fn by_rows<S: Simd>(&mut self, s: S) {
        let columns = self.out.columns();
        for start in columns.clone().step_by(TILE_ROWS) {
            let width = TILE_ROWS.min(columns.end - start);
            for t in 0..self.out.n_rows() {
                let sums = self.row_sums(s, start, t);
                self.out.row_mut(t)[start - columns.start..][..width].copy_from_slice(&sums[..width]);
            }
        }
    }

    /// Four rows from `start` on times token `t`; the last row stands for those behind it.
    #[inline(always)]
    fn row_sums<S: Simd>(&self, s: S, start: usize, t: usize) -> [f32; TILE_ROWS] {
        let last = self.out.columns().end - 1;
        let r0 = self.row(start);
        let n = r0.len();
        // One length for all, so that the loops need no bounds checks.
        let [r1, r2, r3] = [1, 2, 3].map(|i| &self.row((start + i).min(last))[..n]);
        let (codes, a_scales) = (self.acts.codes(t), self.acts.scales(t));
        let ahead = AHEAD_BYTES.max(TILE_ROWS * self.row_bytes);
        let step = TILE_ROWS * size_of::<F::Block>();
        let mut acc = s.quad([0.0; TILE_ROWS]);
        for b in 0..n {
            fetch(s, &r0[0], ahead + b * step, step);
            let blocks = [&r0[b], &r1[b], &r2[b], &r3[b]];
            let dots = F::dots(s, blocks, F::acts(codes, b));
            let w_scales = s.quad_f16(blocks.map(F::scale_bits));
            acc = s.accumulate(acc, dots, 0, w_scales, a_scales[b * F::BLOCK_LEN / BLOCK]);
        }
        s.quad_values(acc)
    }

    /// Strips of `V` tokens, the last one filled up with zeros, sweep a tile of sixteen rows after the other.
    #[inline(always)]
    fn by_tiles<S: Simd, const V: usize>(&mut self, s: S) {
        let (columns, n, acts) = (self.out.columns(), self.out.n_rows(), self.acts);
        self.tile.take_tokens::<F, V>(acts, n, self.row_bytes / F::BLOCK_BYTES);
        for start in columns.clone().step_by(LANES) {
            let len = LANES.min(columns.end - start);
            let rows = &self.bytes[start * self.row_bytes..(start + len) * self.row_bytes];
            self.tile.take_rows::<S, F>(s, rows, self.row_bytes);
            for first in (0..n).step_by(V) {
                let sums = strip::<S, F, V>(s, self.tile, first / V);
                for (t, sums) in (first..n).zip(&sums) {
                    self.out.row_mut(t)[start - columns.start..][..len].copy_from_slice(&sums[..len]);
                }
            }
        }
    }
}

/// The rows of the tile times the tokens of strip `i`.
#[inline(always)]
fn strip<S: Simd, F: IntegerFormat, const V: usize>(s: S, tile: &Tile, i: usize) -> [[f32; LANES]; V] {
    let (block_quads, block_groups) = (F::BLOCK_LEN / 4, F::BLOCK_LEN / F::GROUP);
    let n_blocks = tile.scales.len();
    // One length for all, so that the loop needs no bounds checks.
    let x = &tile.token_quads.as_chunks::<V>().0[i * n_blocks * block_quads..][..n_blocks * block_quads];
    let x_sums = &tile.token_sums.as_chunks::<V>().0[i * n_blocks * block_groups..][..n_blocks * block_groups];
    let a_scales = &tile.token_scales.as_chunks::<V>().0[i * n_blocks..][..n_blocks];
    let groups = tile.quads.chunks_exact(F::GROUP / 4).zip(x.chunks_exact(F::GROUP / 4));
    let mut groups = groups.zip(&tile.group_scales).zip(x_sums);
    let mut acc = [s.splat(0.0); V];
    for (scales, a_scales) in tile.scales.iter().zip(a_scales) {
        let mut total = [s.no_quads(0); V];
        for _ in 0..block_groups {
            let Some((((w, x), group_scales), x_sums)) = groups.next() else { unreachable!("whole blocks") };
            let mut sums = [s.no_quads(0); V];
            for j in 0..V {
                sums[j] = s.no_quads(x_sums[j]);
            }
            for (w, x) in w.iter().zip(x) {
                for j in 0..V {
                    sums[j] = s.dot_quads(sums[j], w, x[j]);
                }
            }
            if block_groups == 1 {
                total = sums;
                continue;
            }
            for j in 0..V {
                total[j] = s.mul_add_i32(sums[j], group_scales, total[j]);
            }
        }
        let scales = s.load(scales);
        for j in 0..V {
            acc[j] = s.fma(s.mul(scales, s.splat(a_scales[j])), s.to_f32(total[j]), acc[j]);
        }
    }
    let mut sums = [[0.0; LANES]; V];
    for j in 0..V {
        s.store(acc[j], &mut sums[j]);
    }
    sums
}

/// Asks for `len` bytes that lie `distance` behind `first`.
#[inline(always)]
fn fetch<S: Simd, B>(s: S, first: &B, distance: usize, len: usize) {
    for line in 0..len.div_ceil(CACHE_LINE_BYTES) {
        s.prefetch_far(first, distance + line * CACHE_LINE_BYTES);
    }
}

/// Calls `f` with this thread's tile, which is allocated once.
pub(crate) fn with_tile<R>(f: impl FnOnce(&mut Tile) -> R) -> R {
    thread_local! {
        static TILE: RefCell<Tile> = RefCell::default();
    }
    TILE.with_borrow_mut(f)
}

/// Sixteen rows by quads of columns, and the tokens that meet them, in natural order.
#[derive(Default)]
pub(crate) struct Tile {
    /// `[cols / 4]`, each with a quad of every row.
    quads: Vec<[[i8; 4]; LANES]>,
    /// The scale of each block `[cols / block]`.
    scales: Vec<[f32; LANES]>,
    /// The scale of each group `[cols / group]`.
    group_scales: Vec<[i32; LANES]>,
    /// The codes of the tokens `[strips, cols / 4, V]`.
    token_quads: Vec<[i8; 4]>,
    /// The sums of their groups `[strips, cols / group, V]`.
    token_sums: Vec<i32>,
    /// The scales of the codes that a block meets `[strips, cols / block, V]`.
    token_scales: Vec<f32>,
}

impl Tile {
    /// Takes `n` tokens for rows of so many blocks, in strips of `V`.
    #[inline(always)]
    fn take_tokens<F: IntegerFormat, const V: usize>(&mut self, acts: &QuantizedRows, n: usize, n_blocks: usize) {
        let width = n_blocks * F::BLOCK_LEN;
        let padded = n.next_multiple_of(V);
        self.token_quads.resize(padded * width / 4, [0; 4]);
        self.token_sums.resize(padded * width / F::GROUP, 0);
        self.token_scales.resize(padded * n_blocks, 0.0);
        let strips = self.token_quads.chunks_exact_mut(V * width / 4).zip(
            self.token_sums
                .chunks_exact_mut(V * width / F::GROUP)
                .zip(self.token_scales.chunks_exact_mut(V * n_blocks)),
        );
        for (i, (quads, (sums, scales))) in strips.enumerate() {
            for j in 0..V {
                if i * V + j >= n {
                    quads.iter_mut().skip(j).step_by(V).for_each(|quad| *quad = [0; 4]);
                    continue;
                }
                let (codes, a_scales) = (acts.codes(i * V + j), acts.scales(i * V + j));
                for (k, run) in quads.chunks_exact_mut(8 * V).enumerate() {
                    let natural = Q8_0::acts(codes, k).as_chunks::<4>().0;
                    run[j..].iter_mut().step_by(V).zip(natural).for_each(|(quad, natural)| *quad = *natural);
                }
                for (g, sum) in sums[j..].iter_mut().step_by(V).enumerate() {
                    let run = Q8_0::acts(codes, g * F::GROUP / 32);
                    *sum = run[g * F::GROUP % 32..][..F::GROUP].iter().map(|&q| i32::from(q)).sum();
                }
                for (b, scale) in scales[j..].iter_mut().step_by(V).enumerate() {
                    *scale = a_scales[b * F::BLOCK_LEN / BLOCK];
                }
            }
        }
    }

    /// Takes at most sixteen rows of `row_bytes`; those behind the last one are zeros.
    #[inline(always)]
    fn take_rows<S: Simd, F: IntegerFormat>(&mut self, s: S, rows: &[u8], row_bytes: usize) {
        let blocks = row_bytes / F::BLOCK_BYTES;
        let (block_quads, block_groups) = (F::BLOCK_LEN / 4, F::BLOCK_LEN / F::GROUP);
        self.quads.resize(blocks * block_quads, [[0; 4]; LANES]);
        self.scales.resize(blocks, [0.0; LANES]);
        self.group_scales.resize(blocks * block_groups, [0; LANES]);
        if rows.len() < LANES * row_bytes {
            self.quads.fill([[0; 4]; LANES]);
            self.scales.fill([0.0; LANES]);
        }
        let (mut codes, mut scales) = ([[0; LANES]; BLOCK / LANES], [0; BLOCK / LANES]);
        for (r, row) in rows.chunks_exact(row_bytes).enumerate() {
            for (b, block) in F::blocks(row).iter().enumerate() {
                let codes = &mut codes[..F::BLOCK_LEN / LANES];
                F::unpack(s, block, codes, &mut scales[..block_groups]);
                self.scales[b][r] = f16::from_bits(F::scale_bits(block)).to_f32();
                let quads = codes.as_flattened().as_chunks::<4>().0;
                for (tile, quad) in self.quads[b * block_quads..][..block_quads].iter_mut().zip(quads) {
                    tile[r] = *quad;
                }
                for (tile, scale) in self.group_scales[b * block_groups..][..block_groups].iter_mut().zip(scales) {
                    tile[r] = scale;
                }
            }
        }
    }
}

/// What the product with INT8 activations must give for a Q8_0 or Q6_K layer and `x` `[n, cols]`: `y` is `[n, rows]`. Written
/// for reading, from the definitions of the formats (format.rs).
pub(crate) fn oracle(linear: &Linear, x: &[f32], n: usize, y: &mut [f32]) {
    let (rows, cols, mode) = (linear.rows(), linear.cols(), linear.act_mode());
    let row_bytes = linear.bytes().len() / rows;
    let per_scale = if mode == ActMode::A8Token { cols } else { BLOCK };
    for t in 0..n {
        let x = &x[t * cols..(t + 1) * cols];
        let mut codes = vec![0; cols];
        let a_scales: Vec<f32> =
            x.chunks(per_scale).zip(codes.chunks_mut(per_scale)).map(|(x, codes)| quantize_a8(x, codes)).collect();
        for (r, row) in linear.bytes().chunks_exact(row_bytes).enumerate() {
            let mut acc = 0.0;
            let mut column = 0;
            let mut add_block = |d: [u8; 2], weights: &[i32]| {
                let sum: i32 = weights.iter().zip(&codes[column..]).map(|(w, code)| w * i32::from(*code)).sum();
                let d = f16::from_le_bytes(d).to_f32();
                acc = fma(d * a_scales[column / per_scale], sum as f32, acc);
                column += weights.len();
            };
            match linear {
                Linear::Q8_0(_) => row.as_chunks::<34>().0.iter().for_each(|block| {
                    let weights: [i32; 32] = std::array::from_fn(|i| i32::from(block[2 + i].cast_signed()));
                    add_block([block[0], block[1]], &weights);
                }),
                Linear::Q6K(_) => row.as_chunks::<210>().0.iter().for_each(|block| {
                    let weights: [i32; BLOCK] = std::array::from_fn(|i| {
                        let (h, k, m) = (i / 128, i % 128 / 32, i % 32);
                        let low = block[64 * h + 32 * (k % 2) + m] >> (4 * (k / 2)) & 15;
                        let high = block[128 + 32 * h + m] >> (2 * k) & 3;
                        (i32::from(low | high << 4) - 32) * i32::from(block[192 + i / 16].cast_signed())
                    });
                    add_block([block[208], block[209]], &weights);
                }),
                _ => unreachable!("only these meet INT8 activations"),
            }
            y[t * rows + r] = acc;
        }
    }
}
