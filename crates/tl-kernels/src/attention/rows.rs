//! Many vectors against the rows of a table: the two products of attention over a span of cached positions.
//!
//! ```text
//! dots           out[q][j]  = dot16(query q, row j)
//! weighted_sums  acc[q][i]  = fma(p[q][j], row j [i], acc[q][i])       j ascending
//!
//!            queries ->            one patch of `dots`: the rows are widened once for its queries
//!   rows   | .  .  .  .  .  .
//!          | .  .  .  .  .  .      `weighted_sums` has groups of sixteen columns in the place of the rows
//! ```
//!
//! **Invariant:** the bits are those of [`dense::dot_f32`](crate::dense::dot_f32) and
//! [`dense::axpy_f32`](crate::dense::axpy_f32) query by query and row by row, on every level.
//!
//! ```
//! use tl_kernels::rows::{Table, dots, weighted_sums};
//! // Two rows of two values, three apart; one query.
//! let table = Table::new(&[1.0, 2.0, 0.0, 3.0, 4.0], 2, 2, 3);
//! let mut products = [0.0; 2];
//! dots(Table::new(&[1.0, 10.0], 1, 2, 2), table, &mut products);
//! assert_eq!(products, [21.0, 43.0]);
//! let mut acc = [0.5, 0.5];
//! weighted_sums(Table::new(&[2.0, 1.0], 1, 2, 2), table, &mut acc);
//! assert_eq!(acc, [5.5, 8.5]);
//! ```

use super::dense::dot_rest;
pub use super::value::Value;
use crate::arch::{Isa, Level};
use crate::error::Result;
use crate::simd::{Kernel, LANES, PatchShape, Simd, fma};

/// Bytes by which the rows of a table are fetched ahead of their use.
const PREFETCH_BYTES: usize = 16 << 10;

/// `rows` rows of `width` values, of which row j begins at `values[j * stride]`.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a, T> {
    values: &'a [T],
    rows: usize,
    width: usize,
    stride: usize,
}

impl<'a, T> Table<'a, T> {
    /// A view of `values`.
    ///
    /// # Panics
    /// If the values end before the last row does.
    #[must_use]
    pub fn new(values: &'a [T], rows: usize, width: usize, stride: usize) -> Table<'a, T> {
        let needed = rows.checked_sub(1).map_or(Some(0), |last| last.checked_mul(stride)?.checked_add(width));
        assert!(needed.is_some_and(|needed| needed <= values.len()), "the table ends before its last row");
        Table { values, rows, width, stride }
    }

    /// Number of rows in the table.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of values in a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Row `j`.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    #[inline(always)]
    pub fn row(&self, j: usize) -> &'a [T] {
        assert!(j < self.rows, "row {j} of {}", self.rows);
        &self.values[j * self.stride..][..self.width]
    }
}

/// `out[q][j] = dot16(query q, row j widened)`; `out` is `[queries, rows]`.
///
/// # Panics
/// If the widths differ or `out` has another length.
pub fn dots<T: Value>(queries: Table<'_, f32>, table: Table<'_, T>, out: &mut [f32]) {
    dots_at(Level::current(), queries, table, out);
}

/// `acc[q][i] = fma(p[q][j], row j [i] widened, acc[q][i])` for every row j, in order; `acc` is `[weights, width]`.
///
/// # Panics
/// If there is not one weight per row, or `acc` has another length.
pub fn weighted_sums<T: Value>(p: Table<'_, f32>, table: Table<'_, T>, acc: &mut [f32]) {
    weighted_sums_at(Level::current(), p, table, acc);
}

/// As [`dots`], on a given level: for tests and benchmarks.
///
/// # Errors
/// [`crate::Error::UnsupportedIsa`].
pub fn dots_on<T: Value>(isa: Isa, queries: Table<'_, f32>, table: Table<'_, T>, out: &mut [f32]) -> Result<()> {
    dots_at(isa.level()?, queries, table, out);
    Ok(())
}

/// As [`weighted_sums`], on a given level: for tests and benchmarks.
///
/// # Errors
/// [`crate::Error::UnsupportedIsa`].
pub fn weighted_sums_on<T: Value>(isa: Isa, p: Table<'_, f32>, table: Table<'_, T>, acc: &mut [f32]) -> Result<()> {
    weighted_sums_at(isa.level()?, p, table, acc);
    Ok(())
}

fn dots_at<T: Value>(level: Level, queries: Table<'_, f32>, table: Table<'_, T>, out: &mut [f32]) {
    assert_eq!(queries.width, table.width, "queries and rows must be of one width");
    assert_eq!(out.len(), queries.rows * table.rows, "the output must be [queries, rows]");
    level.run(Dots { queries, table, out });
}

fn weighted_sums_at<T: Value>(level: Level, p: Table<'_, f32>, table: Table<'_, T>, acc: &mut [f32]) {
    assert_eq!(p.width, table.rows, "there must be one weight per row");
    assert_eq!(acc.len(), p.rows * table.width, "the sums must be [weights, width]");
    level.run(WeightedSums { p, table, acc });
}

/// Width of the next patch, so that `left` queries are split as evenly as possible.
#[inline(always)]
fn next_width(left: usize, most: usize) -> usize {
    left.div_ceil(left.div_ceil(most))
}

struct Dots<'a, T> {
    queries: Table<'a, f32>,
    table: Table<'a, T>,
    out: &'a mut [f32],
}

impl<T: Value> Kernel for Dots<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let mut q = 0;
        while q < self.queries.rows {
            let width = next_width(self.queries.rows - q, S::PATCH.tokens());
            match (S::PATCH, width) {
                (PatchShape::Rows4Tokens6, 6) => self.strip::<S, 4, 6>(s, q),
                (PatchShape::Rows4Tokens6, 5) => self.strip::<S, 4, 5>(s, q),
                (PatchShape::Rows4Tokens6, 4) => self.strip::<S, 4, 4>(s, q),
                (PatchShape::Rows4Tokens6, 3) => self.strip::<S, 4, 3>(s, q),
                (PatchShape::Rows4Tokens6, 2) => self.strip::<S, 4, 2>(s, q),
                (PatchShape::Rows2Tokens3, 3) => self.strip::<S, 2, 3>(s, q),
                (PatchShape::Rows2Tokens3, 2) => self.strip::<S, 2, 2>(s, q),
                _ => self.strip::<S, 4, 1>(s, q),
            }
            q += width;
        }
    }
}

impl<T: Value> Dots<'_, T> {
    /// All rows for the queries `q .. q + Q`.
    #[inline(always)]
    fn strip<S: Simd, const R: usize, const Q: usize>(&mut self, s: S, q: usize) {
        let mut x: [&[f32]; Q] = [&[]; Q];
        for (j, x) in x.iter_mut().enumerate() {
            *x = self.queries.row(q + j);
        }
        let n_rows = self.table.rows;
        for start in (0..n_rows).step_by(R) {
            // The last patch repeats its last row and drops the repeats.
            let mut rows: [&[T]; R] = [&[]; R];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = self.table.row((start + i).min(n_rows - 1));
            }
            let sums = dot_patch(s, rows, x, q == 0);
            let width = R.min(n_rows - start);
            for (j, sums) in sums.iter().enumerate() {
                self.out[(q + j) * n_rows + start..][..width].copy_from_slice(&sums[..width]);
            }
        }
    }
}

/// The dot products of `R` rows and `Q` queries of one width, by query.
#[inline(always)]
fn dot_patch<S: Simd, T: Value, const R: usize, const Q: usize>(
    s: S,
    rows: [&[T]; R],
    x: [&[f32]; Q],
    first: bool,
) -> [[f32; R]; Q] {
    let n_groups = x[0].len() / LANES;
    // One length for all, so that the loop needs no bounds checks.
    let mut row_groups: [&[[T; LANES]]; R] = [&[]; R];
    let mut row_rest: [&[T]; R] = [&[]; R];
    for i in 0..R {
        let (groups, rest) = rows[i].as_chunks();
        (row_groups[i], row_rest[i]) = (&groups[..n_groups], rest);
    }
    let mut x_groups: [&[[f32; LANES]]; Q] = [&[]; Q];
    let mut x_rest: [&[f32]; Q] = [&[]; Q];
    for j in 0..Q {
        let (groups, rest) = x[j].as_chunks();
        (x_groups[j], x_rest[j]) = (&groups[..n_groups], rest);
    }
    let mut acc = [[s.splat(0.0); R]; Q];
    for g in 0..n_groups {
        if first {
            let step = R * size_of::<[T; LANES]>();
            s.prefetch_bytes(&row_groups[0][0], PREFETCH_BYTES + g * step, step);
        }
        let mut w = [s.splat(0.0); R];
        for i in 0..R {
            w[i] = T::load(s, &row_groups[i][g]);
        }
        for j in 0..Q {
            let x = s.load(&x_groups[j][g]);
            for i in 0..R {
                acc[j][i] = s.fma(w[i], x, acc[j][i]);
            }
        }
    }
    let mut sums = [[0.0; R]; Q];
    for j in 0..Q {
        for i in 0..R {
            acc[j][i] = dot_rest(s, x_rest[j], row_rest[i], acc[j][i]);
        }
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

struct WeightedSums<'a, T> {
    p: Table<'a, f32>,
    table: Table<'a, T>,
    acc: &'a mut [f32],
}

impl<T: Value> Kernel for WeightedSums<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let mut q = 0;
        while q < self.p.rows {
            let width = next_width(self.p.rows - q, S::PATCH.tokens());
            match (S::PATCH, width) {
                (PatchShape::Rows4Tokens6, 6) => self.strip::<S, 4, 6>(s, q),
                (PatchShape::Rows4Tokens6, 5) => self.strip::<S, 4, 5>(s, q),
                (PatchShape::Rows4Tokens6, 4) => self.strip::<S, 4, 4>(s, q),
                (PatchShape::Rows4Tokens6, 3) => self.strip::<S, 4, 3>(s, q),
                (PatchShape::Rows4Tokens6, 2) => self.strip::<S, 4, 2>(s, q),
                (PatchShape::Rows2Tokens3, 3) => self.strip::<S, 2, 3>(s, q),
                (PatchShape::Rows2Tokens3, 2) => self.strip::<S, 2, 2>(s, q),
                _ => self.strip::<S, 4, 1>(s, q),
            }
            q += width;
        }
    }
}

impl<T: Value> WeightedSums<'_, T> {
    /// All columns of the sums `q .. q + Q`, `G` groups of sixteen at a time.
    #[inline(always)]
    fn strip<S: Simd, const G: usize, const Q: usize>(&mut self, s: S, q: usize) {
        let width = self.table.width;
        let whole = width - width % (G * LANES);
        for column in (0..whole).step_by(G * LANES) {
            self.columns::<S, G, Q>(s, q, column);
        }
        let groups = width - width % LANES;
        for column in (whole..groups).step_by(LANES) {
            self.columns::<S, 1, Q>(s, q, column);
        }
        for column in groups..width {
            for j in q..q + Q {
                let acc = &mut self.acc[j * width + column];
                for (r, p) in self.p.row(j).iter().enumerate() {
                    *acc = fma(*p, self.table.row(r)[column].widen(), *acc);
                }
            }
        }
    }

    /// The `G` groups of columns from `column` on, of the sums `q .. q + Q`.
    #[inline(always)]
    fn columns<S: Simd, const G: usize, const Q: usize>(&mut self, s: S, q: usize, column: usize) {
        let width = self.table.width;
        let mut p: [&[f32]; Q] = [&[]; Q];
        let mut acc = [[s.splat(0.0); G]; Q];
        for j in 0..Q {
            p[j] = &self.p.row(q + j)[..self.table.rows];
            let (groups, _) = self.acc[(q + j) * width + column..][..G * LANES].as_chunks();
            for i in 0..G {
                acc[j][i] = s.load(&groups[i]);
            }
        }
        for r in 0..self.table.rows {
            let (groups, _) = self.table.values[r * self.table.stride + column..][..G * LANES].as_chunks();
            let mut v = [s.splat(0.0); G];
            for i in 0..G {
                v[i] = T::load(s, &groups[i]);
            }
            for j in 0..Q {
                let p = s.splat(p[j][r]);
                for i in 0..G {
                    acc[j][i] = s.fma(p, v[i], acc[j][i]);
                }
            }
        }
        for j in 0..Q {
            let (groups, _) = self.acc[(q + j) * width + column..][..G * LANES].as_chunks_mut();
            for i in 0..G {
                s.store(acc[j][i], &mut groups[i]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dense::{axpy_f16_on, axpy_f32_on, dot_f16_on, dot_f32_on};
    use half::f16;

    fn wave(n: usize, seed: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * seed).sin() * 3.0).collect()
    }

    #[test]
    fn every_level_has_the_bits_of_row_by_row_products() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
            for width in [0, 1, 15, 16, 17, 40, 64, 100, 130] {
                for (rows, queries) in [(0, 2), (1, 1), (3, 7), (4, 6), (5, 2), (9, 3), (2, 11), (8, 0)] {
                    let stride = width + 3;
                    let (x, p) = (wave(queries * width, 0.7), wave(queries * (rows + 1), 0.9));
                    let values = wave(rows * stride, 0.31);
                    let halves: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
                    let table = Table::new(&values, rows, width, stride);
                    let half_table = Table::new(&halves, rows, width, stride);

                    let x_table = Table::new(&x, queries, width, width);
                    let (mut out, mut out_half) = (vec![0.0; queries * rows], vec![0.0; queries * rows]);
                    dots_on(isa, x_table, table, &mut out).unwrap();
                    dots_on(isa, x_table, half_table, &mut out_half).unwrap();

                    let p_table = Table::new(&p, queries, rows, rows + 1);
                    let (mut acc, mut acc_half) = (wave(queries * width, 0.2), wave(queries * width, 0.2));
                    let (mut one, mut one_half) = (acc.clone(), acc.clone());
                    weighted_sums_on(isa, p_table, table, &mut acc).unwrap();
                    weighted_sums_on(isa, p_table, half_table, &mut acc_half).unwrap();
                    for q in 0..queries {
                        let (x, p) = (x_table.row(q), p_table.row(q));
                        for j in 0..rows {
                            let (row, half) = (table.row(j), half_table.row(j));
                            let at = q * rows + j;
                            assert_eq!(out[at], dot_f32_on(Isa::Scalar, x, row).unwrap());
                            assert_eq!(out_half[at], dot_f16_on(Isa::Scalar, x, half).unwrap());
                            let (one, one_half) = (&mut one[q * width..], &mut one_half[q * width..]);
                            axpy_f32_on(Isa::Scalar, p[j], row, &mut one[..width]).unwrap();
                            axpy_f16_on(Isa::Scalar, p[j], half, &mut one_half[..width]).unwrap();
                        }
                    }
                    assert_eq!((acc, acc_half), (one, one_half), "{isa:?}, {queries} x {rows} rows of {width}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "ends before its last row")]
    fn a_short_table_is_refused() {
        let _ = Table::new(&[0.0; 7], 3, 2, 3);
    }
}
