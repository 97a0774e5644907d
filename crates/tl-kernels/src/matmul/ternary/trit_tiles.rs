//! The product of a tile of TQ1_0 bytes with tokens. For several tokens a tile is expanded to 2-bit fields once.

use super::tile_product::{TileTask, tile_product};
use crate::pool::ColumnBlock;
use crate::simd::{Simd, TILE, TileBlock, TokenBlock, TritBlock, expand};

/// One tile times the tokens of `out`; `scratch` is a tile of as many blocks.
#[inline(always)]
pub(crate) fn trit_product<S: Simd>(
    s: S,
    tile: &[TritBlock],
    task: TileTask<'_>,
    out: &mut ColumnBlock<'_, f32>,
    scratch: &mut [TileBlock],
) {
    if out.n_rows() > 1 {
        for (block, fields) in tile.iter().zip(&mut *scratch) {
            expand(s, block, fields);
        }
        return tile_product(s, scratch, task, out);
    }
    // One length for all, so that the loop needs no bounds checks.
    let (codes, scales, sums) =
        (&task.acts.codes(0)[..tile.len()], &task.acts.scales(0)[..tile.len()], &task.acts.sums(0)[..tile.len()]);
    let mut acc = [0.0; TILE];
    for (b, block) in tile.iter().enumerate() {
        // 1 * (d * a) has the bits of d * a.
        let scale = task.tensor_scale.map_or(scales[b], |d| d * scales[b]);
        s.trit_block(block, &TokenBlock { codes: &codes[b], sum: sums[b], scale }, &mut acc);
    }
    let start = task.column - out.columns().start;
    out.row_mut(0)[start..][..task.len].copy_from_slice(&acc[task.first..][..task.len]);
}
