//! Products of two F32 matrices, each as it lies or transposed, for passes that train.
//!
//! ```text
//!             columns ->             one patch: R rows x V vectors of sixteen columns, its sums in registers
//!    rows   | b0 b1                  number after number of the left rows meets V vectors of the right matrix
//!     a0    |  .  .
//!     a1    |  .  .
//! ```
//! `DEPTH` = 256 numbers of each sum are computed at a time. The part of the right matrix that they meet is copied into strips, once for
//! all rows; rows of the left matrix are read as they lie, or copied where their numbers lie apart.
//!
//! **Invariant:** a sum is a chain of fused multiply-adds over each `DEPTH` numbers, and the sums of these chains are added in
//! order, whatever the patch, the level and the number of threads.

use std::cell::RefCell;
use std::ops::Range;

use super::pieces::row_cuts;
use crate::arch::Isa;
use crate::memory::AlignedBuffer;
use crate::pool::{ColumnBlock, Grid, Pool};
use crate::simd::{Kernel, LANES, PatchShape, Simd};

/// Numbers of a sum that are added in one chain.
const DEPTH: usize = 256;
/// Columns of the right matrix that lie in strips at a time: with [`DEPTH`] rows they fill half of a second-level cache.
const STRIP_COLUMNS: usize = 512;

/// A matrix `[rows, cols]` within a slice, or its transpose.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// The matrix `[rows, cols]` that `data` holds row by row.
    ///
    /// # Panics
    /// When `data` has another length.
    #[must_use]
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(Some(data.len()), rows.checked_mul(cols), "a matrix has rows x cols values");
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The same numbers with rows and columns exchanged.
    #[must_use]
    pub fn t(self) -> Self {
        let Self { data, rows, cols, row_stride, col_stride } = self;
        Self { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }

    /// Some of the rows.
    ///
    /// # Panics
    /// When the matrix does not have them.
    #[must_use]
    pub fn rows(self, rows: Range<usize>) -> Self {
        self.t().columns(rows).t()
    }

    /// Some of the columns.
    ///
    /// # Panics
    /// When the matrix does not have them.
    #[must_use]
    pub fn columns(self, columns: Range<usize>) -> Self {
        assert!(columns.start <= columns.end && columns.end <= self.cols, "the matrix has no such columns");
        let start = (columns.start * self.col_stride).min(self.data.len());
        Self { data: &self.data[start..], cols: columns.len(), ..self }
    }

    /// The part `columns` of row `r`, whose numbers lie side by side.
    #[inline(always)]
    fn run(&self, r: usize, columns: Range<usize>) -> &'a [f32] {
        &self.data[r * self.row_stride..][columns]
    }
}

/// The place of a product: some columns of a matrix that is `width` values wide.
#[derive(Debug)]
pub struct Out<'a> {
    data: &'a mut [f32],
    width: usize,
    columns: Range<usize>,
    /// Whether the product is added to the values there.
    adds: bool,
}

impl<'a> Out<'a> {
    /// Replaces a whole matrix with rows of `width` values.
    pub fn to(data: &'a mut [f32], width: usize) -> Self {
        Self { data, width, columns: 0..width, adds: false }
    }

    /// Adds to a whole matrix with rows of `width` values.
    pub fn onto(data: &'a mut [f32], width: usize) -> Self {
        Self { adds: true, ..Self::to(data, width) }
    }

    /// Writes only these columns.
    #[must_use]
    pub fn columns(self, columns: Range<usize>) -> Self {
        Self { columns, ..self }
    }
}

/// Computes `a b` for `a` `[m, k]` and `b` `[k, n]`, on the level in use.
///
/// ```
/// use tl_kernels::{Pool, strided::{Mat, Out, multiply}};
/// let (a, b, mut out) = ([1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 0.0, 1.0], [0.0; 4]);
/// multiply(&Pool::serial(), Out::to(&mut out, 2), Mat::new(&a, 2, 2), Mat::new(&b, 2, 2).t());
/// assert_eq!(out, [3.0, 2.0, 7.0, 4.0]);
/// ```
///
/// # Panics
/// When the shapes do not fit each other.
pub fn multiply(pool: &Pool, out: Out<'_>, a: Mat<'_>, b: Mat<'_>) {
    multiply_on(Isa::current(), pool, out, a, b);
}

/// As [`multiply`], on a level that this machine has.
fn multiply_on(isa: Isa, pool: &Pool, out: Out<'_>, a: Mat<'_>, b: Mat<'_>) {
    let Out { data, width, columns, adds } = out;
    assert_eq!(data.len(), a.rows * width, "the output has a row per row of the left matrix");
    assert!(columns.end <= width && columns.len() == b.cols, "the output has a column per column of the right matrix");
    assert_eq!(a.cols, b.rows, "inner dimensions agree");
    if data.is_empty() || b.cols == 0 {
        return;
    }
    if a.cols == 0 {
        let rows = data.chunks_exact_mut(width).filter(|_| !adds);
        return rows.for_each(|row| row[columns.clone()].fill(0.0));
    }
    let level = isa.level().expect("the level in use is one that this machine has");
    let cuts = row_cuts([a.rows, a.cols, b.cols], STRIP_COLUMNS, pool.threads());
    let first = columns.start;
    let grid = Grid::of_columns(data, width, columns, &cuts, STRIP_COLUMNS);
    pool.run(grid.n_cells().min(pool.threads()), &|_| {
        BUFFERS.with_borrow_mut(|buffers| {
            while let Some((part, out)) = grid.take() {
                let columns = out.columns().start - first..out.columns().end - first;
                let (a, b) = (a.rows(cuts[part]..cuts[part + 1]), b.columns(columns));
                level.run(Cell { a, b, adds, out, buffers });
            }
        });
    });
}

/// Copies of parts of the operands.
#[derive(Default)]
struct Buffers {
    /// Rows of the left matrix whose numbers lie apart, by number: `[DEPTH, R]`.
    left: AlignedBuffer<f32>,
    /// Strips of columns of the right matrix: each `[DEPTH, V, LANES]`.
    right: AlignedBuffer<f32>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// Some rows and columns of a product.
struct Cell<'a, 'b> {
    a: Mat<'a>,
    b: Mat<'a>,
    adds: bool,
    out: ColumnBlock<'b, f32>,
    buffers: &'b mut Buffers,
}

impl Kernel for Cell<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        match S::PATCH {
            PatchShape::Rows4Tokens6 => self.compute::<S, 12, 8, 4, 2>(s),
            PatchShape::Rows2Tokens3 => self.compute::<S, 6, 4, 2, 1>(s),
            PatchShape::Rows4Tokens1 => self.compute::<S, 4, 2, 1, 1>(s),
        }
    }
}

impl Cell<'_, '_> {
    /// Computes the cell in patches of `A` rows, the last ones of `B` or `C`.
    #[inline(always)]
    fn compute<S: Simd, const A: usize, const B: usize, const C: usize, const V: usize>(&mut self, s: S) {
        let (m, k) = (self.a.rows, self.a.cols);
        for from in (0..k).step_by(DEPTH) {
            let depth = from..k.min(from + DEPTH);
            copy_strips::<V>(self.b, depth.clone(), &mut self.buffers.right);
            let mut row = 0;
            while row < m {
                row += match m - row {
                    left if left > B => self.rows::<S, A, V>(s, row, depth.clone()),
                    left if left > C => self.rows::<S, B, V>(s, row, depth.clone()),
                    _ => self.rows::<S, C, V>(s, row, depth.clone()),
                };
            }
        }
    }

    /// The rows `row .. row + R` with all strips; the last row of the matrix stands for those behind it. Returns `R`.
    #[inline(always)]
    fn rows<S: Simd, const R: usize, const V: usize>(&mut self, s: S, row: usize, depth: Range<usize>) -> usize {
        let a = self.a;
        if a.col_stride == 1 {
            let mut runs: [&[f32]; R] = [&[]; R];
            for (i, run) in runs.iter_mut().enumerate() {
                *run = a.run((row + i).min(a.rows - 1), depth.clone());
            }
            self.strips::<S, _, R, V>(s, row, &depth, Runs(runs));
        } else {
            let mut left = std::mem::take(&mut self.buffers.left);
            left.resize(DEPTH * R);
            let (copy, _) = left.as_mut_slice().as_chunks_mut::<R>();
            let n = R.min(a.rows - row);
            for (to, k) in copy.iter_mut().zip(depth.clone()) {
                to[..n].copy_from_slice(&a.data[k * a.col_stride + row..][..n]);
                to[n..].fill(0.0);
            }
            self.strips::<S, _, R, V>(s, row, &depth, Copied(copy));
            self.buffers.left = left;
        }
        R
    }

    /// The patches of `R` rows, whose numbers are `left`, with all strips.
    #[inline(always)]
    fn strips<S: Simd, L: Left, const R: usize, const V: usize>(
        &mut self,
        s: S,
        row: usize,
        depth: &Range<usize>,
        left: L,
    ) {
        let adds = self.adds || depth.start > 0;
        let (vectors, _) = self.buffers.right.as_slice().as_chunks::<LANES>();
        let (vectors, _) = vectors.as_chunks::<V>();
        let width = self.b.cols;
        for (start, strip) in (0..width).step_by(V * LANES).zip(vectors.chunks_exact(depth.len())) {
            // One length for all, so that the loop needs no bounds checks.
            let left = left.first(strip.len());
            let mut sums = [[s.splat(0.0); V]; R];
            for (k, right) in strip.iter().enumerate() {
                let mut b = [s.splat(0.0); V];
                for v in 0..V {
                    b[v] = s.load(&right[v]);
                }
                for i in 0..R {
                    let a = s.splat(left.number(k, i));
                    for v in 0..V {
                        sums[i][v] = s.fma(a, b[v], sums[i][v]);
                    }
                }
            }
            let columns = start..width.min(start + V * LANES);
            for (i, sums) in sums.iter().enumerate().take(self.a.rows - row) {
                write(s, sums, &mut self.out.row_mut(row + i)[columns.clone()], adds);
            }
        }
    }
}

/// Some rows of the left matrix.
trait Left: Copy {
    /// The first `n` numbers of each row.
    fn first(self, n: usize) -> Self;
    /// Number `k` of row `i`.
    fn number(&self, k: usize, i: usize) -> f32;
}

/// Rows as they lie.
#[derive(Clone, Copy)]
struct Runs<'a, const R: usize>([&'a [f32]; R]);

impl<const R: usize> Left for Runs<'_, R> {
    #[inline(always)]
    fn first(mut self, n: usize) -> Self {
        for run in &mut self.0 {
            *run = &run[..n];
        }
        self
    }

    #[inline(always)]
    fn number(&self, k: usize, i: usize) -> f32 {
        self.0[i][k]
    }
}

/// Rows that were copied, by number.
#[derive(Clone, Copy)]
struct Copied<'a, const R: usize>(&'a [[f32; R]]);

impl<const R: usize> Left for Copied<'_, R> {
    #[inline(always)]
    fn first(self, n: usize) -> Self {
        Self(&self.0[..n])
    }

    #[inline(always)]
    fn number(&self, k: usize, i: usize) -> f32 {
        self.0[k][i]
    }
}

/// Replaces the numbers of `out` by those of `sums`, or adds them.
#[inline(always)]
fn write<S: Simd, const V: usize>(s: S, sums: &[S::F; V], out: &mut [f32], adds: bool) {
    let (whole, rest) = out.as_chunks_mut::<LANES>();
    for (out, &sum) in whole.iter_mut().zip(sums) {
        let sum = if adds { s.add(s.load(out), sum) } else { sum };
        s.store(sum, out);
    }
    if let Some(&sum) = sums.get(whole.len()).filter(|_| !rest.is_empty()) {
        let mut last = [0.0; LANES];
        s.store(sum, &mut last);
        for (out, sum) in rest.iter_mut().zip(last) {
            *out = if adds { *out + sum } else { sum };
        }
    }
}

/// Copies the rows `depth` of `b` into strips of `V` vectors; columns behind the last are 0.
#[inline(always)]
fn copy_strips<const V: usize>(b: Mat<'_>, depth: Range<usize>, into: &mut AlignedBuffer<f32>) {
    let n = b.cols.div_ceil(V * LANES);
    into.resize(n * depth.len() * V * LANES);
    let strips = into.as_mut_slice().chunks_exact_mut(depth.len() * V * LANES);
    for (start, strip) in (0..b.cols).step_by(V * LANES).zip(strips) {
        let width = (V * LANES).min(b.cols - start);
        if width < V * LANES {
            strip.fill(0.0);
        }
        if b.col_stride == 1 {
            for (to, k) in strip.chunks_exact_mut(V * LANES).zip(depth.clone()) {
                to[..width].copy_from_slice(b.run(k, start..start + width));
            }
            continue;
        }
        // The columns lie side by side, each number of one by itself: squares of sixteen read whole cache lines.
        for group in (0..width).step_by(LANES) {
            for from in (0..depth.len()).step_by(LANES) {
                let rows = LANES.min(depth.len() - from);
                for c in group..width.min(group + LANES) {
                    let values = &b.data[(start + c) * b.col_stride + depth.start + from..][..rows];
                    for (i, &value) in values.iter().enumerate() {
                        strip[(from + i) * V * LANES + c] = value;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(seed: u32, n: usize) -> Vec<f32> {
        (0..n as u32)
            .map(|i| (i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0)
            .collect()
    }

    fn transposed(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
        (0..rows * cols).map(|i| x[i % rows * cols + i / rows]).collect()
    }

    /// The sums as the invariant says.
    fn plain(a: &[f32], b: &[f32], [m, k, n]: [usize; 3]) -> Vec<f32> {
        let chain = |i: usize, j: usize, depth: Range<usize>| {
            depth.fold(0.0f32, |sum, l| a[i * k + l].mul_add(b[l * n + j], sum))
        };
        let sum = |i: usize, j: usize| {
            let chains = (0..k).step_by(DEPTH).map(|from| chain(i, j, from..k.min(from + DEPTH)));
            chains.reduce(|sum, chain| sum + chain).unwrap_or(0.0)
        };
        (0..m * n).map(|at| sum(at / n, at % n)).collect()
    }

    #[test]
    fn every_level_transpose_and_number_of_threads_gives_the_bits_of_plain_chains() {
        let pools = [Pool::serial(), Pool::new(3).unwrap()];
        for [m, k, n] in [[1, 1, 1], [3, 5, 7], [65, 9, 4], [130, 33, 66], [25, 300, 40], [7, 520, 530], [2, 0, 3]] {
            let (a, b) = (values(1, m * k), values(2, k * n));
            let (at, bt) = (transposed(&a, m, k), transposed(&b, k, n));
            let expected = plain(&a, &b, [m, k, n]);
            for (isa, pool) in Isa::ALL
                .into_iter()
                .filter(|isa| isa.is_supported())
                .flat_map(|isa| pools.iter().map(move |pool| (isa, pool)))
            {
                for a in [Mat::new(&a, m, k), Mat::new(&at, k, m).t()] {
                    for b in [Mat::new(&b, k, n), Mat::new(&bt, n, k).t()] {
                        let (mut out, mut wide) = (vec![9.0; m * n], vec![1.0; m * (n + 3)]);
                        multiply_on(isa, pool, Out::to(&mut out, n), a, b);
                        multiply_on(isa, pool, Out::onto(&mut wide, n + 3).columns(2..2 + n), a, b);
                        assert!(out == expected, "{isa} {m} {k} {n}");
                        for (row, product) in wide.chunks(n + 3).zip(out.chunks(n)) {
                            assert!(row[..2] == [1.0; 2] && row[n + 2] == 1.0);
                            // Chains are added to what is there one after the other.
                            assert!(row[2..n + 2].iter().zip(product).all(|(sum, p)| (sum - 1.0 - p).abs() < 1e-4));
                        }
                    }
                }
            }
        }
    }
}
