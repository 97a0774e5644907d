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
//! With few tokens the packed weights are converted on their way into the tile. With many, a panel of rows
//! is converted to f32 once (it stays in the second-level cache) and swept by all tokens.

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

/// From this many tokens on, packed weights are converted to f32 once instead of once per tile.
const PANEL_TOKENS: usize = 4;

/// Size of a panel of converted rows: a good part of a second-level cache.
const PANEL_BYTES: usize = 256 << 10;

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
        if acts.n() < PANEL_TOKENS {
            let all = out.columns();
            for t in 0..acts.n() {
                strip::<S, _, TILE_ROWS, 1>(s, &rows, acts, t, all.clone(), 0, &mut out);
            }
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
    let step = panel_rows(groups).min(columns.len());
    panel.resize(step * groups * LANES);
    for start in columns.clone().step_by(step) {
        let part = start..columns.end.min(start + step);
        let (lanes, _) = panel.as_mut_slice().as_chunks_mut::<LANES>();
        for r in part.clone() {
            source.convert(s, r, &mut lanes[(r - start) * groups..][..groups]);
        }
        sweep(s, &PanelRows { lanes, groups }, acts, part, start, out);
    }
}

/// Rows that fit into a panel.
fn panel_rows(groups: usize) -> usize {
    let fitting = PANEL_BYTES / (size_of::<[f32; LANES]>() * groups);
    (fitting - fitting % TILE_ROWS).max(TILE_ROWS)
}

/// Rows that can be read in groups of sixteen.
trait WeightRows {
    /// What a row is made of.
    type Unit: Copy;
    /// A unit on its way to f32.
    type Prepared<'a, S: Simd>: Copy;
    /// Groups of sixteen weights per unit.
    const GROUPS: usize;
    /// The whole units of row `r`.
    fn units(&self, r: usize) -> &[Self::Unit];
    /// Works out what the groups of a unit share.
    fn prepare<S: Simd>(s: S, unit: &Self::Unit) -> Self::Prepared<'_, S>;
    /// Group `g` of a unit.
    fn group<S: Simd>(s: S, unit: &Self::Prepared<'_, S>, g: usize) -> S::F;
    /// What lies behind the whole units of row `r`, padded with zeros to a group.
    fn tail(&self, r: usize) -> [f32; LANES];
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

impl<F: DenseFormat> WeightRows for PackedRows<'_, F> {
    type Unit = F::Unit;
    type Prepared<'a, S: Simd> = F::Prepared<'a, S>;
    const GROUPS: usize = F::GROUPS;

    #[inline(always)]
    fn units(&self, r: usize) -> &[F::Unit] {
        F::units(self.row(r))
    }
    #[inline(always)]
    fn prepare<S: Simd>(s: S, unit: &F::Unit) -> F::Prepared<'_, S> {
        F::prepare(s, unit)
    }
    #[inline(always)]
    fn group<S: Simd>(s: S, unit: &F::Prepared<'_, S>, g: usize) -> S::F {
        F::group(s, unit, g)
    }
    #[inline(always)]
    fn tail(&self, r: usize) -> [f32; LANES] {
        F::tail(self.row(r))
    }
}

impl<F: DenseFormat> PanelSource for PackedRows<'_, F> {
    #[inline(always)]
    fn convert<S: Simd>(&self, s: S, r: usize, out: &mut [[f32; LANES]]) {
        let units = self.units(r);
        let (whole, rest) = out.split_at_mut(units.len() * F::GROUPS);
        for (unit, out) in units.iter().zip(whole.chunks_exact_mut(F::GROUPS)) {
            let unit = F::prepare(s, unit);
            for (g, out) in out.iter_mut().enumerate() {
                s.store(F::group(s, &unit, g), out);
            }
        }
        if let [rest] = rest {
            *rest = self.tail(r);
        }
    }
}

/// Rows converted to f32, padded with zeros to whole groups. Row 0 of the panel is row 0 here.
struct PanelRows<'a> {
    lanes: &'a [[f32; LANES]],
    groups: usize,
}

impl WeightRows for PanelRows<'_> {
    type Unit = [f32; LANES];
    type Prepared<'a, S: Simd> = &'a [f32; LANES];
    const GROUPS: usize = 1;

    #[inline(always)]
    fn units(&self, r: usize) -> &[[f32; LANES]] {
        &self.lanes[r * self.groups..(r + 1) * self.groups]
    }
    #[inline(always)]
    fn prepare<S: Simd>(_s: S, unit: &[f32; LANES]) -> &[f32; LANES] {
        unit
    }
    #[inline(always)]
    fn group<S: Simd>(s: S, unit: &&[f32; LANES], _g: usize) -> S::F {
        s.load(unit)
    }
    #[inline(always)]
    fn tail(&self, _r: usize) -> [f32; LANES] {
        [0.0; LANES]
    }
}

/// Computes the columns `part` of `out`; column c is row `c - first` of `rows`.
#[inline(always)]
fn sweep<S: Simd, W: WeightRows>(
    s: S,
    rows: &W,
    acts: &ActivationBuffer,
    part: Range<usize>,
    first: usize,
    out: &mut ColumnBlock<'_, f32>,
) {
    let n = acts.n();
    let mut t = 0;
    match S::DENSE_TILE {
        DenseTile::Rows4Tokens6 => {
            while n - t >= 6 {
                strip::<S, W, 4, 6>(s, rows, acts, t, part.clone(), first, out);
                t += 6;
            }
        }
        DenseTile::Rows2Tokens3 => {
            while n - t >= 3 {
                strip::<S, W, 2, 3>(s, rows, acts, t, part.clone(), first, out);
                t += 3;
            }
        }
        DenseTile::Rows4Tokens1 => {}
    }
    while t < n {
        strip::<S, W, TILE_ROWS, 1>(s, rows, acts, t, part.clone(), first, out);
        t += 1;
    }
}

/// All rows of `part` for the tokens `t .. t + T`.
#[inline(always)]
fn strip<S: Simd, W: WeightRows, const R: usize, const T: usize>(
    s: S,
    rows: &W,
    acts: &ActivationBuffer,
    t: usize,
    part: Range<usize>,
    first: usize,
    out: &mut ColumnBlock<'_, f32>,
) {
    let mut x: [&[[f32; LANES]]; T] = [&[]; T];
    for (j, x) in x.iter_mut().enumerate() {
        *x = acts.lanes(t + j);
    }
    let block_start = out.columns().start;
    for start in part.clone().step_by(R) {
        let mut which = [0; R];
        for (i, row) in which.iter_mut().enumerate() {
            *row = (start + i).min(part.end - 1) - first;
        }
        let sums = tile::<S, W, R, T>(s, rows, which, x);
        let width = R.min(part.end - start);
        for (j, sums) in sums.iter().enumerate() {
            out.row_mut(t + j)[start - block_start..][..width].copy_from_slice(&sums[..width]);
        }
    }
}

/// The sums of `R` rows and `T` tokens, by token.
#[inline(always)]
fn tile<S: Simd, W: WeightRows, const R: usize, const T: usize>(
    s: S,
    rows: &W,
    which: [usize; R],
    mut x: [&[[f32; LANES]]; T],
) -> [[f32; R]; T] {
    let mut units: [&[W::Unit]; R] = [&[]; R];
    for (units, &row) in units.iter_mut().zip(&which) {
        *units = rows.units(row);
    }
    let n_units = units[0].len();
    let next_tile = R * size_of_val(units[0]);
    let has_tail = x[0].len() > n_units * W::GROUPS;
    // One length for all, so that the loop needs no bounds checks.
    for units in &mut units {
        *units = &units[..n_units];
    }
    let mut x_tail: [&[[f32; LANES]]; T] = [&[]; T];
    for (x, tail) in x.iter_mut().zip(&mut x_tail) {
        (*x, *tail) = x.split_at(n_units * W::GROUPS);
    }

    let mut acc = [[s.splat(0.0); R]; T];
    for u in 0..n_units {
        if T == 1 && size_of::<W::Unit>() > 32 {
            // Packed rows are short: the hardware does not see the next tile coming.
            for units in units {
                for line in (0..size_of::<W::Unit>()).step_by(64) {
                    s.prefetch(&units[u], next_tile + line);
                }
            }
        }
        let mut prepared = [W::prepare(s, &units[0][u]); R];
        for i in 1..R {
            prepared[i] = W::prepare(s, &units[i][u]);
        }
        for g in 0..W::GROUPS {
            let mut w = [s.splat(0.0); R];
            for i in 0..R {
                w[i] = W::group(s, &prepared[i], g);
            }
            for j in 0..T {
                let x = s.load(&x[j][u * W::GROUPS + g]);
                for i in 0..R {
                    acc[j][i] = s.fma(w[i], x, acc[j][i]);
                }
            }
        }
    }
    if has_tail {
        for i in 0..R {
            let w = s.load(&rows.tail(which[i]));
            for j in 0..T {
                acc[j][i] = s.fma(w, s.load(&x_tail[j][0]), acc[j][i]);
            }
        }
    }
    let mut sums = [[0.0; R]; T];
    for j in 0..T {
        for i in 0..R {
            sums[j][i] = s.reduce(acc[j][i]);
        }
    }
    sums
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
