//! Products of F32 matrices and of their transposes.
//!
//! **Invariant:** the numbers depend neither on the number of threads nor on the instruction set: every sum is computed in chains of
//! 256 numbers, in one order ([`tl_kernels::strided`]).

pub use tl_kernels::strided::{Mat, Out, multiply};

#[cfg(test)]
mod tests {
    use tl_kernels::Pool;

    use super::*;
    use crate::train::samples::Samples;

    #[test]
    fn products_equal_plain_loops_for_every_transpose_and_any_threads() {
        let mut samples = Samples::new(1);
        for (m, k, n) in [(1, 1, 1), (3, 5, 7), (65, 9, 4), (130, 33, 66), (2, 0, 3)] {
            let (a, b) = (samples.values(m * k), samples.values(k * n));
            let transposed = |x: &[f32], rows: usize, cols: usize| -> Vec<f32> {
                (0..rows * cols).map(|i| x[i % rows * cols + i / rows]).collect()
            };
            let (at, bt) = (transposed(&a, m, k), transposed(&b, k, n));
            let plain = |i: usize, j: usize| -> f32 {
                (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(b[l * n + j])).sum::<f64>() as f32
            };
            for a in [Mat::new(&a, m, k), Mat::new(&at, k, m).t()] {
                for b in [Mat::new(&b, k, n), Mat::new(&bt, n, k).t()] {
                    let (mut out, mut wide) = (vec![9.0; m * n], vec![1.0; m * (n + 3)]);
                    multiply(&Pool::serial(), Out::to(&mut out, n), a, b);
                    multiply(&Pool::new(3).unwrap(), Out::onto(&mut wide, n + 3).columns(2..2 + n), a, b);
                    for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                        assert!((out[i * n + j] - plain(i, j)).abs() < 1e-5, "{m} {k} {n}");
                        assert!((wide[i * (n + 3) + 2 + j] - 1.0 - out[i * n + j]).abs() < 1e-5);
                    }
                    assert!(wide.chunks(n + 3).all(|row| row[..2] == [1.0; 2] && row[n + 2] == 1.0));
                }
            }
        }
    }
}
