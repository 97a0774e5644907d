//! One vector against many rows of a table: the two loops of attention over a tile of cached positions.
//!
//! ```text
//! dots           out[j]  = dot16(x, row j)                                  j = 0, 1, ...
//! weighted_sum   acc[i]  = fma(p[j], row j [i], acc[i])                     j ascending
//! ```
//!
//! Row j is the first values of `table[j * stride ..]`. Four rows (four groups of columns) are under way at a
//! time, because a single running sum waits for each addition to finish before it starts the next.
//!
//! **Invariant:** the bits are those of [`dense::dot_f32`](crate::dense::dot_f32) and
//! [`dense::axpy_f32`](crate::dense::axpy_f32) row by row, on every level.
//!
//! ```
//! use tl_kernels::rows::{dots_f32, weighted_sum_f32};
//! // Two rows of two values, three apart.
//! let table = [1.0, 2.0, 0.0, 3.0, 4.0];
//! let mut products = [0.0; 2];
//! dots_f32(&[1.0, 10.0], &table, 3, &mut products);
//! assert_eq!(products, [21.0, 43.0]);
//! let mut acc = [0.5, 0.5];
//! weighted_sum_f32(&[2.0, 1.0], &table, 3, &mut acc);
//! assert_eq!(acc, [5.5, 8.5]);
//! ```

use half::f16;

use crate::activation::LANES;
use crate::arch::Level;
use crate::dense::{Dot, Value, current, dot_rest};
use crate::error::Result;
use crate::isa::Isa;
use crate::vector::{Kernel, Simd, fma};

/// Rows, or groups of 16 columns, under way at a time.
const WIDTH: usize = 4;

/// `out[j] = dot16(x, row j)` for every row of `out`.
///
/// # Panics
/// If the table ends before the last row does.
pub fn dots_f32(x: &[f32], table: &[f32], stride: usize, out: &mut [f32]) {
    dots(current(), x, table, stride, out);
}

/// `out[j] = dot16(x, row j widened)` for every row of `out`.
///
/// # Panics
/// If the table ends before the last row does.
pub fn dots_f16(x: &[f32], table: &[f16], stride: usize, out: &mut [f32]) {
    dots(current(), x, table, stride, out);
}

/// `acc[i] = fma(p[j], row j [i], acc[i])` for every weight of `p`, in order.
///
/// # Panics
/// If the table ends before the last row does.
pub fn weighted_sum_f32(p: &[f32], table: &[f32], stride: usize, acc: &mut [f32]) {
    weighted_sum(current(), p, table, stride, acc);
}

/// `acc[i] = fma(p[j], row j [i] widened, acc[i])` for every weight of `p`, in order.
///
/// # Panics
/// If the table ends before the last row does.
pub fn weighted_sum_f16(p: &[f32], table: &[f16], stride: usize, acc: &mut [f32]) {
    weighted_sum(current(), p, table, stride, acc);
}

/// As [`dots_f32`], on a given level: for tests and benchmarks.
///
/// # Errors
/// [`crate::Error::UnsupportedIsa`].
pub fn dots_f32_on(isa: Isa, x: &[f32], table: &[f32], stride: usize, out: &mut [f32]) -> Result<()> {
    dots(isa.level()?, x, table, stride, out);
    Ok(())
}

/// As [`dots_f16`], on a given level: for tests and benchmarks.
///
/// # Errors
/// [`crate::Error::UnsupportedIsa`].
pub fn dots_f16_on(isa: Isa, x: &[f32], table: &[f16], stride: usize, out: &mut [f32]) -> Result<()> {
    dots(isa.level()?, x, table, stride, out);
    Ok(())
}

/// As [`weighted_sum_f32`], on a given level: for tests and benchmarks.
///
/// # Errors
/// [`crate::Error::UnsupportedIsa`].
pub fn weighted_sum_f32_on(isa: Isa, p: &[f32], table: &[f32], stride: usize, acc: &mut [f32]) -> Result<()> {
    weighted_sum(isa.level()?, p, table, stride, acc);
    Ok(())
}

/// As [`weighted_sum_f16`], on a given level: for tests and benchmarks.
///
/// # Errors
/// [`crate::Error::UnsupportedIsa`].
pub fn weighted_sum_f16_on(isa: Isa, p: &[f32], table: &[f16], stride: usize, acc: &mut [f32]) -> Result<()> {
    weighted_sum(isa.level()?, p, table, stride, acc);
    Ok(())
}

fn dots<T: Value>(level: Level, x: &[f32], table: &[T], stride: usize, out: &mut [f32]) {
    level.run(Dots { x, table, stride, out });
}

fn weighted_sum<T: Value>(level: Level, p: &[f32], table: &[T], stride: usize, acc: &mut [f32]) {
    level.run(WeightedSum { p, table, stride, acc });
}

struct Dots<'a, T> {
    x: &'a [f32],
    table: &'a [T],
    stride: usize,
    out: &'a mut [f32],
}

impl<T: Value> Kernel for Dots<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let row = |j: usize| &self.table[j * self.stride..][..self.x.len()];
        let (x, rest) = self.x.as_chunks::<LANES>();
        let (quads, single) = self.out.as_chunks_mut::<WIDTH>();
        let first_single = WIDTH * quads.len();
        for (q, out) in quads.iter_mut().enumerate() {
            let rows: [&[T]; WIDTH] = std::array::from_fn(|j| row(WIDTH * q + j));
            let groups = rows.map(|row| &row.as_chunks::<LANES>().0[..x.len()]);
            let mut acc = [s.splat(0.0); WIDTH];
            for (i, x) in x.iter().enumerate() {
                let x = s.load(x);
                for j in 0..WIDTH {
                    acc[j] = s.fma(T::load(s, &groups[j][i]), x, acc[j]);
                }
            }
            for j in 0..WIDTH {
                out[j] = s.reduce(dot_rest(s, rest, &rows[j][LANES * x.len()..], acc[j]));
            }
        }
        for (j, out) in single.iter_mut().enumerate() {
            *out = Dot { x: self.x, w: row(first_single + j) }.run(s);
        }
    }
}

struct WeightedSum<'a, T> {
    p: &'a [f32],
    table: &'a [T],
    stride: usize,
    acc: &'a mut [f32],
}

impl<T: Value> Kernel for WeightedSum<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (groups, rest) = self.acc.as_chunks_mut::<LANES>();
        let first_rest = LANES * groups.len();
        let (blocks, single) = groups.as_chunks_mut::<WIDTH>();
        let first_single = WIDTH * LANES * blocks.len();
        for (b, block) in blocks.iter_mut().enumerate() {
            let mut acc = [s.splat(0.0); WIDTH];
            for i in 0..WIDTH {
                acc[i] = s.load(&block[i]);
            }
            for (j, p) in self.p.iter().enumerate() {
                let row = &self.table[j * self.stride + b * WIDTH * LANES..][..WIDTH * LANES];
                let (row, _) = row.as_chunks::<LANES>();
                let p = s.splat(*p);
                for i in 0..WIDTH {
                    acc[i] = s.fma(p, T::load(s, &row[i]), acc[i]);
                }
            }
            for i in 0..WIDTH {
                s.store(acc[i], &mut block[i]);
            }
        }
        for (g, group) in single.iter_mut().enumerate() {
            let mut acc = s.load(group);
            for (j, p) in self.p.iter().enumerate() {
                let row = &self.table[j * self.stride + first_single + g * LANES..][..LANES];
                acc = s.fma(s.splat(*p), T::load(s, &row.as_chunks().0[0]), acc);
            }
            s.store(acc, group);
        }
        for (i, acc) in rest.iter_mut().enumerate() {
            for (j, p) in self.p.iter().enumerate() {
                *acc = fma(*p, self.table[j * self.stride + first_rest + i].widen(), *acc);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dense::{axpy_f16_on, axpy_f32_on, dot_f16_on, dot_f32_on};

    fn wave(n: usize, seed: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * seed).sin() * 3.0).collect()
    }

    #[test]
    fn every_level_has_the_bits_of_row_by_row_products() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
            for width in [0, 1, 15, 16, 17, 40, 64, 100, 130] {
                for rows in [0, 1, 3, 4, 5, 9] {
                    let stride = width + 3;
                    let (x, p) = (wave(width, 0.7), wave(rows, 0.9));
                    let table = wave(rows * stride, 0.31);
                    let halves: Vec<f16> = table.iter().map(|v| f16::from_f32(*v)).collect();
                    let (mut out, mut out_half) = (vec![0.0; rows], vec![0.0; rows]);
                    dots_f32_on(isa, &x, &table, stride, &mut out).unwrap();
                    dots_f16_on(isa, &x, &halves, stride, &mut out_half).unwrap();
                    let (mut acc, mut acc_half) = (wave(width, 0.2), wave(width, 0.2));
                    let (mut one, mut one_half) = (acc.clone(), acc.clone());
                    weighted_sum_f32_on(isa, &p, &table, stride, &mut acc).unwrap();
                    weighted_sum_f16_on(isa, &p, &halves, stride, &mut acc_half).unwrap();
                    for j in 0..rows {
                        let (row, half) = (&table[j * stride..][..width], &halves[j * stride..][..width]);
                        assert_eq!(out[j], dot_f32_on(Isa::Scalar, &x, row).unwrap());
                        assert_eq!(out_half[j], dot_f16_on(Isa::Scalar, &x, half).unwrap());
                        axpy_f32_on(Isa::Scalar, p[j], row, &mut one).unwrap();
                        axpy_f16_on(Isa::Scalar, p[j], half, &mut one_half).unwrap();
                    }
                    assert_eq!((acc, acc_half), (one, one_half), "{isa:?}, {rows} rows of {width}");
                }
            }
        }
    }
}
