//! The running softmax of one row.

use tl_kernels::math;

/// The running softmax of one row.
#[derive(Clone, Copy)]
pub(super) struct Softmax {
    max: f32,
    sum: f32,
}

impl Softmax {
    pub(super) const START: Softmax = Softmax { max: f32::NEG_INFINITY, sum: 0.0 };

    /// Turns a span's products into weights relative to the new maximum of the scores `scale * product`, and rescales
    /// `acc`. Returns whether any position of the span has a weight.
    pub(super) fn fold_in(&mut self, scores: &mut [f32], scale: f32, acc: &mut [f32]) -> bool {
        // The maximum ignores NaN, which then shows in its own weight.
        let top = math::scale_and_top(scores, scale);
        if top == f32::NEG_INFINITY && scores.iter().all(|&score| score == f32::NEG_INFINITY) {
            return false;
        }
        if top > self.max {
            let shrink = math::exp(self.max - top);
            self.sum *= shrink;
            math::scale_in_place(acc, shrink);
            self.max = top;
        }
        self.sum += math::exp_sum_in_place(scores, self.max);
        true
    }

    /// Divides the numerator by the denominator.
    pub(super) fn normalise(&self, acc: &mut [f32]) {
        let scale = if self.sum == 0.0 { 0.0 } else { 1.0 / self.sum };
        math::scale_in_place(acc, scale);
    }
}

#[cfg(test)]
mod tests {
    use super::super::attend::SPAN;
    use super::*;
    use tl_kernels::rows::{Table, weighted_sums};

    /// The output of one row over one-dimensional values, computed span by span.
    fn attend(scores: &[f32], values: &[f32]) -> f32 {
        let (mut state, mut acc) = (Softmax::START, [0.0]);
        for (scores, values) in scores.chunks(SPAN).zip(values.chunks(SPAN)) {
            let mut weights = scores.to_vec();
            if state.fold_in(&mut weights, 1.0, &mut acc) {
                let n = weights.len();
                weighted_sums(Table::new(&weights, 1, n, n), Table::new(values, n, 1, 1), &mut acc);
            }
        }
        state.normalise(&mut acc);
        acc[0]
    }

    fn wave(n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|i| scale * ((i * i) as f32 * 0.37).sin()).collect()
    }

    #[test]
    fn online_softmax_equals_the_plain_one() {
        for n in [1, 2, 63, 64, 65, 128, 200] {
            let (scores, values) = (wave(n, 9.0), wave(n + 1, 2.0)[1..].to_vec());
            let max = scores.iter().copied().fold(f32::MIN, f32::max);
            let weight = |s: &f32| f64::from(s - max).exp();
            let sum: f64 = scores.iter().map(weight).sum();
            let plain: f64 = scores.iter().zip(&values).map(|(s, v)| weight(s) / sum * f64::from(*v)).sum();
            let online = f64::from(attend(&scores, &values));
            assert!((online - plain).abs() < 1e-5, "{n} positions: {online} is not {plain}");
        }
    }

    #[test]
    fn masked_scores_weigh_nothing_and_a_fully_masked_row_gives_zeros() {
        let masked = f32::NEG_INFINITY;
        assert_eq!(attend(&[masked; 130], &[f32::NAN; 130]), 0.0);
        let mut scores = vec![masked; 130];
        scores[100] = -1e30;
        let mut values = vec![5.0; 130];
        values[100] = 7.0;
        assert_eq!(attend(&scores, &values), 7.0);
        scores[3] = 12.0;
        assert_eq!(attend(&scores, &values), 5.0);
    }

    #[test]
    fn a_score_that_is_no_number_shows() {
        for at in [0, 70] {
            let mut scores = wave(130, 1.0);
            scores[at] = f32::NAN;
            assert!(attend(&scores, &wave(130, 1.0)).is_nan());
        }
        assert!(attend(&[f32::NAN], &[1.0]).is_nan());
    }
}
