//! The product of a dense matrix: streamed for few tokens, by panels for many.

use super::panel::{panel_product, reduced};
use super::rows::PackedRows;
use crate::activations::ActivationBuffer;
use crate::matmul::formats::DenseFormat;
use crate::memory::AlignedBuffer;
use crate::pool::ColumnBlock;
use crate::simd::{Kernel, LANES, PatchShape, QUAD_ROWS, Simd};

/// Fewest bytes by which packed weights are fetched ahead of their use. The hardware prefetcher stops at the borders of
/// pages and follows few streams at a time; this distance covers the latency of memory at 40 bytes per nanosecond.
const PREFETCH_BYTES: usize = 32 << 10;

/// The product of some rows of a packed matrix with all tokens.
pub(crate) struct DenseProduct<'a, 'b, F: DenseFormat> {
    /// The rows of the matrix.
    pub(crate) rows: PackedRows<'a, F>,
    /// The tokens of the product.
    pub(crate) acts: &'a ActivationBuffer,
    /// The rows to compute, as columns of `y`.
    pub(crate) out: ColumnBlock<'b, f32>,
    /// Room for converted rows.
    pub(crate) panel: &'a mut AlignedBuffer<f32>,
}

impl<F: DenseFormat> Kernel for DenseProduct<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let DenseProduct { rows, acts, mut out, panel } = self;
        if acts.n() <= S::PATCH.streamed_tokens() {
            stream(s, &rows, acts, &mut out);
        } else {
            panel_product(s, &rows, acts, &mut out, panel);
        }
    }
}

/// Computes all columns of `out` from packed rows, for at most [`PatchShape::streamed_tokens`].
#[inline(always)]
fn stream<S: Simd, F: DenseFormat>(
    s: S,
    rows: &PackedRows<'_, F>,
    acts: &ActivationBuffer,
    out: &mut ColumnBlock<'_, f32>,
) {
    match (S::PATCH, acts.n()) {
        (PatchShape::Rows4Tokens6, 8) => strips::<S, F, 4, 4, 4, 0>(s, rows, acts, out),
        (PatchShape::Rows4Tokens6, 7) => strips::<S, F, 4, 4, 3, 0>(s, rows, acts, out),
        (PatchShape::Rows4Tokens6, 6) => strips::<S, F, 4, 6, 0, 0>(s, rows, acts, out),
        (PatchShape::Rows4Tokens6, 5) => strips::<S, F, 4, 5, 0, 0>(s, rows, acts, out),
        (PatchShape::Rows4Tokens6, 4) => strips::<S, F, 4, 4, 0, 0>(s, rows, acts, out),
        (PatchShape::Rows4Tokens6, 3) => strips::<S, F, 4, 3, 0, 0>(s, rows, acts, out),
        (PatchShape::Rows4Tokens6, 2) => strips::<S, F, 4, 2, 0, 0>(s, rows, acts, out),
        (PatchShape::Rows2Tokens3, 8) => strips::<S, F, 2, 3, 3, 2>(s, rows, acts, out),
        (PatchShape::Rows2Tokens3, 7) => strips::<S, F, 2, 3, 2, 2>(s, rows, acts, out),
        (PatchShape::Rows2Tokens3, 6) => strips::<S, F, 2, 3, 3, 0>(s, rows, acts, out),
        (PatchShape::Rows2Tokens3, 5) => strips::<S, F, 2, 3, 2, 0>(s, rows, acts, out),
        (PatchShape::Rows2Tokens3, 4) => strips::<S, F, 2, 2, 2, 0>(s, rows, acts, out),
        (PatchShape::Rows2Tokens3, 3) => strips::<S, F, 2, 3, 0, 0>(s, rows, acts, out),
        (PatchShape::Rows2Tokens3, 2) => strips::<S, F, 2, 2, 0, 0>(s, rows, acts, out),
        (_, n) => {
            for start in out.columns().step_by(QUAD_ROWS) {
                for t in 0..n {
                    strip::<S, F, QUAD_ROWS, 1>(s, rows, acts, [start, t], out);
                }
            }
        }
    }
}

/// All columns of `out` for `A` tokens, then `B`, then `C`, each with sums in registers. Rows are taken from memory
/// once; for the later tokens they lie in the first-level cache.
#[inline(always)]
fn strips<S: Simd, F: DenseFormat, const R: usize, const A: usize, const B: usize, const C: usize>(
    s: S,
    rows: &PackedRows<'_, F>,
    acts: &ActivationBuffer,
    out: &mut ColumnBlock<'_, f32>,
) {
    for start in out.columns().step_by(R) {
        strip::<S, F, R, A>(s, rows, acts, [start, 0], out);
        if B > 0 {
            strip::<S, F, R, B>(s, rows, acts, [start, A], out);
        }
        if C > 0 {
            strip::<S, F, R, C>(s, rows, acts, [start, A + B], out);
        }
    }
}

/// The columns `start .. start + R` of `out` for the tokens `t .. t + T`; the last row stands for those behind it.
#[inline(always)]
fn strip<S: Simd, F: DenseFormat, const R: usize, const T: usize>(
    s: S,
    rows: &PackedRows<'_, F>,
    acts: &ActivationBuffer,
    [start, t]: [usize; 2],
    out: &mut ColumnBlock<'_, f32>,
) {
    let mut x: [&[[f32; LANES]]; T] = [&[]; T];
    for (j, x) in x.iter_mut().enumerate() {
        *x = acts.lanes(t + j);
    }
    let columns = out.columns();
    let mut which = [0; R];
    for (i, row) in which.iter_mut().enumerate() {
        *row = (start + i).min(columns.end - 1);
    }
    let sums = patch::<S, F, R, T>(s, rows, which, x);
    let width = R.min(columns.end - start);
    for (j, sums) in sums.iter().enumerate() {
        out.row_mut(t + j)[start - columns.start..][..width].copy_from_slice(&sums[..width]);
    }
}

/// The sums of `R` packed rows and `T` tokens, by token.
#[inline(always)]
fn patch<S: Simd, F: DenseFormat, const R: usize, const T: usize>(
    s: S,
    rows: &PackedRows<'_, F>,
    which: [usize; R],
    mut x: [&[[f32; LANES]]; T],
) -> [[f32; R]; T] {
    let mut units: [&[F::Unit]; R] = [&[]; R];
    for (units, &row) in units.iter_mut().zip(&which) {
        *units = F::units(rows.row(row));
    }
    let n_units = units[0].len();
    let step_bytes = R * size_of::<F::Unit>();
    let ahead = PREFETCH_BYTES.max(n_units * step_bytes);
    let has_tail = x[0].len() > n_units * F::GROUPS;
    // One length for all, so that the loop needs no bounds checks.
    for units in &mut units {
        *units = &units[..n_units];
    }
    let mut x_tail: [&[[f32; LANES]]; T] = [&[]; T];
    for (x, tail) in x.iter_mut().zip(&mut x_tail) {
        (*x, *tail) = x.split_at(n_units * F::GROUPS);
    }

    let mut acc = [[s.splat(0.0); R]; T];
    let mut prepared = [F::blank(s); R];
    for u in 0..n_units {
        // As many bytes as this step reads, in the order in which they lie in memory.
        s.prefetch_bytes(&units[0][0], ahead + u * step_bytes, step_bytes);
        let mut now = [&units[0][u]; R];
        for (now, units) in now.iter_mut().zip(units) {
            *now = &units[u];
        }
        F::prepare(s, now, &mut prepared);
        for g in 0..F::GROUPS {
            let mut w = [s.splat(0.0); R];
            for i in 0..R {
                w[i] = F::group(s, &prepared[i], g);
            }
            for j in 0..T {
                let x = s.load(&x[j][u * F::GROUPS + g]);
                for i in 0..R {
                    acc[j][i] = s.fma(w[i], x, acc[j][i]);
                }
            }
        }
    }
    if has_tail {
        for i in 0..R {
            let w = s.load(&F::tail(rows.row(which[i])));
            for j in 0..T {
                acc[j][i] = s.fma(w, s.load(&x_tail[j][0]), acc[j][i]);
            }
        }
    }
    reduced(s, acc)
}
