//! The product of some rows with all tokens, row by row or by panels.

use std::marker::PhantomData;

use ternary_core::BLOCK;

use super::panel::Panel;
use crate::activations::QuantizedRows;
use crate::matmul::formats::IntegerFormat;
use crate::pool::ColumnBlock;
use crate::simd::{Kernel, LANES, PatchShape, QUAD_ROWS, Simd};

/// From this many tokens on, rows are put into a panel on every level: [`IntegerFormat::PANEL_FROM_TOKENS`] is at most that.
pub(crate) const PANEL_FROM_TOKENS: usize = 8;

/// Bytes by which rows are fetched ahead of their use.
const AHEAD_BYTES: usize = 16 << 10;

/// The product of some rows of a matrix `[rows, cols]` with all tokens.
pub(crate) struct IntegerProduct<'a, 'b, F> {
    /// All rows, one after the other.
    pub(crate) bytes: &'a [u8],
    /// Number of bytes in a row.
    pub(crate) row_bytes: usize,
    /// The tokens of the product.
    pub(crate) acts: &'a QuantizedRows,
    /// The rows to compute, as columns of `y`.
    pub(crate) out: ColumnBlock<'b, f32>,
    /// The type of the weights.
    pub(crate) format: PhantomData<F>,
    /// Room for a panel.
    pub(crate) panel: &'a mut Panel,
}

impl<F: IntegerFormat> Kernel for IntegerProduct<'_, '_, F> {
    type Output = ();
    const INTEGER: bool = true;

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        const { assert!(F::PANEL_FROM_TOKENS <= PANEL_FROM_TOKENS) };
        let from = if S::TRANSPOSES { F::PANEL_FROM_TOKENS } else { PANEL_FROM_TOKENS };
        if self.out.n_rows() < from {
            self.by_rows(s);
        } else {
            match S::PATCH {
                PatchShape::Rows4Tokens6 if self.out.n_rows() > 4 => self.by_panels::<S, 8>(s),
                PatchShape::Rows4Tokens6 | PatchShape::Rows2Tokens3 | PatchShape::Rows4Tokens1 => {
                    self.by_panels::<S, 4>(s)
                }
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
        let n = self.out.n_rows();
        for start in self.out.columns().step_by(QUAD_ROWS) {
            for t in (0..n).step_by(3) {
                match n - t {
                    1 => self.some_tokens::<S, 1>(s, start, t),
                    2 => self.some_tokens::<S, 2>(s, start, t),
                    _ => self.some_tokens::<S, 3>(s, start, t),
                }
            }
        }
    }

    /// Four rows from `start` on times the tokens `t .. t + T`.
    #[inline(always)]
    fn some_tokens<S: Simd, const T: usize>(&mut self, s: S, start: usize, t: usize) {
        let columns = self.out.columns();
        let width = QUAD_ROWS.min(columns.end - start);
        let sums = self.row_sums::<S, T>(s, start, t);
        for (j, sums) in sums.iter().enumerate() {
            self.out.row_mut(t + j)[start - columns.start..][..width].copy_from_slice(&sums[..width]);
        }
    }

    /// Four rows from `start` on times the tokens `t .. t + T`; the last row stands for those behind it.
    #[inline(always)]
    fn row_sums<S: Simd, const T: usize>(&self, s: S, start: usize, t: usize) -> [[f32; QUAD_ROWS]; T] {
        let last = self.out.columns().end - 1;
        let r0 = self.row(start);
        let n = r0.len();
        // One length for all, so that the loops need no bounds checks.
        let [r1, r2, r3] = [1, 2, 3].map(|i| &self.row((start + i).min(last))[..n]);
        let (mut codes, mut a_scales): ([&[[i8; BLOCK]]; T], [&[f32]; T]) = ([&[]; T], [&[]; T]);
        for j in 0..T {
            (codes[j], a_scales[j]) = (self.acts.codes(t + j), self.acts.scales(t + j));
        }
        let ahead = AHEAD_BYTES.max(QUAD_ROWS * self.row_bytes);
        let step = QUAD_ROWS * size_of::<F::Block>();
        let mut acc = [s.quad([0.0; QUAD_ROWS]); T];
        for b in 0..n {
            if t == 0 {
                s.prefetch_bytes(&r0[0], ahead + b * step, step);
            }
            let blocks = [&r0[b], &r1[b], &r2[b], &r3[b]];
            let w_scales = s.quad_f16(blocks.map(F::scale_bits));
            for j in 0..T {
                let dots = F::dots(s, blocks, F::acts(codes[j], b));
                acc[j] = s.accumulate(acc[j], dots, 0, w_scales, a_scales[j][b * F::BLOCK_LEN / BLOCK]);
            }
        }
        let mut sums = [[0.0; QUAD_ROWS]; T];
        for j in 0..T {
            sums[j] = s.quad_values(acc[j]);
        }
        sums
    }

    /// One panel of sixteen rows after the other, times strips of `V` tokens; the last strip is filled up with zeros.
    #[inline(always)]
    fn by_panels<S: Simd, const V: usize>(&mut self, s: S) {
        let (columns, n, acts) = (self.out.columns(), self.out.n_rows(), self.acts);
        self.panel.take_tokens::<F, V>(acts, n, self.row_bytes / F::BLOCK_BYTES);
        for start in columns.clone().step_by(LANES) {
            let len = LANES.min(columns.end - start);
            let rows = &self.bytes[start * self.row_bytes..(start + len) * self.row_bytes];
            self.panel.take_rows::<S, F>(s, rows, self.row_bytes);
            for first in (0..n).step_by(V) {
                let sums = strip::<S, F, V>(s, self.panel, first / V);
                for (t, sums) in (first..n).zip(&sums) {
                    self.out.row_mut(t)[start - columns.start..][..len].copy_from_slice(&sums[..len]);
                }
            }
        }
    }
}

/// The rows of the panel times the tokens of strip `i`.
#[inline(always)]
fn strip<S: Simd, F: IntegerFormat, const V: usize>(s: S, panel: &Panel, i: usize) -> [[f32; LANES]; V] {
    let (block_quads, block_groups) = (F::BLOCK_LEN / 4, F::BLOCK_LEN / F::GROUP);
    let n_blocks = panel.scales.len();
    // One length for all, so that the loop needs no bounds checks.
    let x = &panel.token_quads.as_chunks::<V>().0[i * n_blocks * block_quads..][..n_blocks * block_quads];
    let x_sums = &panel.token_sums.as_chunks::<V>().0[i * n_blocks * block_groups..][..n_blocks * block_groups];
    let a_scales = &panel.token_scales.as_chunks::<V>().0[i * n_blocks..][..n_blocks];
    let groups = panel.quads.chunks_exact(F::GROUP / 4).zip(x.chunks_exact(F::GROUP / 4));
    let mut groups = groups.zip(&panel.group_scales).zip(x_sums);
    let mut acc = [s.splat(0.0); V];
    for (scales, a_scales) in panel.scales.iter().zip(a_scales) {
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
