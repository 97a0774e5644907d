//! The product of a tile of TQ1_0 bytes with tokens.
//!
//! Many tokens share the codes: a tile is expanded to 2-bit fields once.

use super::tile_product::{TileSpan, tile_product};
use crate::activations::QuantizedRows;
use crate::pool::ColumnBlock;
use crate::simd::{Base3Block, Simd, TILE, TileBlock, TokenBlock, expand};

/// One tile times the tokens of `out`; `scratch` is a tile of as many blocks.
#[inline(always)]
pub(crate) fn base3_product<S: Simd>(
    s: S,
    tile: &[Base3Block],
    tensor_scale: Option<f32>,
    acts: &QuantizedRows,
    span: &TileSpan,
    out: &mut ColumnBlock<'_, f32>,
    scratch: &mut [TileBlock],
) {
    if out.n_rows() > 1 {
        for (block, fields) in tile.iter().zip(&mut *scratch) {
            expand(s, block, fields);
        }
        return tile_product(s, scratch, tensor_scale, acts, span, out);
    }
    // One length for all, so that the loop needs no bounds checks.
    let (codes, scales, sums) =
        (&acts.codes(0)[..tile.len()], &acts.scales(0)[..tile.len()], &acts.sums(0)[..tile.len()]);
    let mut acc = [0.0; TILE];
    for (b, block) in tile.iter().enumerate() {
        // 1 * (d * a) has the bits of d * a.
        let scale = tensor_scale.map_or(scales[b], |d| d * scales[b]);
        s.base3_block(block, &TokenBlock { codes: &codes[b], sum: sums[b], scale }, &mut acc);
    }
    let start = span.column - out.columns().start;
    out.row_mut(0)[start..][..span.len].copy_from_slice(&acc[span.first..][..span.len]);
}
