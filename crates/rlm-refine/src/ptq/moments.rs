//! Second moments of the inputs of a matrix, weighted by token.
//!
//! ```text
//! H = sum w_t xq xq'      C = sum w_t xq xf'      F = sum w_t xf xf'       xq: input in the student, xf: in the teacher
//! ```
//! The error of a row `q` of the student that stands for the row `w` of the teacher is then
//! `sum w_t (w xf - q xq)^2 = w F w' - 2 q C w' + q H q'`.
//!
//! **Invariant:** products of up to [`CHUNK_TOKENS`] tokens are F32 with the fixed order of `ternary_core::dot16`, and
//! their sums are F64 in the order of the tokens: bits depend neither on threads nor on the instruction set.

use ternary_core::Bytes;
use tl_kernels::{ActivationBuffer, DenseType, Linear, Pool};

use super::row_matrix::RowMatrix;
use crate::error::Result;

/// Tokens whose products are summed in F32.
pub(crate) const CHUNK_TOKENS: usize = 1024;

/// The sums over the tokens seen so far.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    /// Length of an input.
    pub(crate) n: usize,
    /// Tokens with a weight above 0.
    pub(crate) tokens: usize,
    /// The sum H over the inputs of the student, `[n, n]`.
    pub(crate) student: Vec<f64>,
    /// C, `[n, n]`: row i is input i of the student.
    pub(crate) cross: Vec<f64>,
    /// F, `[n, n]`; only where it is asked for.
    pub(crate) teacher: Option<Vec<f64>>,
}

impl Moments {
    /// No tokens yet; F is summed too when `with_teacher` is set.
    pub(crate) fn new(n: usize, with_teacher: bool) -> Self {
        let zeros = || vec![0.0; n * n];
        Self { n, tokens: 0, student: zeros(), cross: zeros(), teacher: with_teacher.then(zeros) }
    }

    /// Adds tokens with inputs `student` and `teacher` `[tokens, n]` and `weights` `[tokens]`, at most [`CHUNK_TOKENS`].
    pub(crate) fn add(&mut self, pool: &Pool, student: &[f32], teacher: &[f32], weights: &[f32]) -> Result<()> {
        let (n, tokens) = (self.n, weights.len());
        if tokens == 0 {
            return Ok(());
        }
        self.tokens += weights.iter().filter(|weight| **weight > 0.0).count();
        let roots: Vec<f32> = weights.iter().map(|weight| weight.sqrt()).collect();
        let [student, teacher] = [student, teacher].map(|rows| transposed(rows, n, &roots));
        let mut acts = ActivationBuffer::new();
        acts.set(&student, n, tokens);
        // One product gives H and C: the rows of the left factor are the student's inputs, then the teacher's.
        let mut bytes = vec![0; 8 * n * tokens];
        for (bytes, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(student.iter().chain(&teacher)) {
            *bytes = value.to_le_bytes();
        }
        let both =
            Linear::dense(DenseType::F32, 2 * n, tokens, Bytes::from(bytes)).map_err(moe_runtime::Error::from)?;
        let mut sums = vec![0.0; 2 * n * n];
        both.forward(pool, &acts, &mut sums);
        for (j, sums) in sums.chunks_exact(2 * n).enumerate() {
            let (h, c) = sums.split_at(n);
            self.student[j * n..][..n].iter_mut().zip(h).for_each(|(sum, h)| *sum += f64::from(*h));
            self.cross[j * n..][..n].iter_mut().zip(c).for_each(|(sum, c)| *sum += f64::from(*c));
        }
        if let Some(sum) = &mut self.teacher {
            acts.set(&teacher, n, tokens);
            let teacher = both.slice_rows(n, 2 * n).map_err(moe_runtime::Error::from)?;
            let mut sums = vec![0.0; n * n];
            teacher.forward(pool, &acts, &mut sums);
            sum.iter_mut().zip(&sums).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        Ok(())
    }

    /// The mean of the diagonal of H.
    pub(crate) fn mean_diagonal(&self) -> f64 {
        (0..self.n).map(|i| self.student[i * self.n + i]).sum::<f64>() / self.n.max(1) as f64
    }
}

/// `rows` `[tokens, n]` with each token multiplied by its factor, as `[n, tokens]`.
fn transposed(rows: &[f32], n: usize, factors: &[f32]) -> Vec<f32> {
    let tokens = factors.len();
    let mut out = vec![0.0; n * tokens];
    for (t, (row, factor)) in rows.chunks_exact(n).zip(factors).enumerate() {
        for (i, value) in row.iter().enumerate() {
            out[i * tokens + t] = value * factor;
        }
    }
    out
}

/// `x W'` for rows `x` `[_, n]` and a matrix `w` `[m, n]` given in F64, as `[_, m]`.
pub(crate) fn product(pool: &Pool, x: &[f32], w: &[f64], n: usize) -> Result<Vec<f32>> {
    if x.is_empty() || w.is_empty() {
        return Ok(Vec::new());
    }
    Ok(RowMatrix::new(w.len() / n, n, w.iter().map(|&value| value as f32))?.multiply(pool, x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptq::samples::Samples;

    const N: usize = 40;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-4 * (1.0 + b.abs()), "{a} is not {b}");
    }

    #[test]
    fn moments_are_the_weighted_sums() {
        let (student, teacher) = (Samples::new(N, 1).inputs, Samples::new(N, 2).inputs);
        let weights: Vec<f32> = (0..student.len() / N).map(|t| (t % 5) as f32 / 3.0).collect();
        let mut moments = Moments::new(N, true);
        let cut = 37;
        let pool = Pool::new(2).unwrap();
        moments.add(&pool, &student[..cut * N], &teacher[..cut * N], &weights[..cut]).unwrap();
        moments.add(&pool, &student[cut * N..], &teacher[cut * N..], &weights[cut..]).unwrap();
        assert_eq!(moments.tokens, weights.iter().filter(|w| **w > 0.0).count());
        let sum = |a: &[f32], i: usize, b: &[f32], j: usize| -> f64 {
            let values = weights.iter().enumerate();
            values.map(|(t, &w)| f64::from(w) * f64::from(a[t * N + i]) * f64::from(b[t * N + j])).sum()
        };
        let own = moments.teacher.as_ref().unwrap();
        for i in 0..N {
            for j in 0..N {
                close(moments.student[i * N + j], sum(&student, i, &student, j));
                close(moments.cross[i * N + j], sum(&student, i, &teacher, j));
                close(own[i * N + j], sum(&teacher, i, &teacher, j));
            }
        }
        close(moments.mean_diagonal(), (0..N).map(|i| moments.student[i * N + i]).sum::<f64>() / N as f64);
    }

    #[test]
    fn products_multiply_with_the_rows_of_the_matrix() {
        let y = product(&Pool::serial(), &[1.0, 2.0, 3.0, 4.0], &[1.0, 0.0, 10.0, 1.0, 0.5, 0.0], 2).unwrap();
        assert_eq!(y, [1.0, 12.0, 0.5, 3.0, 34.0, 1.5]);
        assert!(product(&Pool::serial(), &[], &[1.0], 1).unwrap().is_empty());
    }
}
