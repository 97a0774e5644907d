//! The product of a tile of 2-bit fields with tokens.

use std::cell::RefCell;

use ternary_core::BLOCK;

use crate::activations::QuantizedRows;
use crate::pool::ColumnBlock;
use crate::simd::{Simd, TILE, TileBlock, TileTokens, TokenBlock};

/// The tokens that a tile is multiplied with, the rows that are wanted, and the columns of the output for them.
#[derive(Clone, Copy)]
pub(crate) struct TileTask<'a> {
    /// The one scale of the tensor, if it has one; the scales of its blocks are 1 then.
    pub(crate) tensor_scale: Option<f32>,
    /// All tokens of the product.
    pub(crate) acts: &'a QuantizedRows,
    /// First row within the tile.
    pub(crate) first: usize,
    /// Number of rows wanted.
    pub(crate) len: usize,
    /// Column of the first row.
    pub(crate) column: usize,
    /// First token to be computed; the tokens before it have their results.
    pub(crate) first_token: usize,
    /// Whether the tile lies in memory that is slower than the caches, so that what follows it is fetched ahead.
    pub(crate) fetch: bool,
}

/// Bytes by which tiles are fetched ahead of their use. The hardware reads ahead as far as the end of a page of 4 KiB, and
/// what a product computes hides little of the time that the memory takes then. On a Xeon with VNNI decoding gained 11 % by
/// this (`benches/record/x86_64/2026-12-01-tiles-ahead.csv`).
const AHEAD_BYTES: usize = 8 << 10;

/// Fetches the block that lies [`AHEAD_BYTES`] behind `block`.
#[inline(always)]
pub(super) fn fetch_ahead<S: Simd, B>(s: S, block: &B) {
    s.prefetch_bytes(block, AHEAD_BYTES, size_of::<B>());
}

/// One tile times the tokens of `out`.
#[inline(always)]
pub(crate) fn tile_product<S: Simd>(s: S, tile: &[TileBlock], task: TileTask<'_>, out: &mut ColumnBlock<'_, f32>) {
    let n = out.n_rows();
    let mut t = task.first_token;
    if S::TOKENS == TileTokens::Eight {
        while n - t >= 8 {
            some_tokens::<S, 8>(s, tile, task, t, out);
            t += 8;
        }
    }
    while n - t >= 4 {
        some_tokens::<S, 4>(s, tile, task, t, out);
        t += 4;
    }
    match n - t {
        3 => some_tokens::<S, 3>(s, tile, task, t, out),
        2 => some_tokens::<S, 2>(s, tile, task, t, out),
        1 => some_tokens::<S, 1>(s, tile, task, t, out),
        _ => {}
    }
}

/// One tile times the tokens `t .. t + T`.
#[inline(always)]
fn some_tokens<S: Simd, const T: usize>(
    s: S,
    tile: &[TileBlock],
    task: TileTask<'_>,
    t: usize,
    out: &mut ColumnBlock<'_, f32>,
) {
    let parts = task.parts::<T>(t, tile.len());
    let mut acc = [[0.0; TILE]; T];
    let fetch = task.fetch && t == task.first_token;
    for (b, block) in tile.iter().enumerate() {
        if fetch {
            fetch_ahead(s, block);
        }
        s.tile_block(block, &parts.block(b), &mut acc);
    }
    task.write(&acc, t, out);
}

/// The tokens `t .. t + T` of a product, block by block.
pub(super) struct TokenParts<'a, const T: usize> {
    codes: [&'a [[i8; BLOCK]]; T],
    scales: [&'a [f32]; T],
    sums: [&'a [i32]; T],
    tensor_scale: Option<f32>,
}

impl<'a> TileTask<'a> {
    /// The tokens `t .. t + T`, which have `n_blocks` blocks.
    #[inline(always)]
    pub(super) fn parts<const T: usize>(&self, t: usize, n_blocks: usize) -> TokenParts<'a, T> {
        let mut parts =
            TokenParts { codes: [&[]; T], scales: [&[]; T], sums: [&[]; T], tensor_scale: self.tensor_scale };
        for j in 0..T {
            // One length for all, so that loops over blocks need no bounds checks.
            parts.codes[j] = &self.acts.codes(t + j)[..n_blocks];
            parts.scales[j] = &self.acts.scales(t + j)[..n_blocks];
            parts.sums[j] = &self.acts.sums(t + j)[..n_blocks];
        }
        parts
    }

    /// Writes the results of the tokens from `t` on.
    #[inline(always)]
    pub(super) fn write(&self, acc: &[[f32; TILE]], t: usize, out: &mut ColumnBlock<'_, f32>) {
        let start = self.column - out.columns().start;
        for (j, acc) in acc.iter().enumerate() {
            let out = &mut out.row_mut(t + j)[start..][..self.len];
            match out.as_mut_array() {
                // A copy of constant length compiles to moves instead of a call of memcpy.
                Some(out) if self.first == 0 => *out = *acc,
                _ => out.copy_from_slice(&acc[self.first..][..self.len]),
            }
        }
    }
}

impl<'a, const T: usize> TokenParts<'a, T> {
    /// The parts that meet block `b`.
    #[inline(always)]
    pub(super) fn block(&self, b: usize) -> [TokenBlock<'a>; T] {
        let mut tokens = [TokenBlock { codes: &self.codes[0][b], sum: 0, scale: 0.0 }; T];
        for j in 0..T {
            // 1 * (d * a) has the bits of d * a.
            let scale = self.tensor_scale.map_or(self.scales[j][b], |d| d * self.scales[j][b]);
            tokens[j] = TokenBlock { codes: &self.codes[j][b], sum: self.sums[j][b], scale };
        }
        tokens
    }
}

/// Calls `f` with `n` blocks that belong to this thread and are allocated once; their content is unspecified.
pub(crate) fn with_scratch<R>(n: usize, f: impl FnOnce(&mut [TileBlock]) -> R) -> R {
    thread_local! {
        static BLOCKS: RefCell<Vec<TileBlock>> = const { RefCell::new(Vec::new()) };
    }
    BLOCKS.with_borrow_mut(|blocks| {
        if blocks.len() < n {
            blocks.resize(n, TileBlock::PADDING);
        }
        f(&mut blocks[..n])
    })
}
