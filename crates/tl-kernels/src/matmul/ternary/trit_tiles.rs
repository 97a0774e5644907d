//! The product of a tile of TQ1_0 bytes with tokens. For more tokens than `TRIT_TOKENS` of a level, a tile is expanded
//! to 2-bit fields once.

use super::tile_product::{TileTask, fetch_ahead, tile_product};
use crate::pool::ColumnBlock;
use crate::simd::{Simd, TILE, TileBlock, TritBlock, expand};

/// One tile times the tokens of `out`; `scratch` is a tile of as many blocks.
#[inline(always)]
pub(crate) fn trit_product<S: Simd>(
    s: S,
    tile: &[TritBlock],
    task: TileTask<'_>,
    out: &mut ColumnBlock<'_, f32>,
    scratch: &mut [TileBlock],
) {
    let n = out.n_rows();
    if n > S::TRIT_TOKENS {
        for (block, fields) in tile.iter().zip(&mut *scratch) {
            if task.fetch {
                fetch_ahead(s, block);
            }
            expand(s, block, fields);
        }
        return tile_product(s, scratch, TileTask { fetch: false, ..task }, out);
    }
    let mut t = 0;
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
    tile: &[TritBlock],
    task: TileTask<'_>,
    t: usize,
    out: &mut ColumnBlock<'_, f32>,
) {
    let parts = task.parts::<T>(t, tile.len());
    let mut acc = [[0.0; TILE]; T];
    for (b, block) in tile.iter().enumerate() {
        if task.fetch && t == 0 {
            fetch_ahead(s, block);
        }
        s.trit_block(block, &parts.block(b), &mut acc);
    }
    task.write(&acc, t, out);
}
