//! Products by panels: rows are converted to f32 once, and all tokens are multiplied with them.

use std::cell::RefCell;
use std::ops::Range;

use super::rows::PanelSource;
use crate::activations::ActivationBuffer;
use crate::memory::AlignedBuffer;
use crate::pool::ColumnBlock;
use crate::simd::{LANES, PatchShape, QUAD_ROWS, Simd};

/// Size of a panel of converted rows: it fits a second-level cache beside other data.
const PANEL_BYTES: usize = 256 << 10;

/// Groups of sixteen columns that are multiplied at a time, so that this part of the tokens stays in the first-level
/// cache while all rows of the panel pass by.
const SWEEP_GROUPS: usize = 32;

/// Calls `f` with this thread's panel buffer, which is allocated once.
pub(crate) fn with_panel<R>(f: impl FnOnce(&mut AlignedBuffer<f32>) -> R) -> R {
    thread_local! {
        static PANEL: RefCell<AlignedBuffer<f32>> = RefCell::default();
    }
    PANEL.with_borrow_mut(f)
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
    let step = panel_rows(groups).min(columns.len().next_multiple_of(QUAD_ROWS));
    panel.resize(step * (groups + S::PATCH.tokens()) * LANES);
    for start in columns.clone().step_by(step) {
        let part = start..columns.end.min(start + step);
        let (lanes, _) = panel.as_mut_slice().as_chunks_mut::<LANES>();
        let (lanes, partial) = lanes.split_at_mut(step * groups);
        for r in part.clone() {
            source.convert(s, r, &mut lanes[(r - start) * groups..][..groups]);
        }
        sweep(s, &Panel { lanes, groups, rows: part, acts }, partial, out);
    }
}

/// Rows that fit into a panel.
fn panel_rows(groups: usize) -> usize {
    let fitting = PANEL_BYTES / (size_of::<[f32; LANES]>() * groups);
    (fitting - fitting % QUAD_ROWS).max(QUAD_ROWS)
}

/// Rows converted to f32, padded with zeros to whole groups.
struct Panel<'a> {
    lanes: &'a [[f32; LANES]],
    groups: usize,
    /// Which rows they are, as columns of the output.
    rows: Range<usize>,
    /// The tokens that they are multiplied with.
    acts: &'a ActivationBuffer,
}

impl Panel<'_> {
    /// The groups `groups` of the row `i` of the panel; the last row stands for those behind it.
    #[inline(always)]
    fn part(&self, i: usize, groups: Range<usize>) -> &[[f32; LANES]] {
        &self.lanes[i.min(self.rows.len() - 1) * self.groups..][groups]
    }
}

/// Computes the rows of a panel for all tokens. `partial` has room for the sums of every row with the tokens of a patch.
#[inline(always)]
fn sweep<S: Simd>(s: S, panel: &Panel<'_>, partial: &mut [[f32; LANES]], out: &mut ColumnBlock<'_, f32>) {
    let n = panel.acts.n();
    let mut t = 0;
    while t < n {
        // Strips of equal width: a thin last strip would read all rows for a few tokens.
        let width = (n - t).div_ceil((n - t).div_ceil(S::PATCH.tokens()));
        match (S::PATCH, width) {
            (PatchShape::Rows4Tokens6, 6) => panel_strip::<S, 4, 6>(s, panel, t, partial, out),
            (PatchShape::Rows4Tokens6, 5) => panel_strip::<S, 4, 5>(s, panel, t, partial, out),
            (PatchShape::Rows4Tokens6, 4) => panel_strip::<S, 4, 4>(s, panel, t, partial, out),
            (PatchShape::Rows4Tokens6, 3) => panel_strip::<S, 4, 3>(s, panel, t, partial, out),
            (PatchShape::Rows2Tokens3, 3) => panel_strip::<S, 2, 3>(s, panel, t, partial, out),
            (PatchShape::Rows2Tokens3, 2) => panel_strip::<S, 2, 2>(s, panel, t, partial, out),
            (_, width) => {
                for t in t..t + width {
                    panel_strip::<S, QUAD_ROWS, 1>(s, panel, t, partial, out);
                }
            }
        }
        t += width;
    }
}

/// All rows of a panel for the tokens `t .. t + T`, one part of the columns after the other. From part to part the lanes
/// of each sum are kept in `partial`.
#[inline(always)]
fn panel_strip<S: Simd, const R: usize, const T: usize>(
    s: S,
    panel: &Panel<'_>,
    t: usize,
    partial: &mut [[f32; LANES]],
    out: &mut ColumnBlock<'_, f32>,
) {
    let first = panel.rows.start - out.columns().start;
    for from in (0..panel.groups).step_by(SWEEP_GROUPS) {
        let groups = from..panel.groups.min(from + SWEEP_GROUPS);
        let mut x: [&[[f32; LANES]]; T] = [&[]; T];
        for (j, x) in x.iter_mut().enumerate() {
            *x = &panel.acts.lanes(t + j)[groups.clone()];
        }
        for (start, sums) in (0..panel.rows.len()).step_by(R).zip(partial.chunks_exact_mut(R * T)) {
            let mut w: [&[[f32; LANES]]; R] = [&[]; R];
            for (i, w) in w.iter_mut().enumerate() {
                *w = panel.part(start + i, groups.clone());
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
            if groups.end < panel.groups {
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
    // One length for all, so that the loop needs no bounds checks.
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

/// The sum of the lanes of each vector.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_hold_whole_tiles() {
        assert_eq!(panel_rows(128), 32);
        assert_eq!(panel_rows(1 << 20), QUAD_ROWS);
        assert_eq!(panel_rows(1) % QUAD_ROWS, 0);
    }
}
