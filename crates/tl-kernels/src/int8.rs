//! Many vectors against INT8 rows: attention over a quantised cache. The integer sums are exact.
//!
//! ```text
//! dots            out[q][j]  = sum_i x[q][i] row_j[i]                                exact i32
//! WeightCodes     p[q][j]   ~= scale[q] code[q][j]                                   code in 0..=16383
//! weighted_sums   acc[q][i]  = fma(scale[q], sum_j code[q][j] row_j[i], acc[q][i])   the sum exact
//!
//! a code is 128 high + low; four neighbouring rows are interleaved byte by byte, once for all vectors:
//!   rows     a a a a ..    b b b b ..    c c c c ..    d d d d ..
//!   quads    a b c d  a b c d  a b c d ..            one 4-byte dot product per column, four rows and half a code
//! ```
//!
//! **Invariant:** |row| and |x| are at most 127 and there are at most [`MAX_ROWS`] rows, so no sum leaves 32 bits; the
//! result of a vector does not depend on the others, nor on the level.

use std::cell::RefCell;

use crate::activation::LANES;
use crate::aligned::AlignedBuffer;
use crate::arch::Level;
use crate::arch::int8::BLOCK_COLUMNS;
use crate::dense::current;
use crate::error::Result;
use crate::isa::Isa;
use crate::rows::Table;
use crate::vector::{DenseTile, Float, Kernel, One, Simd, fma};

/// Most rows of a weighted sum.
pub const MAX_ROWS: usize = 64;

/// The largest code of a fine weight: 127 * 128 + 127.
const FINE: f32 = 16383.0;

/// The largest code of a coarse weight: 127 * 128.
const COARSE: f32 = 16256.0;

/// `out[q][j] = sum of x[q][i] * row_j[i]`, exact; `out` is `[vectors, rows]`.
///
/// # Panics
/// If the widths differ or exceed 65,536, or `out` has another length.
pub fn dots(x: Table<'_, i8>, table: Table<'_, i8>, out: &mut [i32]) {
    dots_at(current(), x, table, out);
}

/// As [`dots`], on a given level: for tests and benchmarks.
///
/// # Errors
/// [`crate::Error::UnsupportedIsa`].
pub fn dots_on(isa: Isa, x: Table<'_, i8>, table: Table<'_, i8>, out: &mut [i32]) -> Result<()> {
    dots_at(isa.level()?, x, table, out);
    Ok(())
}

fn dots_at(level: Level, x: Table<'_, i8>, table: Table<'_, i8>, out: &mut [i32]) {
    assert_eq!(x.width(), table.width(), "vectors and rows must be of one width");
    assert!(x.width() <= 1 << 16, "a wider sum could leave 32 bits");
    assert_eq!(out.len(), x.rows() * table.rows(), "the output must be [vectors, rows]");
    level.run(Dots { x, table, out });
}

/// `out[j] = fma(x_scale * scales[j], sums[j], out[j])`: makes scores of the integers of one vector.
///
/// # Panics
/// If the lengths differ.
pub fn add_scaled(sums: &[i32], x_scale: f32, scales: &[f32], out: &mut [f32]) {
    assert_eq!((sums.len(), scales.len()), (out.len(), out.len()), "one sum and one scale per row");
    current().run(AddScaled { sums, x_scale, scales, out });
}

/// The quantised weights of one vector for up to [`MAX_ROWS`] rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WeightCodes {
    scale: f32,
    /// Whether any low half is not 0.
    fine: bool,
    high: [[u8; 4]; MAX_ROWS / 4],
    low: [[u8; 4]; MAX_ROWS / 4],
}

impl WeightCodes {
    /// No weight.
    pub const ZERO: WeightCodes =
        WeightCodes { scale: 0.0, fine: false, high: [[0; 4]; MAX_ROWS / 4], low: [[0; 4]; MAX_ROWS / 4] };

    /// Quantises `p[j] * scales[j]`, which are not negative; the rows behind them weigh nothing. Ties go to even; NaN
    /// weighs nothing.
    ///
    /// Even weights get 7 bits, so that half of the work suffices; weights of which few are large get 14, because 7
    /// would lose the small ones. Even means: the largest is at most eight times the mean.
    ///
    /// # Panics
    /// If there are more than [`MAX_ROWS`] weights or their number differs from that of the scales.
    #[must_use]
    pub fn new(p: &[f32], scales: &[f32]) -> WeightCodes {
        weight_codes_at(current(), p, scales)
    }

    /// As [`WeightCodes::new`], on a given level: for tests and benchmarks.
    ///
    /// # Errors
    /// [`crate::Error::UnsupportedIsa`].
    pub fn new_on(isa: Isa, p: &[f32], scales: &[f32]) -> Result<WeightCodes> {
        Ok(weight_codes_at(isa.level()?, p, scales))
    }
}

fn weight_codes_at(level: Level, p: &[f32], scales: &[f32]) -> WeightCodes {
    assert!(p.len() <= MAX_ROWS, "at most {MAX_ROWS} weights");
    assert_eq!(p.len(), scales.len(), "one scale per weight");
    level.run(Quantize { p, scales })
}

struct Quantize<'a> {
    p: &'a [f32],
    scales: &'a [f32],
}

impl Kernel for Quantize<'_> {
    type Output = WeightCodes;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> WeightCodes {
        let n = self.p.len();
        let (mut p, mut scales) = ([0.0; MAX_ROWS], [0.0; MAX_ROWS]);
        p[..n].copy_from_slice(self.p);
        scales[..n].copy_from_slice(self.scales);
        let (mut tops, mut sums) = (s.splat(0.0), s.splat(0.0));
        for (p, scales) in p.as_chunks_mut::<LANES>().0.iter_mut().zip(scales.as_chunks().0) {
            let weights = s.mul(s.load(p), s.load(scales));
            // `max` gives its second operand where either is NaN.
            tops = s.max(weights, tops);
            sums = s.add(sums, weights);
            s.store(weights, p);
        }
        let (mut lanes, mut top) = ([0.0; LANES], 0.0);
        s.store(tops, &mut lanes);
        for lane in lanes {
            top = One.max(lane, top);
        }
        let mut codes = WeightCodes::ZERO;
        // A scale that underflows would not be undone by the division; an infinite weight has no code.
        if top / FINE < f32::MIN_POSITIVE || !top.is_finite() {
            return codes;
        }
        let even = top * n as f32 <= 8.0 * s.reduce(sums);
        codes.fine = !even;
        codes.scale = top / if even { COARSE } else { FINE };
        let per_weight = s.splat(if even { 127.0 } else { FINE } / top);
        for p in p.as_chunks_mut::<LANES>().0 {
            s.store(s.round(s.mul(s.load(p), per_weight)), p);
        }
        let (high, low) = (codes.high.as_flattened_mut(), codes.low.as_flattened_mut());
        for ((&p, high), low) in p.iter().zip(high).zip(low) {
            // `as` turns NaN into 0.
            let code = p as i32;
            (*high, *low) = if even { (code as u8, 0) } else { ((code >> 7) as u8, (code & 127) as u8) };
        }
        codes
    }
}

/// `acc[q][i] = fma(scale of q, sum of codes[q][j] * row_j[i], acc[q][i])`, where the sum is an exact integer;
/// `acc` is `[weights, width]`.
///
/// # Panics
/// If there are more than [`MAX_ROWS`] rows or `acc` has another length.
pub fn weighted_sums(weights: &[WeightCodes], table: Table<'_, i8>, acc: &mut [f32]) {
    weighted_sums_at(current(), weights, table, acc);
}

/// As [`weighted_sums`], on a given level: for tests and benchmarks.
///
/// # Errors
/// [`crate::Error::UnsupportedIsa`].
pub fn weighted_sums_on(isa: Isa, weights: &[WeightCodes], table: Table<'_, i8>, acc: &mut [f32]) -> Result<()> {
    weighted_sums_at(isa.level()?, weights, table, acc);
    Ok(())
}

fn weighted_sums_at(level: Level, weights: &[WeightCodes], table: Table<'_, i8>, acc: &mut [f32]) {
    thread_local! {
        static QUADS: RefCell<AlignedBuffer<i8>> = RefCell::default();
    }
    assert!(table.rows() <= MAX_ROWS, "at most {MAX_ROWS} rows");
    assert_eq!(acc.len(), weights.len() * table.width(), "the sums must be [weights, width]");
    QUADS.with_borrow_mut(|buffer| {
        let stride = table.width().next_multiple_of(BLOCK_COLUMNS);
        // The quads, and behind them four padded rows.
        buffer.resize(stride * (table.rows().next_multiple_of(4) + 4));
        level.run(WeightedSums { weights, table, stride, quads: buffer.as_mut_slice(), acc });
    });
}

struct Dots<'a> {
    x: Table<'a, i8>,
    table: Table<'a, i8>,
    out: &'a mut [i32],
}

impl Kernel for Dots<'_> {
    type Output = ();
    const INTEGER: bool = true;

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let mut q = 0;
        while q < self.x.rows() {
            match (S::DENSE_TILE, self.x.rows() - q) {
                (DenseTile::Rows4Tokens6, left) if left >= 6 && left != 10 => q += self.strip::<S, 4, 6>(s, q),
                (DenseTile::Rows4Tokens6, left) if left >= 5 => q += self.strip::<S, 4, 5>(s, q),
                (DenseTile::Rows2Tokens3, left) if left >= 3 => q += self.strip::<S, 2, 3>(s, q),
                _ => q += self.strip::<S, 4, 1>(s, q),
            }
        }
    }
}

impl Dots<'_> {
    /// All rows for the vectors `q .. q + Q`; returns Q.
    #[inline(always)]
    fn strip<S: Simd, const R: usize, const Q: usize>(&mut self, s: S, q: usize) -> usize {
        let (mut x, mut x_sums): ([&[i8]; Q], [i32; Q]) = ([&[]; Q], [0; Q]);
        for (j, (x, sum)) in x.iter_mut().zip(&mut x_sums).enumerate() {
            *x = self.x.row(q + j);
            *sum = x.iter().map(|&v| i32::from(v)).sum();
        }
        let n_rows = self.table.rows();
        for start in (0..n_rows).step_by(R) {
            // The last tile repeats its last row and drops the repeats.
            let mut rows: [&[i8]; R] = [&[]; R];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = self.table.row((start + i).min(n_rows - 1));
            }
            let sums = s.dots_i8(rows, x, x_sums);
            let width = R.min(n_rows - start);
            for (j, sums) in sums.iter().enumerate() {
                self.out[(q + j) * n_rows + start..][..width].copy_from_slice(&sums[..width]);
            }
        }
        Q
    }
}

struct AddScaled<'a> {
    sums: &'a [i32],
    x_scale: f32,
    scales: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for AddScaled<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (sums, sums_rest) = self.sums.as_chunks::<LANES>();
        let (scales, scales_rest) = self.scales.as_chunks::<LANES>();
        let (out, out_rest) = self.out.as_chunks_mut::<LANES>();
        for ((out, sums), scales) in out.iter_mut().zip(sums).zip(scales) {
            let scales = s.mul(s.splat(self.x_scale), s.load(scales));
            s.store(s.fma(scales, s.load_i32(sums), s.load(out)), out);
        }
        for ((out, sum), scale) in out_rest.iter_mut().zip(sums_rest).zip(scales_rest) {
            *out = fma(self.x_scale * scale, *sum as f32, *out);
        }
    }
}

struct WeightedSums<'a> {
    weights: &'a [WeightCodes],
    table: Table<'a, i8>,
    /// The table's width in whole blocks.
    stride: usize,
    /// `[rows in fours, stride, 4]`, then room for four rows of `stride`.
    quads: &'a mut [i8],
    acc: &'a mut [f32],
}

impl Kernel for WeightedSums<'_> {
    type Output = ();
    const INTEGER: bool = true;

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        self.interleave(s);
        let mut q = 0;
        while q < self.weights.len() {
            match self.weights.len() - q {
                left if left >= 6 && left != 10 => q += self.strip::<S, 6>(s, q),
                left if left >= 5 => q += self.strip::<S, 5>(s, q),
                _ => q += self.strip::<S, 1>(s, q),
            }
        }
    }
}

impl WeightedSums<'_> {
    /// Writes the quads.
    #[inline(always)]
    fn interleave<S: Simd>(&mut self, s: S) {
        let (n_rows, width, stride) = (self.table.rows(), self.table.width(), self.stride);
        let (quads, spare) = self.quads.split_at_mut(n_rows.next_multiple_of(4) * stride);
        for (q, out) in quads.as_chunks_mut::<4>().0.chunks_exact_mut(stride.max(1)).enumerate() {
            if width == stride && 4 * q + 4 <= n_rows {
                let mut rows: [&[i8]; 4] = [&[]; 4];
                for (k, row) in rows.iter_mut().enumerate() {
                    *row = self.table.row(4 * q + k);
                }
                s.interleave(rows, out);
                continue;
            }
            // Rows and columns that do not exist are 0.
            spare.fill(0);
            for (k, padded) in spare.chunks_exact_mut(stride).enumerate() {
                if 4 * q + k < n_rows {
                    padded[..width].copy_from_slice(self.table.row(4 * q + k));
                }
            }
            let (a, rest) = spare.split_at(stride);
            let (b, rest) = rest.split_at(stride);
            let (c, d) = rest.split_at(stride);
            s.interleave([a, b, c, &d[..stride]], out);
        }
    }

    /// The sums `q .. q + Q`; returns Q.
    #[inline(always)]
    fn strip<S: Simd, const Q: usize>(&mut self, s: S, q: usize) -> usize {
        let (width, n_quads) = (self.table.width(), self.table.rows().div_ceil(4));
        let weights = &self.weights[q..q + Q];
        let (mut high, mut low) = ([&[][..]; Q], [&[][..]; Q]);
        for j in 0..Q {
            (high[j], low[j]) = (&weights[j].high[..n_quads], &weights[j].low[..n_quads]);
        }
        let fine = weights.iter().any(|weights| weights.fine);
        let (quads, _) = self.quads.as_chunks::<4>();
        for column in (0..width).step_by(BLOCK_COLUMNS) {
            let mut sums = s.quad_sums(high, &quads[column..], self.stride);
            let lows = if fine { s.quad_sums(low, &quads[column..], self.stride) } else { [[0; BLOCK_COLUMNS]; Q] };
            for j in 0..Q {
                for (high, low) in sums[j].iter_mut().zip(&lows[j]) {
                    *high = 128 * *high + low;
                }
                let acc = &mut self.acc[(q + j) * width..(q + j + 1) * width];
                let block = acc.len().min(column + BLOCK_COLUMNS);
                let (groups, rest) = acc[column..block].as_chunks_mut::<LANES>();
                let (sums, last) = sums[j].split_at(LANES * groups.len());
                for (acc, sums) in groups.iter_mut().zip(sums.as_chunks::<LANES>().0) {
                    s.store(s.fma(s.splat(weights[j].scale), s.load_i32(sums), s.load(acc)), acc);
                }
                for (acc, sum) in rest.iter_mut().zip(last) {
                    *acc = fma(weights[j].scale, *sum as f32, *acc);
                }
            }
        }
        Q
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(n: usize, seed: usize) -> Vec<i8> {
        (0..n).map(|i| (((i * 2_654_435_761 + seed * 97) >> 7) % 255) as i16 - 127).map(|v| v as i8).collect()
    }

    fn levels() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_supported())
    }

    #[test]
    fn dots_are_exact() {
        for (vectors, rows, width) in
            [(1, 1, 1), (20, 64, 512), (10, 64, 512), (3, 7, 40), (7, 5, 65), (0, 4, 8), (2, 0, 8)]
        {
            let (x, table) = (codes(vectors * width, 1), codes(rows * (width + 5), 2));
            let (x, table) = (Table::new(&x, vectors, width, width), Table::new(&table, rows, width, width + 5));
            let mut expected = Vec::new();
            for q in 0..vectors {
                for j in 0..rows {
                    let pairs = x.row(q).iter().zip(table.row(j));
                    expected.push(pairs.map(|(&a, &b)| i32::from(a) * i32::from(b)).sum::<i32>());
                }
            }
            for isa in levels() {
                let mut out = vec![0; vectors * rows];
                dots_on(isa, x, table, &mut out).unwrap();
                assert_eq!(out, expected, "{isa}, {vectors} x {rows} x {width}");
            }
        }
    }

    /// Even weights, one that towers over the others, one alone, none.
    fn weights(kind: usize, rows: usize) -> Vec<f32> {
        (0..rows)
            .map(|j| match kind % 4 {
                0 => 0.5 + ((j * 37) % 17) as f32 / 20.0,
                1 if j == rows / 2 => 1.0,
                1 => 0.002 * ((j * 29) % 13) as f32 / 13.0,
                2 if j == 0 => 3e-7,
                _ => 0.0,
            })
            .collect()
    }

    #[test]
    fn weighted_sums_have_the_same_bits_on_every_level_and_in_every_company() {
        for (n, rows, width) in
            [(20, 64, 512), (10, 64, 512), (7, 63, 512), (5, 1, 64), (3, 9, 40), (13, 30, 100), (1, 0, 5)]
        {
            let (table, start) = (codes(rows * (width + 3), 3), (0..width).map(|i| i as f32 * 0.1).collect::<Vec<_>>());
            let table = Table::new(&table, rows, width, width + 3);
            let weights: Vec<WeightCodes> =
                (0..n).map(|q| WeightCodes::new(&weights(q, rows), &vec![1.0; rows])).collect();
            let mut expected = Vec::new();
            for weights in &weights {
                let mut acc = start.clone();
                let code =
                    |j: usize| 128 * i32::from(weights.high[j / 4][j % 4]) + i32::from(weights.low[j / 4][j % 4]);
                for (i, acc) in acc.iter_mut().enumerate() {
                    let sum: i32 = (0..rows).map(|j| code(j) * i32::from(table.row(j)[i])).sum();
                    *acc = fma(weights.scale, sum as f32, *acc);
                }
                expected.extend(acc.iter().map(|acc| acc.to_bits()));
            }
            for isa in levels() {
                let mut acc = start.repeat(n);
                weighted_sums_on(isa, &weights, table, &mut acc).unwrap();
                let bits: Vec<u32> = acc.iter().map(|acc| acc.to_bits()).collect();
                assert!(bits == expected, "{isa}, {n} x {rows} x {width}");
            }
        }
    }

    #[test]
    fn small_weights_beside_a_large_one_are_kept() {
        for kind in 0..3 {
            let p = weights(kind, 64);
            let codes = WeightCodes::new(&p, &[1.0; 64]);
            for isa in levels() {
                assert_eq!(WeightCodes::new_on(isa, &p, &[1.0; 64]).unwrap(), codes, "{isa}");
            }
            assert_eq!(codes.fine, kind != 0);
            let (sum, top) = (p.iter().sum::<f32>(), p.iter().fold(0.0f32, |top, p| top.max(*p)));
            let step = if codes.fine { top / FINE } else { 128.0 * top / COARSE };
            let mut total = 0.0;
            for (j, p) in p.iter().enumerate() {
                let code = 128 * u32::from(codes.high[j / 4][j % 4]) + u32::from(codes.low[j / 4][j % 4]);
                assert!((codes.scale * code as f32 - p).abs() <= 0.501 * step, "weight {j} of kind {kind}");
                total += codes.scale * code as f32;
            }
            assert!((total - sum).abs() <= 5e-3 * sum, "kind {kind}: {total} instead of {sum}");
        }
        for odd in [&[0.0; 5][..], &[], &[f32::NAN; 3], &[1e-44], &[f32::INFINITY, 1.0]] {
            assert_eq!(WeightCodes::new(odd, &vec![1.0; odd.len()]), WeightCodes::ZERO);
        }
    }
}
