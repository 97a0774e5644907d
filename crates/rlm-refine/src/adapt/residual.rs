//! The low-rank addition of least error to a matrix, on the second moments of its inputs.
//!
//! For the rows `w` of the teacher, `q` of the student and an addition `B A`, the error over the tokens is
//!
//! ```text
//! sum w_t |W xf - (Q + B A) xq|^2 = const - 2 tr(B A G') + tr(B A H A' B')        G = W C' - Q H
//! ```
//! (`H` and `C` as in `ptq/moments.rs`). Its minimum over all matrices of rank r is the singular value decomposition of
//! `G H^-1/2`: the columns of `B` are the first r eigenvectors of `G H^-1 G'`, and `A = B' G H^-1`.
//! With `xf = xq` this is the decomposition of the residual `W - Q`, weighted by `H`.
//!
//! Source: weighted low-rank approximation, in the form of LQER (arXiv 2402.02446) with a full Hessian.
//!
//! **Invariant:** sums are F64 in an order that depends on the sizes alone.

use moe_runtime::SplitMix64;
use tl_kernels::Pool;

use super::micro_lora::MicroLora;
use crate::error::Result;
use crate::ptq::{Factor, Moments, product};

/// Shares of the mean diagonal that are added to `H`; held-out tokens choose.
const DAMPINGS: [f64; 3] = [0.01, 0.1, 1.0];
/// Rounds of the iteration for the first eigenvectors.
const ROUNDS: usize = 24;

/// The moments of the tokens that fit an addition, and of those that judge it.
pub(super) struct Judged {
    pub(super) fit: Moments,
    pub(super) held_out: Moments,
}

impl Judged {
    pub(super) fn new(inputs: usize) -> Judged {
        Judged { fit: Moments::new(inputs, false), held_out: Moments::new(inputs, false) }
    }
}

/// A matrix of the teacher and of the student, `[outputs, inputs]` each.
pub(super) struct Pair<'a> {
    pub(super) teacher: &'a [f32],
    pub(super) student: &'a [f32],
    pub(super) inputs: usize,
}

impl Pair<'_> {
    /// The addition of `rank` that lowers the error on held-out tokens the most; `None` where none does.
    pub(super) fn addition(&self, tokens: &Judged, rank: usize) -> Result<Option<MicroLora>> {
        if tokens.fit.tokens == 0 || tokens.held_out.tokens == 0 {
            return Ok(None);
        }
        let (pool, n) = (Pool::serial(), self.inputs);
        let [fit, held_out] = [self.gains(&pool, &tokens.fit)?, self.gains(&pool, &tokens.held_out)?];
        let mean = tokens.fit.mean_diagonal();
        let mut best: Option<(f64, MicroLora)> = None;
        for damping in DAMPINGS {
            let mut h = tokens.fit.student.clone();
            (0..n).for_each(|i| h[i * n + i] += damping * mean);
            let Some(factor) = Factor::new(&pool, &h, (0..n).collect()) else { continue };
            let (a, b) = factors(&fit, &factor, n, rank);
            let (scale, gain) = judged(&a, &b, &held_out, &tokens.held_out);
            if gain > best.as_ref().map_or(0.0, |(gain, _)| *gain) {
                best = Some((gain, rounded(&a, &b, scale, n)));
            }
        }
        Ok(best.map(|(_, addition)| addition))
    }

    /// `G = W C' - Q H = (W - Q) H + W (C' - H)`, `[outputs, inputs]`; the second form subtracts no large numbers.
    fn gains(&self, pool: &Pool, moments: &Moments) -> Result<Vec<f64>> {
        let n = self.inputs;
        let residual: Vec<f32> = self.teacher.iter().zip(self.student).map(|(w, q)| w - q).collect();
        let difference: Vec<f64> = moments.cross.iter().zip(&moments.student).map(|(c, h)| c - h).collect();
        let own = product(pool, &residual, &moments.student, n)?;
        let other = product(pool, self.teacher, &difference, n)?;
        Ok(own.iter().zip(&other).map(|(a, b)| f64::from(*a) + f64::from(*b)).collect())
    }
}

/// `A` `[rank, n]` and `B` by rank `[rank, outputs]`, whose rows are orthonormal, for `g` `[outputs, n]`.
fn factors(g: &[f64], h: &Factor, n: usize, rank: usize) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let outputs = g.len() / n;
    let mut random = SplitMix64::new(outputs as u64);
    let mut b: Vec<Vec<f64>> = (0..rank).map(|_| (0..outputs).map(|_| random.next_f64() - 0.5).collect()).collect();
    orthonormalise(&mut b);
    // H^-1 G' b, for one b.
    let backward = |b: &Vec<f64>| {
        let mut sum = vec![0.0; n];
        for (row, factor) in g.chunks_exact(n).zip(b) {
            sum.iter_mut().zip(row).for_each(|(sum, g)| *sum += factor * g);
        }
        let target: Vec<f32> = sum.iter().map(|v| *v as f32).collect();
        h.solve(&target).into_iter().map(f64::from).collect::<Vec<f64>>()
    };
    for _ in 0..ROUNDS {
        for b in &mut b {
            let a = backward(b);
            *b = g.chunks_exact(n).map(|row| dot(row, &a)).collect();
        }
        orthonormalise(&mut b);
    }
    (b.iter().map(backward).collect(), b)
}

/// The dot product in four partial sums.
fn dot(x: &[f64], y: &[f64]) -> f64 {
    let mut lanes = [0.0; 4];
    let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<4>(), y.as_chunks::<4>());
    for (x, y) in xs.iter().zip(ys) {
        for i in 0..4 {
            lanes[i] += x[i] * y[i];
        }
    }
    let rest: f64 = x_rest.iter().zip(y_rest).map(|(x, y)| x * y).sum();
    (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]) + rest
}

/// Makes the rows orthogonal and of length 1; a row that depends on those before it becomes zero.
fn orthonormalise(rows: &mut [Vec<f64>]) {
    for i in 0..rows.len() {
        let (before, rest) = rows.split_at_mut(i);
        let row = &mut rest[0];
        for other in before.iter() {
            let share = dot(row, other);
            row.iter_mut().zip(other).for_each(|(v, o)| *v -= share * o);
        }
        let length = dot(row, row).sqrt();
        let inverse = if length > 0.0 { 1.0 / length } else { 0.0 };
        row.iter_mut().for_each(|v| *v *= inverse);
    }
}

/// The factor of `B A` in 0..=1 that lowers the error on `moments` the most, and by how much it does; `g` is of the same
/// tokens.
fn judged(a: &[Vec<f64>], b: &[Vec<f64>], g: &[f64], moments: &Moments) -> (f64, f64) {
    let n = moments.n;
    let (mut linear, mut square) = (0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        linear += g.chunks_exact(n).zip(b).map(|(row, b)| b * dot(row, a)).sum::<f64>();
        square += moments.student.chunks_exact(n).zip(a).map(|(row, v)| v * dot(row, a)).sum::<f64>();
    }
    if linear <= 0.0 || square <= 0.0 {
        return (0.0, 0.0);
    }
    let scale = (linear / square).min(1.0);
    (scale, 2.0 * scale * linear - scale * scale * square)
}

/// The addition of `scale B A` with factors of like size, rounded to half precision as the file stores them.
fn rounded(a: &[Vec<f64>], b: &[Vec<f64>], scale: f64, n: usize) -> MicroLora {
    let half = |v: f64| half::f16::from_f64(v).to_f32();
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for (a, b) in a.iter().zip(b) {
        let length = (scale * dot(a, a).sqrt()).sqrt();
        let inverse = if length > 0.0 { scale / length } else { 0.0 };
        left.extend(a.iter().map(|v| half(v * inverse)));
        right.extend(b.iter().map(|v| half(v * length)));
    }
    let outputs = b.first().map_or(0, Vec::len);
    MicroLora::new(n, outputs, left, right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptq::samples::Samples;

    const N: usize = 32;
    const OUTPUTS: usize = 20;

    fn moments(seed: u64, shift: f32) -> (Moments, Vec<f32>, Vec<f32>) {
        let student = Samples::new(N, seed).inputs;
        let teacher: Vec<f32> = student.iter().enumerate().map(|(i, v)| v + shift * ((i % 7) as f32 - 3.0)).collect();
        let mut moments = Moments::new(N, false);
        moments.add(&Pool::serial(), &student, &teacher, &vec![1.0; student.len() / N]).unwrap();
        (moments, student, teacher)
    }

    /// The error of `Q + B A` against `W`, computed token by token.
    fn error(pair: &Pair<'_>, addition: Option<&MicroLora>, xq: &[f32], xf: &[f32]) -> f64 {
        let apply = |w: &[f32], x: &[f32]| -> Vec<f32> {
            w.chunks(N).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
        };
        let tokens = xq.chunks(N).zip(xf.chunks(N)).map(|(xq, xf)| {
            let (want, mut got) = (apply(pair.teacher, xf), apply(pair.student, xq));
            if let Some(addition) = addition {
                addition.add(xq, &mut got);
            }
            want.iter().zip(got).map(|(w, g)| f64::from(w - g).powi(2)).sum::<f64>()
        });
        tokens.sum()
    }

    fn matrices() -> (Vec<f32>, Vec<f32>) {
        let teacher: Vec<f32> = (0..OUTPUTS as u64).flat_map(|seed| Samples::new(N, seed + 9).weights).collect();
        let student: Vec<f32> = teacher.iter().map(|w| w.signum() * f32::from(w.abs() > 0.5)).collect();
        (teacher, student)
    }

    #[test]
    fn a_residual_of_low_rank_is_found_and_others_are_lowered_by_more_the_higher_the_rank() {
        let (teacher, _) = matrices();
        let thin = MicroLora::new(N, OUTPUTS, Samples::new(N, 4).inputs[..2 * N].to_vec(), vec![0.3; 2 * OUTPUTS]);
        let mut student = teacher.clone();
        for i in 0..N {
            let mut unit = vec![0.0; N];
            unit[i] = 1.0;
            let mut column = vec![0.0; OUTPUTS];
            thin.add(&unit, &mut column);
            (0..OUTPUTS).for_each(|o| student[o * N + i] -= column[o]);
        }
        let pair = Pair { teacher: &teacher, student: &student, inputs: N };
        let ((fit, fit_q, fit_f), (held_out, xq, xf)) = (moments(1, 0.0), moments(2, 0.0));
        let judged = Judged { fit, held_out };
        // Both columns of `B` are equal, so that the residual has rank 1. Damping keeps directions out that the tokens of
        // the fit hardly show, so it is found for these tokens.
        let found = pair.addition(&judged, 1).unwrap().expect("an addition helps");
        let (before, after) = (error(&pair, None, &fit_q, &fit_f), error(&pair, Some(&found), &fit_q, &fit_f));
        assert!(after < 0.01 * before, "{after} of {before}");

        let (teacher, student) = matrices();
        let pair = Pair { teacher: &teacher, student: &student, inputs: N };
        let mut last = error(&pair, None, &xq, &xf);
        for rank in [1, 2, 4] {
            let addition = pair.addition(&judged, rank).unwrap().expect("an addition helps");
            let now = error(&pair, Some(&addition), &xq, &xf);
            assert!(now < 0.98 * last, "rank {rank}: {now} of {last}");
            last = now;
        }
    }

    #[test]
    fn the_inputs_of_the_student_count_and_an_addition_without_use_is_refused() {
        let (teacher, _) = matrices();
        let ((fit, ..), (held_out, xq, xf)) = (moments(1, 0.1), moments(2, 0.1));
        let judged = Judged { fit, held_out };
        // The weights are equal, and only the inputs of the two streams differ.
        let pair = Pair { teacher: &teacher, student: &teacher, inputs: N };
        let addition = pair.addition(&judged, 2).unwrap().expect("the shift of the inputs can be made up for");
        assert!(error(&pair, Some(&addition), &xq, &xf) < error(&pair, None, &xq, &xf));
        // Equal weights and equal inputs leave nothing to add.
        let judged = Judged { fit: moments(1, 0.0).0, held_out: moments(2, 0.0).0 };
        assert_eq!(pair.addition(&judged, 2).unwrap(), None);
        assert_eq!(pair.addition(&Judged::new(N), 2).unwrap(), None, "no tokens");
    }
}
