//! A ternary matrix seen through its packing.

use std::marker::PhantomData;

use ternary_core::{BLOCK, Scales, TernaryTensor};

use crate::matmul::dense::PanelSource;
use crate::matmul::formats::{TernaryFormat, block_scale};
use crate::simd::{LANES, QUAD_ROWS, Simd, TILE, TileBlock};

/// A ternary matrix seen through its packing.
#[derive(Clone, Copy)]
pub(crate) struct TernaryRows<'a, P> {
    /// The matrix; its packing is `P`.
    pub(crate) tensor: &'a TernaryTensor,
    /// The packing as a type.
    pub(crate) packing: PhantomData<P>,
}

impl<P: TernaryFormat> TernaryRows<'_, P> {
    /// Fills a tile with up to 32 rows from `start` on. The rows are read one after the other, as the hardware fetches best.
    #[inline(always)]
    pub(crate) fn fill_tile<S: Simd>(&self, s: S, start: usize, len: usize, tile: &mut [TileBlock]) {
        let row_bytes = self.tensor.blocks_per_row() * size_of::<P::Block>();
        let bytes = &self.tensor.bytes()[start * row_bytes..];
        if len < TILE {
            tile.fill(TileBlock::PADDING);
        }
        for (i, row) in bytes.chunks_exact(row_bytes).take(len).enumerate() {
            for (block, out) in P::blocks(row).iter().zip(&mut *tile) {
                out.codes.as_flattened_mut().as_chunks_mut().0[i] = P::tq2_bytes(block);
                out.scales[i] = block_scale::<P>(self.tensor.scales(), block);
            }
        }
        for block in tile {
            let rows: [[u8; BLOCK / 4]; TILE] = bytemuck::cast(block.codes);
            s.transpose(&rows, &mut block.codes);
        }
    }

    /// The one scale of the tensor, if it has one.
    pub(crate) fn tensor_scale(&self) -> Option<f32> {
        match self.tensor.scales() {
            Scales::PerBlock => None,
            Scales::PerTensor(scale) => Some(scale),
        }
    }
}

/// The scales of four blocks: their own, or the tensor's.
#[inline(always)]
pub(super) fn block_scales<S: Simd, P: TernaryFormat>(s: S, scales: Scales, blocks: [&P::Block; QUAD_ROWS]) -> S::Quad {
    if let Scales::PerTensor(scale) = scales {
        return s.quad([scale; QUAD_ROWS]);
    }
    let [b0, b1, b2, b3] = blocks;
    s.quad_f16([P::scale_bits(b0), P::scale_bits(b1), P::scale_bits(b2), P::scale_bits(b3)])
}

impl<P: TernaryFormat> PanelSource for TernaryRows<'_, P> {
    #[inline(always)]
    fn convert<S: Simd>(&self, s: S, r: usize, out: &mut [[f32; LANES]]) {
        let blocks = P::blocks(self.tensor.row_bytes(r));
        for (block, out) in blocks.iter().zip(out.as_chunks_mut::<{ BLOCK / LANES }>().0) {
            let [scale, ..] = s.quad_values(block_scales::<S, P>(s, self.tensor.scales(), [block; QUAD_ROWS]));
            let codes = P::codes(block);
            for (out, codes) in out.iter_mut().zip(codes.as_chunks().0) {
                let trits = s.sub(s.load_i8(codes), s.splat(1.0));
                s.store(s.mul(trits, s.splat(scale)), out);
            }
        }
    }
}
