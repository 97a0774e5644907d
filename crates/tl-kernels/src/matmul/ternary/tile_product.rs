//! The product of a tile of 2-bit fields with tokens.

use std::cell::RefCell;

use ternary_core::BLOCK;

use crate::activations::QuantizedRows;
use crate::pool::ColumnBlock;
use crate::simd::{Simd, TILE, TileBlock, TileTokens, TokenBlock};

/// Some rows of a tile, and what of the output they are: columns, of some token and all behind it.
#[derive(Debug, Clone)]
pub(crate) struct TileSpan {
    /// First row within the tile.
    pub(crate) first: usize,
    /// Number of rows.
    pub(crate) len: usize,
    /// Column of the first row.
    pub(crate) column: usize,
    /// First token; those before it have their results.
    pub(crate) first_token: usize,
}

/// One tile times the tokens of `out`. `tensor_scale` stands for the scales of the blocks, which are then 1.
#[inline(always)]
pub(crate) fn tile_product<S: Simd>(
    s: S,
    tile: &[TileBlock],
    tensor_scale: Option<f32>,
    acts: &QuantizedRows,
    span: &TileSpan,
    out: &mut ColumnBlock<'_, f32>,
) {
    let n = out.n_rows();
    let mut t = span.first_token;
    if S::TOKENS == TileTokens::Eight {
        while n - t >= 8 {
            some_tokens::<S, 8>(s, tile, tensor_scale, acts, t, span, out);
            t += 8;
        }
    }
    while n - t >= 4 {
        some_tokens::<S, 4>(s, tile, tensor_scale, acts, t, span, out);
        t += 4;
    }
    while n - t >= 2 {
        some_tokens::<S, 2>(s, tile, tensor_scale, acts, t, span, out);
        t += 2;
    }
    if t < n {
        some_tokens::<S, 1>(s, tile, tensor_scale, acts, t, span, out);
    }
}

/// One tile times the tokens `t .. t + T`.
#[inline(always)]
fn some_tokens<S: Simd, const T: usize>(
    s: S,
    tile: &[TileBlock],
    tensor_scale: Option<f32>,
    acts: &QuantizedRows,
    t: usize,
    span: &TileSpan,
    out: &mut ColumnBlock<'_, f32>,
) {
    let mut codes: [&[[i8; BLOCK]]; T] = [&[]; T];
    let mut scales: [&[f32]; T] = [&[]; T];
    let mut sums: [&[i32]; T] = [&[]; T];
    for j in 0..T {
        // One length for all, so that the loop needs no bounds checks.
        codes[j] = &acts.codes(t + j)[..tile.len()];
        scales[j] = &acts.scales(t + j)[..tile.len()];
        sums[j] = &acts.sums(t + j)[..tile.len()];
    }
    let mut acc = [[0.0; TILE]; T];
    for (b, block) in tile.iter().enumerate() {
        let mut tokens = [TokenBlock { codes: &codes[0][b], sum: 0, scale: 0.0 }; T];
        for j in 0..T {
            // 1 * (d * a) has the bits of d * a.
            let scale = tensor_scale.map_or(scales[j][b], |d| d * scales[j][b]);
            tokens[j] = TokenBlock { codes: &codes[j][b], sum: sums[j][b], scale };
        }
        s.tile_block(block, &tokens, &mut acc);
    }
    let start = span.column - out.columns().start;
    for (j, acc) in acc.iter().enumerate() {
        let out = &mut out.row_mut(t + j)[start..][..span.len];
        match out.as_mut_array() {
            // A copy of known length needs no call.
            Some(out) if span.first == 0 => *out = *acc,
            _ => out.copy_from_slice(&acc[span.first..][..span.len]),
        }
    }
}

/// Calls `f` with `n` blocks of this thread's own, which are allocated once; what they hold is unspecified.
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
