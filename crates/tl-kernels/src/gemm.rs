//! The dense matrix product: register tiles of rows x tokens, each sum with the lanes and tree of `dot16`.
//!
//! **Invariant:** the sum of a (row, token) pair is one chain of fused multiply-adds per lane, over
//! ascending groups of sixteen, whatever tile it falls into.
//!
//! ```text
//!            tokens ->                 one tile: R x T vectors of sixteen partial sums, in registers
//!   rows   | x0 x1 x2 x3 x4 x5
//!    w0    |  .  .  .  .  .  .         w is read once for T tokens, x once for R rows
//!    w1    |  .  .  .  .  .  .
//! ```
//! With tokens for one tile, the packed weights are converted on their way into it, and fetched from memory ahead
//! of their use in the order in which they lie there. With more, a panel of rows is converted to f32 once (it stays
//! in the second-level cache) and swept by all tokens, 512 columns at a time.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use crate::activation::{ActivationBuffer, LANES};
use crate::aligned::AlignedBuffer;
use crate::format::DenseFormat;
use crate::pool::ColumnBlock;
use crate::vector::{DenseTile, Kernel, Simd};

/// Rows of a tile. The last tile of a matrix repeats its last row and drops the repeats.
pub(crate) const TILE_ROWS: usize = 4;

/// How far ahead of their use packed weights are fetched, at least. The hardware stops at the borders of pages and
/// follows few streams at a time; this covers the latency of memory at 40 bytes per nanosecond.
const PREFETCH_BYTES: usize = 32 << 10;

/// Size of a panel of converted rows: a good part of a second-level cache.
const PANEL_BYTES: usize = 256 << 10;

/// Groups of sixteen columns that a panel is swept by at a time, so that the part of the tokens stays in the first-level
/// cache while all rows pass by.
const SWEEP_GROUPS: usize = 32;

/// What a task must be worth to be started: multiply-adds.
const MIN_TASK_MACS: usize = 1 << 16;

/// Tasks per thread, so that a thread that is held up does not hold up the others for long.
const TASKS_PER_THREAD: usize = 4;

/// Output rows per task for a matrix of `rows` whose rows take `row_macs` multiply-adds each.
pub(crate) fn rows_per_task(rows: usize, row_macs: usize, threads: usize) -> usize {
    if threads == 1 {
        return rows;
    }
    let even = rows.div_ceil(threads * TASKS_PER_THREAD);
    let worthwhile = MIN_TASK_MACS.div_ceil(row_macs.max(1));
    even.max(worthwhile).next_multiple_of(TILE_ROWS)
}

/// Calls `f` with this thread's panel buffer, which is allocated once.
pub(crate) fn with_panel<R>(f: impl FnOnce(&mut AlignedBuffer<f32>) -> R) -> R {
    thread_local! {
        static PANEL: RefCell<AlignedBuffer<f32>> = RefCell::default();
    }
    PANEL.with_borrow_mut(f)
}

/// The product of some rows of a packed matrix with all tokens.
pub(crate) struct DenseProduct<'a, 'b, F: DenseFormat> {
    /// The matrix.
    pub(crate) rows: PackedRows<'a, F>,
    /// The tokens.
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
        if acts.n() <= S::DENSE_TILE.streamed_tokens() {
            stream(s, &rows, acts, &mut out);
        } else {
            panel_product(s, &rows, acts, &mut out, panel);
        }
    }
}

/// A matrix that can be written, row by row, into a panel.
pub(crate) trait PanelSource {
    /// Row `r` as f32, padded with zeros to whole groups.
    fn convert<S: Simd>(&self, s: S, r: usize, out: &mut [[f32; LANES]]);
}

/// Computes all columns of `out` by way of panels of converted rows.
#[inline(always)]
pub(crate) fn panel_product<S: Simd, W: PanelSource>(
    s: S,
    source: &W,
    acts: &ActivationBuffer,
    out: &mut ColumnBlock<'_, f32>,
    panel: &mut AlignedBuffer<f32>,
) {
    let groups = acts.cols().div_ceil(LANES);
    let columns = out.columns();
    let step = panel_rows(groups).min(columns.len().next_multiple_of(TILE_ROWS));
    panel.resize(step * (groups + S::DENSE_TILE.tokens()) * LANES);
    for start in columns.clone().step_by(step) {
        let part = start..columns.end.min(start + step);
        let (lanes, _) = panel.as_mut_slice().as_chunks_mut::<LANES>();
        let (lanes, partial) = lanes.split_at_mut(step * groups);
        for r in part.clone() {
            source.convert(s, r, &mut lanes[(r - start) * groups..][..groups]);
        }
        sweep(s, &Panel { lanes, groups, rows: part }, acts, partial, out);
    }
}

/// Rows that fit into a panel.
fn panel_rows(groups: usize) -> usize {
    let fitting = PANEL_BYTES / (size_of::<[f32; LANES]>() * groups);
    (fitting - fitting % TILE_ROWS).max(TILE_ROWS)
}

/// Rows as they are stored.
#[derive(Clone, Copy)]
pub(crate) struct PackedRows<'a, F> {
    /// All rows, one after the other.
    pub(crate) bytes: &'a [u8],
    /// Bytes per row.
    pub(crate) row_bytes: usize,
    /// Their type.
    pub(crate) format: PhantomData<F>,
}

impl<F> PackedRows<'_, F> {
    #[inline(always)]
    fn row(&self, r: usize) -> &[u8] {
        &self.bytes[r * self.row_bytes..(r + 1) * self.row_bytes]
    }
}

impl<F: DenseFormat> PanelSource for PackedRows<'_, F> {
    #[inline(always)]
    fn convert<S: Simd>(&self, s: S, r: usize, out: &mut [[f32; LANES]]) {
        let units = F::units(self.row(r));
        let (whole, rest) = out.split_at_mut(units.len() * F::GROUPS);
        let mut prepared = [F::blank(s)];
        for (unit, out) in units.iter().zip(whole.chunks_exact_mut(F::GROUPS)) {
            F::prepare(s, [unit], &mut prepared);
            for (g, out) in out.iter_mut().enumerate() {
                s.store(F::group(s, &prepared[0], g), out);
            }
        }
        if let [rest] = rest {
            *rest = F::tail(self.row(r));
        }
    }
}

/// Rows converted to f32, padded with zeros to whole groups.
struct Panel<'a> {
    lanes: &'a [[f32; LANES]],
    groups: usize,
    /// Which rows they are, as columns of the output.
    rows: Range<usize>,
}

impl Panel<'_> {
    /// The groups `span` of the row `i` of the panel; the last row stands for those behind it.
    #[inline(always)]
    fn part(&self, i: usize, span: Range<usize>) -> &[[f32; LANES]] {
        &self.lanes[i.min(self.rows.len() - 1) * self.groups..][span]
    }
}

/// Computes the rows of a panel for all tokens. `partial` has room for the sums of a tile of tokens with every row.
#[inline(always)]
fn sweep<S: Simd>(
    s: S,
    panel: &Panel<'_>,
    acts: &ActivationBuffer,
    partial: &mut [[f32; LANES]],
    out: &mut ColumnBlock<'_, f32>,
) {
    let n = acts.n();
    let mut t = 0;
    while t < n {
        // Even tiles: a few full ones and a thin rest would read all rows for the rest alone.
        let width = (n - t).div_ceil((n - t).div_ceil(S::DENSE_TILE.tokens()));
        match (S::DENSE_TILE, width) {
            (DenseTile::Rows4Tokens6, 6) => panel_strip::<S, 4, 6>(s, panel, acts, t, partial, out),
            (DenseTile::Rows4Tokens6, 5) => panel_strip::<S, 4, 5>(s, panel, acts, t, partial, out),
            (DenseTile::Rows4Tokens6, 4) => panel_strip::<S, 4, 4>(s, panel, acts, t, partial, out),
            (DenseTile::Rows4Tokens6, 3) => panel_strip::<S, 4, 3>(s, panel, acts, t, partial, out),
            (DenseTile::Rows2Tokens3, 3) => panel_strip::<S, 2, 3>(s, panel, acts, t, partial, out),
            (DenseTile::Rows2Tokens3, 2) => panel_strip::<S, 2, 2>(s, panel, acts, t, partial, out),
            (_, width) => {
                for t in t..t + width {
                    panel_strip::<S, TILE_ROWS, 1>(s, panel, acts, t, partial, out);
                }
            }
        }
        t += width;
    }
}

/// All rows of a panel for the tokens `t .. t + T`, some columns of the tokens after the other. Between them the lanes
/// of each sum wait in `partial`.
#[inline(always)]
fn panel_strip<S: Simd, const R: usize, const T: usize>(
    s: S,
    panel: &Panel<'_>,
    acts: &ActivationBuffer,
    t: usize,
    partial: &mut [[f32; LANES]],
    out: &mut ColumnBlock<'_, f32>,
) {
    let first = panel.rows.start - out.columns().start;
    for from in (0..panel.groups).step_by(SWEEP_GROUPS) {
        let span = from..panel.groups.min(from + SWEEP_GROUPS);
        let mut x: [&[[f32; LANES]]; T] = [&[]; T];
        for (j, x) in x.iter_mut().enumerate() {
            *x = &acts.lanes(t + j)[span.clone()];
        }
        for (start, sums) in (0..panel.rows.len()).step_by(R).zip(partial.chunks_exact_mut(R * T)) {
            let mut w: [&[[f32; LANES]]; R] = [&[]; R];
            for (i, w) in w.iter_mut().enumerate() {
                *w = panel.part(start + i, span.clone());
            }
            let mut acc = [[s.splat(0.0); R]; T];
            if from > 0 {
                for j in 0..T {
                    for i in 0..R {
                        acc[j][i] = s.load(&sums[j * R + i]);
                    }
                }
            }
            add_products(s, w, x, &mut acc);
            if span.end < panel.groups {
                for j in 0..T {
                    for i in 0..R {
                        s.store(acc[j][i], &mut sums[j * R + i]);
                    }
                }
                continue;
            }
            let width = R.min(panel.rows.len() - start);
            for (j, sums) in reduced(s, acc).iter().enumerate() {
                out.row_mut(t + j)[first + start..][..width].copy_from_slice(&sums[..width]);
            }
        }
    }
}

/// Adds the products of `R` rows and `T` tokens to their lanes. All slices have one length.
#[inline(always)]
fn add_products<S: Simd, const R: usize, const T: usize>(
    s: S,
    w: [&[[f32; LANES]]; R],
    x: [&[[f32; LANES]]; T],
    acc: &mut [[S::F; R]; T],
) {
    let n = w[0].len();
    // Told once that all are as long, so that the loop needs no bounds checks.
    let (mut w, mut x) = (w, x);
    for w in &mut w {
        *w = &w[..n];
    }
    for x in &mut x {
        *x = &x[..n];
    }
    let mut sums = *acc;
    for g in 0..n {
        let mut weights = [s.splat(0.0); R];
        for i in 0..R {
            weights[i] = s.load(&w[i][g]);
        }
        for j in 0..T {
            let x = s.load(&x[j][g]);
            for i in 0..R {
                sums[j][i] = s.fma(weights[i], x, sums[j][i]);
            }
        }
    }
    *acc = sums;
}

/// The sum of the lanes of each.
#[inline(always)]
pub(crate) fn reduced<S: Simd, const R: usize, const T: usize>(s: S, acc: [[S::F; R]; T]) -> [[f32; R]; T] {
    let mut sums = [[0.0; R]; T];
    for j in 0..T {
        if let (&[a, b, c, d], [sums]) = (acc[j].as_slice(), sums[j].as_chunks_mut::<4>().0) {
            *sums = s.reduce4([a, b, c, d]);
            continue;
        }
        for i in 0..R {
            sums[j][i] = s.reduce(acc[j][i]);
        }
    }
    sums
}

/// Computes all columns of `out` from packed rows, for at most [`DenseTile::streamed_tokens`].
#[inline(always)]
fn stream<S: Simd, F: DenseFormat>(
    s: S,
    rows: &PackedRows<'_, F>,
    acts: &ActivationBuffer,
    out: &mut ColumnBlock<'_, f32>,
) {
    match (S::DENSE_TILE, acts.n()) {
        (DenseTile::Rows4Tokens6, 4) => strip::<S, F, 4, 4>(s, rows, acts, 0, out),
        (DenseTile::Rows4Tokens6, 3) => strip::<S, F, 4, 3>(s, rows, acts, 0, out),
        (DenseTile::Rows4Tokens6, 2) => strip::<S, F, 4, 2>(s, rows, acts, 0, out),
        (DenseTile::Rows2Tokens3, 3) => strip::<S, F, 2, 3>(s, rows, acts, 0, out),
        (DenseTile::Rows2Tokens3, 2) => strip::<S, F, 2, 2>(s, rows, acts, 0, out),
        (_, n) => {
            for t in 0..n {
                strip::<S, F, TILE_ROWS, 1>(s, rows, acts, t, out);
            }
        }
    }
}

/// All columns of `out` for the tokens `t .. t + T`.
#[inline(always)]
fn strip<S: Simd, F: DenseFormat, const R: usize, const T: usize>(
    s: S,
    rows: &PackedRows<'_, F>,
    acts: &ActivationBuffer,
    t: usize,
    out: &mut ColumnBlock<'_, f32>,
) {
    let mut x: [&[[f32; LANES]]; T] = [&[]; T];
    for (j, x) in x.iter_mut().enumerate() {
        *x = acts.lanes(t + j);
    }
    let columns = out.columns();
    for start in columns.clone().step_by(R) {
        let mut which = [0; R];
        for (i, row) in which.iter_mut().enumerate() {
            *row = (start + i).min(columns.end - 1);
        }
        let sums = tile::<S, F, R, T>(s, rows, which, x);
        let width = R.min(columns.end - start);
        for (j, sums) in sums.iter().enumerate() {
            out.row_mut(t + j)[start - columns.start..][..width].copy_from_slice(&sums[..width]);
        }
    }
}

/// The sums of `R` packed rows and `T` tokens, by token.
#[inline(always)]
fn tile<S: Simd, F: DenseFormat, const R: usize, const T: usize>(
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
        for line in (0..step_bytes).step_by(64) {
            s.prefetch_far(&units[0][0], ahead + u * step_bytes + line);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_worthwhile_and_whole_tiles() {
        assert_eq!(rows_per_task(100, 10, 1), 100);
        assert_eq!(rows_per_task(2048, 2048, 2), 256);
        assert!(rows_per_task(64, 8, 8) >= 64, "too small to share out");
        assert_eq!(rows_per_task(1001, 1 << 20, 3) % TILE_ROWS, 0);
    }

    #[test]
    fn panels_hold_whole_tiles() {
        assert_eq!(panel_rows(128), 32);
        assert_eq!(panel_rows(1 << 20), TILE_ROWS);
        assert_eq!(panel_rows(1) % TILE_ROWS, 0);
    }
}
