//! Many vectors against a span of 64 INT8 rows: attention over a quantised cache. The integer sums are exact.
//!
//! ```text
//! a span          by quads of columns: quad q holds the columns 4 q .. 4 q + 4 of row after row
//!                   a a a a  b b b b  c c c c ..        one 4-byte dot product per row and quad, no sums across lanes
//! add_dots        out[v][j]  = fma(scale[v] scales[j], sum_i x[v][i] row_j[i], out[v][j])       the sum exact
//! WeightCodes     p[v][j]   ~= scale[v] code[v][j]                                              code in 0..=16383
//! weighted_sums   acc[v][i]  = fma(scale[v], sum_j code[v][j] row_j[i], acc[v][i])              the sum exact
//!
//! a code is 128 high + low; 64 columns at a time are turned, once for all vectors, into quads of rows:
//!                   a b c d  a b c d  a b c d ..        one 4-byte dot product per column, four rows and half a code
//! ```
//!
//! **Invariant:** |row| and |x| are at most 127 and a span has 64 rows, so no sum leaves 32 bits; the result of a vector
//! does not depend on the others, nor on the level.

mod weights;

use std::ops::Range;

use ternary_core::quantize_a8;

use crate::arch::{Isa, Level};
use crate::error::Result;
use crate::pool::Pool;
use crate::simd::{BLOCK_QUADS, Kernel, LANES, PatchShape, Simd, Vector, fma};

pub use crate::simd::{Group, ROWS};
pub use weights::WeightCodes;

/// Most quads of a row: a wider sum could leave 32 bits.
const MAX_QUADS: usize = 1 << 14;

/// INT8 vectors to be multiplied with spans, each rounded as activations are.
#[derive(Debug, Default)]
pub struct Vectors {
    /// `[n, quads + 2]`: the codes of a vector, padded with zeros, then its scale and the sum of its codes. They lie
    /// side by side, so that many threads can each write some vectors.
    rows: Vec<[i8; 4]>,
    quads: usize,
}

impl Vectors {
    /// Becomes `n` vectors of `width` values, vector v rounded from `source(v)`; allocates only to grow.
    ///
    /// # Panics
    /// If a source has another width, or the width exceeds 65,536.
    pub fn set<'a>(&mut self, pool: &Pool, n: usize, width: usize, source: impl Fn(usize) -> &'a [f32] + Sync) {
        self.quads = width.div_ceil(4);
        assert!(self.quads <= MAX_QUADS, "a wider sum could leave 32 bits");
        let (stride, level) = (self.quads + 2, Level::current());
        if self.rows.len() < n * stride {
            self.rows.resize(n * stride, [0; 4]);
        }
        let per_task = n.div_ceil(pool.threads()).max(1);
        pool.chunks_mut(&mut self.rows[..n * stride], per_task * stride, |task, rows| {
            for (v, row) in rows.chunks_exact_mut(stride).enumerate() {
                let x = source(task * per_task + v);
                assert_eq!(x.len(), width, "a vector must have the stated width");
                level.run(RoundVector { x, row });
            }
        });
    }

    /// The vectors `range`.
    ///
    /// # Panics
    /// If there are no such vectors: when the first of them is read.
    #[must_use]
    pub fn range(&self, range: Range<usize>) -> VectorRange<'_> {
        VectorRange { all: self, start: range.start, n: range.len() }
    }

    /// The codes, the sum and the scale of vector `v`.
    #[inline(always)]
    fn row(&self, v: usize) -> Vector<'_> {
        let (quads, rest) = self.rows[v * (self.quads + 2)..][..self.quads + 2].split_at(self.quads);
        let bytes = |i: usize| rest[i].map(i8::cast_unsigned);
        Vector { quads, scale: f32::from_le_bytes(bytes(0)), sum: i32::from_le_bytes(bytes(1)) }
    }
}

/// Some neighbouring vectors of a set.
#[derive(Debug, Clone, Copy)]
pub struct VectorRange<'a> {
    all: &'a Vectors,
    start: usize,
    n: usize,
}

/// Rounding of one vector. The rule is that of `ternary_core`, which a kernel compiles for its level.
struct RoundVector<'a> {
    x: &'a [f32],
    row: &'a mut [[i8; 4]],
}

impl Kernel for RoundVector<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _s: S) {
        let (quads, rest) = self.row.split_at_mut(self.row.len() - 2);
        let (codes, padding) = quads.as_flattened_mut().split_at_mut(self.x.len());
        let scale = quantize_a8(self.x, codes);
        padding.fill(0);
        let sum: i32 = codes.iter().map(|&q| i32::from(q)).sum();
        rest[0] = scale.to_le_bytes().map(u8::cast_signed);
        rest[1] = sum.to_le_bytes().map(u8::cast_signed);
    }
}

/// `out[v][j] = fma(scale of v * scales[j], sum of vector v times row j, out[v][j])` for each vector v.
///
/// # Panics
/// If there is no such vector, the span has another width, or `out` does not hold one row per vector.
pub fn add_dots(vectors: VectorRange<'_>, span: &[Group<[i8; 4]>], scales: &Group<f32>, out: &mut [[f32; ROWS]]) {
    add_dots_at(Level::current(), AddDots { vectors, span, scales, out });
}

/// As [`add_dots`], on a given level: for tests and benchmarks.
///
/// # Errors
/// [`crate::Error::UnsupportedIsa`].
pub fn add_dots_on(
    isa: Isa,
    vectors: VectorRange<'_>,
    span: &[Group<[i8; 4]>],
    scales: &Group<f32>,
    out: &mut [[f32; ROWS]],
) -> Result<()> {
    add_dots_at(isa.level()?, AddDots { vectors, span, scales, out });
    Ok(())
}

fn add_dots_at(level: Level, dots: AddDots<'_>) {
    assert_eq!(dots.vectors.all.quads, dots.span.len(), "vectors and rows must be of one width");
    assert_eq!(dots.out.len(), dots.vectors.n, "the output must have one row per vector");
    level.run(dots);
}

/// `acc[v][i] = fma(scale of v, sum of codes[v][j] * row_j[i], acc[v][i])` over the first `n_rows` rows of the span,
/// where the sum is an exact integer; `acc` is `[weights, width]`.
///
/// # Panics
/// If there are more than 64 weights or rows, or `acc` or the span has another width.
pub fn weighted_sums(weights: &[WeightCodes], span: &[Group<[i8; 4]>], n_rows: usize, acc: &mut [f32]) {
    weighted_sums_at(Level::current(), weights, span, n_rows, acc);
}

/// As [`weighted_sums`], on a given level: for tests and benchmarks.
///
/// # Errors
/// [`crate::Error::UnsupportedIsa`].
pub fn weighted_sums_on(
    isa: Isa,
    weights: &[WeightCodes],
    span: &[Group<[i8; 4]>],
    n_rows: usize,
    acc: &mut [f32],
) -> Result<()> {
    weighted_sums_at(isa.level()?, weights, span, n_rows, acc);
    Ok(())
}

fn weighted_sums_at(level: Level, weights: &[WeightCodes], span: &[Group<[i8; 4]>], n_rows: usize, acc: &mut [f32]) {
    assert!(n_rows <= ROWS && weights.len() <= ROWS, "at most {ROWS} rows and weights");
    let width = acc.len().checked_div(weights.len()).unwrap_or(0);
    assert_eq!(acc.len(), weights.len() * width, "the sums must be [weights, width]");
    assert!(weights.is_empty() || width.div_ceil(4) == span.len(), "sums and rows must be of one width");
    level.run(WeightedSums { weights, span, row_quads: n_rows.div_ceil(4), width, acc });
}

struct AddDots<'a> {
    vectors: VectorRange<'a>,
    span: &'a [Group<[i8; 4]>],
    scales: &'a Group<f32>,
    out: &'a mut [[f32; ROWS]],
}

impl Kernel for AddDots<'_> {
    type Output = ();
    const INTEGER: bool = true;

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let (mut v, mut sums) = (0, [[0; ROWS]; 6]);
        while v < self.out.len() {
            match strip_of::<S>(self.out.len() - v) {
                6 => v += self.strip::<S, 6>(s, v, &mut sums),
                5 => v += self.strip::<S, 5>(s, v, &mut sums),
                3 => v += self.strip::<S, 3>(s, v, &mut sums),
                _ => v += self.strip::<S, 1>(s, v, &mut sums),
            }
        }
    }
}

/// The number of vectors in the next strip if `left` are left: 6, 5, 3 or 1.
#[inline(always)]
fn strip_of<S: Simd>(left: usize) -> usize {
    match (S::PATCH, left) {
        (PatchShape::Rows4Tokens6, 5 | 8 | 10) => 5,
        (PatchShape::Rows4Tokens6, 6..) => 6,
        (PatchShape::Rows4Tokens6, 3 | 4) => 3,
        _ => 1,
    }
}

impl AddDots<'_> {
    /// The vectors `v .. v + V` of the range; returns V.
    #[inline(always)]
    fn strip<S: Simd, const V: usize>(&mut self, s: S, v: usize, sums: &mut [[i32; ROWS]; 6]) -> usize {
        let sums = sums.first_chunk_mut::<V>().expect("a strip is at most six");
        let mut vectors = [Vector::EMPTY; V];
        for (k, vector) in vectors.iter_mut().enumerate() {
            *vector = self.vectors.all.row(self.vectors.start + v + k);
        }
        s.dots_i8(vectors, self.span, sums);
        for ((x, sums), out) in vectors.iter().zip(sums).zip(&mut self.out[v..v + V]) {
            let groups = out.as_chunks_mut::<LANES>().0.iter_mut().zip(sums.as_chunks().0);
            for ((out, sums), scales) in groups.zip(self.scales.0.as_chunks().0) {
                let scales = s.mul(s.splat(x.scale), s.load(scales));
                s.store(s.fma(scales, s.load_i32(sums), s.load(out)), out);
            }
        }
        V
    }
}

struct WeightedSums<'a> {
    weights: &'a [WeightCodes],
    span: &'a [Group<[i8; 4]>],
    /// Rows that have weights, in fours.
    row_quads: usize,
    width: usize,
    acc: &'a mut [f32],
}

impl Kernel for WeightedSums<'_> {
    type Output = ();
    const INTEGER: bool = true;

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        // Fine weights have two halves of codes, so three of them fill a strip of six.
        let (mut coarse, mut fine) = (Chosen::NONE, Chosen::NONE);
        for (v, weights) in self.weights.iter().enumerate() {
            if weights.is_fine() { &mut fine } else { &mut coarse }.push(v);
        }
        let (coarse, fine) = (coarse.get(), fine.get());
        let mut sums = [[0; ROWS]; 6];
        let mut turned = [Group([[0; 4]; ROWS]); BLOCK_QUADS];
        for (b, block) in self.span.chunks(BLOCK_QUADS).enumerate() {
            for group in block {
                // Prefetches the same columns of the next span, which the cache of positions stores behind this one.
                s.prefetch_bytes(group, size_of_val(self.span), size_of_val(group));
            }
            match block.as_array() {
                Some(block) => s.turn(block, &mut turned),
                None => {
                    let mut padded = [Group([[0; 4]; ROWS]); BLOCK_QUADS];
                    padded[..block.len()].copy_from_slice(block);
                    s.turn(&padded, &mut turned);
                }
            }
            let column = b * ROWS;
            let mut rest = coarse;
            while !rest.is_empty() {
                rest = match strip_of::<S>(rest.len()) {
                    6 => self.strip::<S, 6, 1>(s, rest, &turned, column, &mut sums),
                    5 => self.strip::<S, 5, 1>(s, rest, &turned, column, &mut sums),
                    3 => self.strip::<S, 3, 1>(s, rest, &turned, column, &mut sums),
                    _ => self.strip::<S, 1, 1>(s, rest, &turned, column, &mut sums),
                };
            }
            let mut rest = fine;
            while !rest.is_empty() {
                rest = match (strip_of::<S>(rest.len()), rest.len()) {
                    (3.., 3 | 5..) => self.strip::<S, 3, 2>(s, rest, &turned, column, &mut sums),
                    (3.., 2 | 4) => self.strip::<S, 2, 2>(s, rest, &turned, column, &mut sums),
                    _ => self.strip::<S, 1, 2>(s, rest, &turned, column, &mut sums),
                };
            }
        }
    }
}

impl WeightedSums<'_> {
    /// The columns from `column` on of the sums of the first `V` vectors of `which`, whose codes are 0 but for their first
    /// `P` halves; returns the other vectors.
    #[inline(always)]
    fn strip<'w, S: Simd, const V: usize, const P: usize>(
        &mut self,
        s: S,
        which: &'w [usize],
        turned: &[Group<[i8; 4]>; BLOCK_QUADS],
        column: usize,
        sums: &mut [[i32; ROWS]; 6],
    ) -> &'w [usize] {
        let (which, rest) = which.split_at(V);
        let sums = sums.first_chunk_mut::<V>().expect("a strip is at most six");
        let mut codes: [[&[[u8; 4]]; P]; V] = [[&[]; P]; V];
        for (codes, &v) in codes.iter_mut().zip(which) {
            for (codes, half) in codes.iter_mut().zip(self.weights[v].halves()) {
                *codes = &half[..self.row_quads];
            }
        }
        s.quad_sums(codes, turned, sums);
        let width = ROWS.min(self.width - column);
        for (&v, sums) in which.iter().zip(sums) {
            let scale = self.weights[v].scale();
            let acc = &mut self.acc[v * self.width + column..][..width];
            let (acc, acc_rest) = acc.as_chunks_mut::<LANES>();
            let (sums, sums_rest) = sums[..width].as_chunks::<LANES>();
            for (acc, sums) in acc.iter_mut().zip(sums) {
                s.store(s.fma(s.splat(scale), s.load_i32(sums), s.load(acc)), acc);
            }
            for (acc, sum) in acc_rest.iter_mut().zip(sums_rest) {
                *acc = fma(scale, *sum as f32, *acc);
            }
        }
        rest
    }
}

/// A choice among at most 64 vectors.
struct Chosen {
    which: [usize; ROWS],
    n: usize,
}

impl Chosen {
    const NONE: Chosen = Chosen { which: [0; ROWS], n: 0 };

    fn push(&mut self, v: usize) {
        self.which[self.n] = v;
        self.n += 1;
    }

    fn get(&self) -> &[usize] {
        &self.which[..self.n]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: usize) -> Vec<i8> {
        (0..n).map(|i| (((i * 2_654_435_761 + seed * 97) >> 7) % 255) as i16 - 127).map(|v| v as i8).collect()
    }

    fn levels() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_supported())
    }

    /// Rows `[64, width]` and their span.
    fn span(width: usize, seed: usize) -> (Vec<i8>, Vec<Group<[i8; 4]>>) {
        let rows = values(ROWS * width, seed);
        let mut span = vec![Group([[0; 4]; ROWS]); width.div_ceil(4)];
        for (j, row) in rows.chunks_exact(width).enumerate() {
            for (i, &code) in row.iter().enumerate() {
                span[i / 4].0[j][i % 4] = code;
            }
        }
        (rows, span)
    }

    #[test]
    fn weighted_sums_have_the_same_bits_on_every_level_and_in_every_company() {
        for (n, n_rows, width) in
            [(20, 64, 512), (10, 64, 512), (7, 63, 512), (5, 1, 64), (3, 9, 40), (13, 30, 100), (64, 64, 4), (1, 0, 5)]
        {
            let (rows, span) = span(width, 3);
            let start: Vec<f32> = (0..width).map(|i| i as f32 * 0.1).collect();
            let weights: Vec<WeightCodes> =
                (0..n).map(|v| WeightCodes::new(&weights::tests::weights(v, n_rows), &vec![1.0; n_rows])).collect();
            let mut expected = Vec::new();
            for weights in &weights {
                for (i, acc) in start.iter().enumerate() {
                    let sum: i32 = (0..n_rows).map(|j| weights.code(j) * i32::from(rows[j * width + i])).sum();
                    expected.push(fma(weights.scale(), sum as f32, *acc).to_bits());
                }
            }
            for isa in levels() {
                let mut acc = start.repeat(n);
                weighted_sums_on(isa, &weights, &span, n_rows, &mut acc).unwrap();
                let bits: Vec<u32> = acc.iter().map(|acc| acc.to_bits()).collect();
                assert!(bits == expected, "{isa}, {n} x {n_rows} x {width}");
            }
        }
    }
}
