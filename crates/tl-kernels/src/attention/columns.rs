//! Many vectors against 64 columns of F16: the scores of queries with the keys of a span of positions.
//!
//! ```text
//!   row i of the table     k[i][0] k[i][1] .. k[i][63]                one value of each column
//!   out[q][j] = dot16(query q, column j)
//! ```
//!
//! Sixteen columns fill a register, so the sixteen partial sums of a `dot16` are sixteen registers, and its tree adds
//! registers, which takes no shuffles.
//!
//! **Invariant:** the bits are those of [`dense::dot_f16`](crate::dense::dot_f16) of the query and the column.

use half::f16;

use super::rows::Table;
use crate::arch::{Isa, Level};
use crate::error::Result;
use crate::simd::{Group, Kernel, LANES, PatchShape, ROWS, Simd};

/// `out[q][j] = dot16(query q, column j)`, the columns widened; `out` has one row per query.
///
/// # Panics
/// If the queries are not as wide as the columns are long, or `out` has another length.
pub fn dots(queries: Table<'_, f32>, table: &[Group<f16>], out: &mut [[f32; ROWS]]) {
    dots_at(Level::current(), queries, table, out);
}

/// As [`dots`], on a given level: for tests and benchmarks.
///
/// # Errors
/// [`crate::Error::UnsupportedIsa`].
pub fn dots_on(isa: Isa, queries: Table<'_, f32>, table: &[Group<f16>], out: &mut [[f32; ROWS]]) -> Result<()> {
    dots_at(isa.level()?, queries, table, out);
    Ok(())
}

fn dots_at(level: Level, queries: Table<'_, f32>, table: &[Group<f16>], out: &mut [[f32; ROWS]]) {
    assert_eq!(queries.width(), table.len(), "queries must be as wide as columns are long");
    assert_eq!(out.len(), queries.rows(), "the output must have one row per query");
    level.run(Dots { queries, table, out });
}

struct Dots<'a> {
    queries: Table<'a, f32>,
    table: &'a [Group<f16>],
    out: &'a mut [[f32; ROWS]],
}

impl Kernel for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        for group in self.table {
            // Prefetches the next span, which the cache of positions stores behind this one.
            s.prefetch_bytes(group, size_of_val(self.table), size_of_val(group));
        }
        let mut q = 0;
        while q < self.out.len() {
            match (S::PATCH, self.out.len() - q) {
                (PatchShape::Rows4Tokens6, 5 | 9..) => q += self.strip::<S, 5>(s, q),
                (PatchShape::Rows4Tokens6, 4..) => q += self.strip::<S, 4>(s, q),
                (PatchShape::Rows4Tokens6 | PatchShape::Rows2Tokens3, 2..) => q += self.strip::<S, 2>(s, q),
                _ => q += self.strip::<S, 1>(s, q),
            }
        }
    }
}

impl Dots<'_> {
    /// The queries `q .. q + Q`; returns Q.
    #[inline(always)]
    fn strip<S: Simd, const Q: usize>(&mut self, s: S, q: usize) -> usize {
        let table = self.table;
        let mut queries: [&[f32]; Q] = [&[]; Q];
        for (k, query) in queries.iter_mut().enumerate() {
            // One length for all, so that the loop needs no bounds checks.
            *query = &self.queries.row(q + k)[..table.len()];
        }
        for g in 0..ROWS / LANES {
            let sums = ColumnGroup { queries, table, g }.dots(s);
            for (sums, out) in sums.into_iter().zip(&mut self.out[q..q + Q]) {
                s.store(sums, &mut out.as_chunks_mut().0[g]);
            }
        }
        Q
    }
}

/// Some queries against sixteen columns, the group `g`. The tree of `dot16` is computed depth first, so that few sums
/// occupy registers at a time.
struct ColumnGroup<'a, const Q: usize> {
    queries: [&'a [f32]; Q],
    table: &'a [Group<f16>],
    g: usize,
}

impl<const Q: usize> ColumnGroup<'_, Q> {
    #[inline(always)]
    fn dots<S: Simd>(&self, s: S) -> [S::F; Q] {
        add(s, self.quarter(s, 0), self.quarter(s, 1))
    }

    /// Lanes l, l + 2, .. of the tree's third level.
    #[inline(always)]
    fn quarter<S: Simd>(&self, s: S, l: usize) -> [S::F; Q] {
        let even = add(s, self.eighth(s, l), self.eighth(s, l + 4));
        add(s, even, add(s, self.eighth(s, l + 2), self.eighth(s, l + 6)))
    }

    /// Lanes l and l + 8.
    #[inline(always)]
    fn eighth<S: Simd>(&self, s: S, l: usize) -> [S::F; Q] {
        add(s, self.lane(s, l), self.lane(s, l + 8))
    }

    /// The products of the elements l, l + 16, ..
    #[inline(always)]
    fn lane<S: Simd>(&self, s: S, l: usize) -> [S::F; Q] {
        let mut sums = [s.splat(0.0); Q];
        let mut i = l;
        while i < self.table.len() {
            let values = s.load_half(&self.table[i].0.as_chunks().0[self.g]);
            for q in 0..Q {
                sums[q] = s.fma(values, s.splat(self.queries[q][i]), sums[q]);
            }
            i += LANES;
        }
        sums
    }
}

#[inline(always)]
fn add<S: Simd, const Q: usize>(s: S, mut a: [S::F; Q], b: [S::F; Q]) -> [S::F; Q] {
    for q in 0..Q {
        a[q] = s.add(a[q], b[q]);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dense::dot_f16_on;

    #[test]
    fn every_level_has_the_bits_of_single_dots() {
        for width in [0, 1, 7, 16, 30, 64, 100] {
            for n in [0, 1, 2, 3, 5, 10, 13] {
                let x: Vec<f32> = (0..n * width).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
                let value = |i: usize, j: usize| f16::from_f32(((i * 64 + j) as f32 * 0.31).sin());
                let table: Vec<Group<f16>> = (0..width).map(|i| Group(std::array::from_fn(|j| value(i, j)))).collect();
                let queries = Table::new(&x, n, width, width);
                let mut expected = Vec::new();
                for q in 0..n {
                    for j in 0..ROWS {
                        let column: Vec<f16> = (0..width).map(|i| value(i, j)).collect();
                        expected.push(dot_f16_on(Isa::Scalar, queries.row(q), &column).unwrap().to_bits());
                    }
                }
                for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
                    let mut out = vec![[0.0; ROWS]; n];
                    dots_on(isa, queries, &table, &mut out).unwrap();
                    let bits: Vec<u32> = out.as_flattened().iter().map(|v| v.to_bits()).collect();
                    assert_eq!(bits, expected, "{isa}, {n} queries of {width}");
                }
            }
        }
    }
}
