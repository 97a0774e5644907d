//! The decomposition `H = U D U'` in F64, a panel of positions at a time from the last to the first.
//!
//! ```text
//!            before          panel                 1. the triangle of the panel, one position after the other
//!        +----------------+                        2. its columns before the panel, some on each thread
//!  rest  |  a -= f u      |                        3. what all its positions take from the rest: some rows on each thread
//!        +----------------+-------+
//!  panel |  2.            | 1.    |                f_ik = u_ik d_k
//!        +----------------+-------+
//! ```
//!
//! **Invariant:** every number is reduced by the positions behind it in descending order, one subtraction each, however the
//! work is cut: bits depend neither on threads nor on the instruction set.

use tl_kernels::Pool;

/// Positions of a panel.
pub(super) const PANEL: usize = 128;
/// Columns that a thread takes at a time in step 2.
const COLUMNS: usize = 256;
/// Rows that a thread takes at a time in step 3.
const ROWS: usize = 32;
/// Columns of the panel that are copied side by side in step 3, so that they stay in the first-level cache.
const STRIP: usize = 32;
/// Numbers that are reduced in registers.
const LANES: usize = 8;

/// Replaces row k of the symmetric `a` `[n, n]` by `u_jk` for j < k, and returns D `[n]`; `None` when `a` is not positive
/// definite.
pub(super) fn decompose(pool: &Pool, a: &mut [f64], n: usize) -> Option<Vec<f64>> {
    let mut d = vec![0.0; n];
    for start in (0..n).step_by(PANEL).rev() {
        let width = PANEL.min(n - start);
        let (rest, panel) = a[..(start + width) * n].split_at_mut(start * n);
        let d = &mut d[start..][..width];
        factor_triangle(panel, n, start, d)?;
        solve_before(pool, panel, n, start, d);
        subtract_panel(pool, rest, panel, n, d);
    }
    Some(d)
}

/// Step 1: the panel's own columns, from `start` on.
fn factor_triangle(panel: &mut [f64], n: usize, start: usize, d: &mut [f64]) -> Option<()> {
    for k in (0..d.len()).rev() {
        let (others, row) = panel.split_at_mut(k * n);
        let row = &mut row[start..][..=k];
        let pivot = row[k];
        if !(pivot > 0.0 && pivot.is_finite()) {
            return None;
        }
        d[k] = pivot;
        let inverse = 1.0 / pivot;
        row[..k].iter_mut().for_each(|u| *u *= inverse);
        for (i, upper) in others.chunks_exact_mut(n).enumerate() {
            subtract(&mut upper[start..][..=i], row[i] * pivot, &row[..=i]);
        }
    }
    Some(())
}

/// Step 2: the columns in front of the panel.
fn solve_before(pool: &Pool, panel: &mut [f64], n: usize, start: usize, d: &[f64]) {
    let width = d.len();
    let mut factors = vec![0.0; width * width];
    for (k, factors) in factors.chunks_exact_mut(width).enumerate() {
        let row = &panel[k * n + start..][..k];
        factors.iter_mut().zip(row).for_each(|(factor, u)| *factor = u * d[k]);
    }
    pool.column_blocks(panel, n, COLUMNS, |mut cell| {
        let columns = cell.columns();
        let len = columns.end.min(start).saturating_sub(columns.start);
        let mut own = vec![0.0; len];
        for k in (0..width).rev() {
            let inverse = 1.0 / d[k];
            let row = &mut cell.row_mut(k)[..len];
            row.iter_mut().for_each(|u| *u *= inverse);
            own.copy_from_slice(row);
            for i in 0..k {
                subtract(&mut cell.row_mut(i)[..len], factors[k * width + i], &own);
            }
        }
    });
}

/// Step 3: the rows in front of the panel, up to their diagonals.
fn subtract_panel(pool: &Pool, rest: &mut [f64], panel: &[f64], n: usize, d: &[f64]) {
    pool.chunks_mut(rest, ROWS * n, |task, rows| {
        let first = task * ROWS;
        let count = rows.len() / n;
        let mut factors = vec![[0.0; PANEL]; count];
        for (k, (panel, d)) in panel.chunks_exact(n).zip(d).enumerate() {
            let row = &panel[first..][..count];
            factors.iter_mut().zip(row).for_each(|(factors, u)| factors[k] = u * d);
        }
        let mut strip = vec![[0.0; STRIP]; d.len()];
        for from in (0..first + count).step_by(STRIP) {
            let len = STRIP.min(first + count - from);
            for (strip, panel) in strip.iter_mut().zip(panel.chunks_exact(n)) {
                strip[..len].copy_from_slice(&panel[from..][..len]);
            }
            for (row, factors) in rows.chunks_exact_mut(n).zip(&factors) {
                for (at, values) in row[from..][..len].chunks_mut(LANES).enumerate() {
                    reduce(values, &strip, at * LANES, factors);
                }
            }
        }
    });
}

/// Subtracts from up to eight numbers what the panel's positions take from them: `strip[k][at..]` times `factors[k]`.
fn reduce(values: &mut [f64], strip: &[[f64; STRIP]], at: usize, factors: &[f64; PANEL]) {
    let mut sums = [0.0; LANES];
    sums[..values.len()].copy_from_slice(values);
    for (row, factor) in strip.iter().zip(factors).rev() {
        let row: &[f64; LANES] = row[at..].first_chunk().expect("a strip holds whole groups");
        for (sum, u) in sums.iter_mut().zip(row) {
            *sum -= factor * u;
        }
    }
    values.copy_from_slice(&sums[..values.len()]);
}

fn subtract(values: &mut [f64], factor: f64, row: &[f64]) {
    values.iter_mut().zip(row).for_each(|(value, u)| *value -= factor * u);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptq::samples::Samples;

    #[test]
    fn panels_give_the_bits_of_one_position_after_the_other_on_any_number_of_threads() {
        for n in [24, PANEL, 2 * PANEL + 41] {
            let hessian = Samples::new(n, 4).hessian;
            let mut plain = hessian.clone();
            let mut pivots = vec![0.0; n];
            for k in (0..n).rev() {
                pivots[k] = plain[k * n + k];
                (0..k).for_each(|j| plain[k * n + j] *= 1.0 / pivots[k]);
                for i in 0..k {
                    let factor = plain[k * n + i] * pivots[k];
                    (0..=i).for_each(|j| plain[i * n + j] -= factor * plain[k * n + j]);
                }
            }
            for threads in [1, 3] {
                let mut a = hessian.clone();
                assert_eq!(decompose(&Pool::new(threads).unwrap(), &mut a, n).unwrap(), pivots);
                for k in 0..n {
                    assert!(a[k * n..][..k] == plain[k * n..][..k], "row {k} of {n}, {threads} threads");
                }
            }
        }
    }
}
