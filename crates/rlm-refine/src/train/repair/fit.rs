//! The fit of one router.
//!
//! ```text
//! ridge   min over W of sum_t |W x_t - z_t|^2 + damping |W - W0|^2            z: the teacher's logits
//! kl      d_z = s - s_teacher                                               of sigmoid and of softmax scores alike
//! hinge   sum over p chosen, n not chosen of max(0, margin - u_p + u_n)     u = s + bias; n: the top_k highest of the others
//! contrastive    contrastive.rs
//! ```
//! The last three go on from the ridge with AdamW. Source of the ridge: `W = W0 + R (H + damping)^-1` with `H = sum x x'` and
//! `R = sum (z - W0 x) x'`.
//!
//! **Invariant:** sums have one order, so the router depends neither on threads nor on the instruction set.

use moe_runtime::models::Gating;
use tl_kernels::dense::axpy_f32;
use tl_kernels::strided::{Mat, Out, multiply};

use super::contrastive::{ContrastiveTrainer, RoutingBatch};
use super::method::{RepairedRouter, RouterMethod};
use super::routed::{Labels, Routed, taken};
use crate::error::Result;
use crate::ptq::{CHUNK_TOKENS, Factor, Moments};
use crate::train::batches::Batches;
use crate::train::optim::{AdamW, Schedule};

/// Shares of the mean diagonal of `H` that are tried as damping.
const DAMPINGS: [f64; 4] = [1e-4, 1e-3, 1e-2, 1e-1];
/// Steps of the gradient methods, and tokens of a step.
const STEPS: usize = 300;
const STEP_TOKENS: usize = 1024;
/// Steps between two judgements on held-out rows.
const JUDGED_STEPS: usize = 30;
/// The highest rate, in units of the root mean square of the router's weights.
const RATE: f32 = 0.02;
/// The distance that chosen experts are to keep from others, in units of the score.
const MARGIN: f32 = 0.05;

/// A router, its inputs and what it is to choose.
pub(super) struct Problem<'a> {
    pub(super) routed: Routed<'a>,
    /// The router as it is, `[n_experts, hidden]`.
    pub(super) start: Vec<f32>,
    /// The rows of the fit, `[n, hidden]`.
    pub(super) x: &'a [f32],
    pub(super) labels: Labels,
    /// Rows that judge the fit, with the teacher's experts `[_, top_k]`.
    pub(super) held_out: (&'a [f32], Vec<u32>),
}

impl Problem<'_> {
    /// The outcome of the method, and its router.
    pub(super) fn solve(&self, layer: usize, method: RouterMethod) -> Result<(RepairedRouter, Vec<f32>)> {
        let agreement_before = self.judge(&self.start)?;
        let mut weight = self.ridge()?;
        if method != RouterMethod::Ridge {
            weight = self.descend(weight, method, &ContrastiveTrainer::default())?;
        }
        let agreement_after = self.judge(&weight)?;
        let is_kept = agreement_after > agreement_before && weight.iter().all(|w| w.is_finite());
        Ok((RepairedRouter { layer, agreement_before, agreement_after, is_kept }, weight))
    }

    fn judge(&self, weight: &[f32]) -> Result<f64> {
        self.routed.agreement(weight, self.held_out.0, &self.held_out.1)
    }

    /// The ridge whose damping agrees best on held-out rows; the start where no damping gives one.
    fn ridge(&self) -> Result<Vec<f32>> {
        let (pool, n) = (self.routed.pool, self.routed.hidden);
        let mut moments = Moments::new(n, false);
        for x in self.x.chunks(CHUNK_TOKENS * n) {
            moments.add(pool, x, x, &vec![1.0; x.len() / n])?;
        }
        let residuals = self.residuals();
        let mut best = (self.judge(&self.start)?, self.start.clone());
        for damping in DAMPINGS {
            let mut h = moments.student.clone();
            (0..n).for_each(|i| h[i * n + i] += damping * moments.mean_diagonal());
            let Some(factor) = Factor::new(pool, &h, (0..n).collect()) else { continue };
            let mut weight = self.start.clone();
            axpy_f32(1.0, &factor.solve(&residuals), &mut weight);
            let agreement = self.judge(&weight)?;
            if agreement > best.0 {
                best = (agreement, weight);
            }
        }
        Ok(best.1)
    }

    /// The sum `R` of the ridge, `[n_experts, hidden]`.
    fn residuals(&self) -> Vec<f32> {
        let (n, e) = (self.routed.hidden, self.routed.config.n_experts);
        let tokens = self.x.len() / n;
        let mut missing = vec![0.0; tokens * e];
        let (x, start) = (Mat::new(self.x, tokens, n), Mat::new(&self.start, e, n));
        multiply(self.routed.pool, Out::to(&mut missing, e), x, start.t());
        missing.iter_mut().zip(&self.labels.logits).for_each(|(missing, z)| *missing = z - *missing);
        let mut sums = vec![0.0; e * n];
        multiply(self.routed.pool, Out::to(&mut sums, n), Mat::new(&missing, tokens, e).t(), x);
        sums
    }

    /// AdamW from `weight` on: the router on the way that agrees best on held-out rows.
    fn descend(
        &self,
        mut weight: Vec<f32>,
        method: RouterMethod,
        contrastive: &ContrastiveTrainer,
    ) -> Result<Vec<f32>> {
        let (n, e) = (self.routed.hidden, self.routed.config.n_experts);
        let square = self.start.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>() / self.start.len().max(1) as f64;
        let rate = RATE * square.sqrt() as f32;
        let schedule = Schedule { steps: STEPS, warmup: STEPS / 20, floor: 0.02 };
        let tokens = self.x.len() / n;
        let batches = Batches { windows: tokens, per_step: STEP_TOKENS.min(tokens), seed: 0 };
        let mut moments = [vec![0.0; weight.len()], vec![0.0; weight.len()]];
        let mut best = (self.judge(&weight)?, weight.clone());
        let before = match method {
            RouterMethod::Contrastive => self.routed.route(&self.start, self.x)?.scores,
            RouterMethod::Ridge | RouterMethod::Kl | RouterMethod::Hinge => Vec::new(),
        };
        for step in 0..STEPS {
            let batch = batches.of_step(step);
            let x = taken(self.x, n, &batch);
            let scores = self.routed.route(&weight, &x)?.scores;
            let d = match method {
                RouterMethod::Contrastive => self.contrastive(contrastive, &batch, [&before, &scores]),
                RouterMethod::Hinge => self.hinge(&batch, &scores),
                RouterMethod::Kl | RouterMethod::Ridge => {
                    let wanted = taken(&self.labels.scores, e, &batch);
                    scores.iter().zip(&wanted).map(|(s, wanted)| (s - wanted) / batch.len() as f32).collect()
                }
            };
            let mut gradient = vec![0.0; weight.len()];
            let d = Mat::new(&d, batch.len(), e);
            multiply(self.routed.pool, Out::to(&mut gradient, n), d.t(), Mat::new(&x, batch.len(), n));
            let [mean, squares] = &mut moments;
            AdamW::default().step(rate * schedule.share(step), step + 1, &mut weight, &gradient, [mean, squares]);
            if (step + 1) % JUDGED_STEPS == 0 {
                let agreement = self.judge(&weight)?;
                if agreement > best.0 {
                    best = (agreement, weight.clone());
                }
            }
        }
        Ok(best.1)
    }

    /// The mean gradient of the hinge by the logits of some rows, for their scores `[n, n_experts]`.
    fn hinge(&self, batch: &[usize], scores: &[f32]) -> Vec<f32> {
        let (gating, k) = (self.routed.config.gating, self.routed.config.top_k);
        let ids = taken(&self.labels.ids, k, batch);
        let tokens = scores.chunks_exact(self.routed.config.n_experts).zip(ids.chunks_exact(k));
        let rows = tokens.flat_map(|(scores, ids)| through_gate(gating, scores, hinge(scores, self.routed.bias, ids)));
        rows.map(|d| d / batch.len() as f32).collect()
    }

    /// The gradient of the contrastive loss by the logits of some rows, for their `scores` `[n, n_experts]` and the scores `before`
    /// of all rows by the router as it is.
    fn contrastive(&self, trainer: &ContrastiveTrainer, batch: &[usize], [before, scores]: [&[f32]; 2]) -> Vec<f32> {
        let (e, top_k) = (self.routed.config.n_experts, self.routed.config.top_k);
        let biased = |scores: &[f32]| -> Vec<f32> {
            let bias = |i: usize| self.routed.bias.map_or(0.0, |bias| bias[i % e]);
            scores.iter().enumerate().map(|(i, score)| score + bias(i)).collect()
        };
        let routing = RoutingBatch {
            scores: &biased(scores),
            teacher: &biased(&taken(&self.labels.scores, e, batch)),
            before: &biased(&taken(before, e, batch)),
            chosen: &taken(&self.labels.ids, top_k, batch),
            top_k,
        };
        let mut d = vec![0.0; scores.len()];
        trainer.loss(&routing, &mut d);
        let rows = scores.chunks_exact(e).zip(d.chunks_exact(e));
        rows.flat_map(|(scores, d)| through_gate(self.routed.config.gating, scores, d.to_vec())).collect()
    }
}

/// The gradient of the hinge of one token by the scores `[n_experts]`, for the experts `chosen` by the teacher, ascending.
fn hinge(scores: &[f32], bias: Option<&[f32]>, chosen: &[u32]) -> Vec<f32> {
    let u = |id: usize| scores[id] + bias.map_or(0.0, |bias| bias[id]);
    let is_chosen = |id: usize| u32::try_from(id).is_ok_and(|id| chosen.binary_search(&id).is_ok());
    let mut others: Vec<usize> = (0..scores.len()).filter(|&id| !is_chosen(id)).collect();
    others.sort_by(|&a, &b| u(b).total_cmp(&u(a)).then(a.cmp(&b)));
    others.truncate(chosen.len());
    let share = 1.0 / (chosen.len() * others.len()).max(1) as f32;
    let mut d = vec![0.0; scores.len()];
    for &p in chosen {
        for &n in &others {
            if MARGIN - u(p as usize) + u(n) > 0.0 {
                d[p as usize] -= share;
                d[n] += share;
            }
        }
    }
    d
}

/// The gradient by the logits for the gradient `d` by the scores.
fn through_gate(gating: Gating, scores: &[f32], mut d: Vec<f32>) -> Vec<f32> {
    match gating {
        Gating::Sigmoid => d.iter_mut().zip(scores).for_each(|(d, s)| *d *= s * (1.0 - s)),
        Gating::Softmax => {
            let mean: f32 = d.iter().zip(scores).map(|(d, s)| d * s).sum();
            d.iter_mut().zip(scores).for_each(|(d, s)| *d = s * (*d - mean));
        }
    }
    d
}

#[cfg(test)]
mod tests {
    use moe_runtime::models::{GroupScore, Presence, RouterConfig, WeightNorm};
    use tl_kernels::Pool;

    use super::*;
    use crate::train::repair::ContrastiveOptions;
    use crate::train::samples::Samples;

    /// Agreement on held-out rows before and behind a contrastive descent from a disturbed router, towards the choices of the
    /// undisturbed one; labels are moved by `shift` tokens.
    fn contrastive_gain(options: ContrastiveOptions, shift: usize) -> (f64, f64, bool) {
        let (e, hidden, n, held_out) = (8, 16, 1500, 400);
        let config = RouterConfig {
            gating: Gating::Sigmoid,
            n_experts: e,
            top_k: 2,
            n_group: 1,
            topk_group: 1,
            group_score: GroupScore::Max,
            norm: WeightNorm::None,
            scaling: 1.0,
            selection_bias: Presence::Absent,
        };
        let (pool, mut samples) = (Pool::serial(), Samples::new(9));
        let teacher: Vec<f32> = samples.values(e * hidden).iter().map(|w| 0.25 * w).collect();
        let start: Vec<f32> = teacher.iter().zip(samples.values(e * hidden)).map(|(w, by)| w + 0.1 * by).collect();
        let x = samples.values((n + held_out) * hidden);
        let routed = Routed { pool: &pool, config: &config, bias: None, hidden };
        let labels = |x: &[f32]| Labels::of(routed.route(&teacher, x).unwrap());
        let mut of_fit = labels(&x[..n * hidden]);
        of_fit.ids.rotate_left(shift * 2);
        of_fit.scores.rotate_left(shift * e);
        let judged = labels(&x[n * hidden..]).ids;
        let held_out = (&x[n * hidden..], judged);
        let problem = Problem { routed, start: start.clone(), x: &x[..n * hidden], labels: of_fit, held_out };
        let trainer = ContrastiveTrainer { options };
        let weight = problem.descend(start.clone(), RouterMethod::Contrastive, &trainer).unwrap();
        (problem.judge(&start).unwrap(), problem.judge(&weight).unwrap(), weight == start)
    }

    #[test]
    fn the_contrastive_loss_repairs_a_router_by_itself_and_neither_other_labels_nor_no_terms_do() {
        let options = ContrastiveOptions::default();
        let (before, after, _) = contrastive_gain(options, 0);
        assert!(after > before + 0.1, "{before} {after}");
        let (_, shuffled, _) = contrastive_gain(options, 37);
        assert!(shuffled <= before + 0.01, "{before} {shuffled} with the labels of other tokens");
        let nothing =
            ContrastiveOptions { triplet: 0.0, info_nce: 0.0, churn: 0.0, boundary: 0.0, balance: 0.0, ..options };
        let (_, same, is_same) = contrastive_gain(nothing, 0);
        assert!(is_same && same == before);
    }

    #[test]
    fn the_hinge_lifts_chosen_experts_that_lie_below_hard_negatives_and_rests_beyond_the_margin() {
        // Experts 0 and 3 are chosen; 1 scores above 3, 4 is far below both.
        let scores = [0.9, 0.5, 0.2, 0.4, 0.0];
        let d = hinge(&scores, None, &[0, 3]);
        assert!(d[0] == 0.0 && d[3] < 0.0 && d[1] > 0.0 && d[2] == 0.0 && d[4] == 0.0, "{d:?}");
        // A bias that lifts expert 3 beyond the margin leaves nothing to do.
        let d = hinge(&scores, Some(&[0.0, 0.0, 0.0, 0.3, 0.0]), &[0, 3]);
        assert_eq!(d, [0.0; 5]);
    }

    #[test]
    fn gradients_pass_through_either_gate_as_differences_do() {
        let (z, d): (Vec<f32>, Vec<f32>) = (vec![0.3, -0.7, 1.1], vec![0.5, -1.0, 0.25]);
        let value = |gating, z: &[f32]| -> f64 {
            let mut s: Vec<f64> = z.iter().map(|&z| f64::from(z)).collect();
            match gating {
                Gating::Sigmoid => s.iter_mut().for_each(|s| *s = 1.0 / (1.0 + (-*s).exp())),
                Gating::Softmax => {
                    let sum: f64 = s.iter().map(|s| s.exp()).sum();
                    s.iter_mut().for_each(|s| *s = s.exp() / sum);
                }
            }
            s.iter().zip(&d).map(|(s, d)| s * f64::from(*d)).sum()
        };
        for gating in [Gating::Sigmoid, Gating::Softmax] {
            let mut scores = z.clone();
            match gating {
                Gating::Sigmoid => tl_kernels::math::sigmoid_in_place(&mut scores),
                Gating::Softmax => tl_kernels::math::softmax_in_place(&mut scores),
            }
            let ours = through_gate(gating, &scores, d.clone());
            for i in 0..z.len() {
                let moved =
                    |by: f32| z.iter().enumerate().map(|(j, z)| if i == j { z + by } else { *z }).collect::<Vec<_>>();
                let difference = (value(gating, &moved(0.01)) - value(gating, &moved(-0.01))) / 0.02;
                assert!((f64::from(ours[i]) - difference).abs() < 1e-4, "{ours:?} [{i}] {difference}");
            }
        }
    }
}
