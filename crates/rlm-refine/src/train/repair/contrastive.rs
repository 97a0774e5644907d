//! `ContrastiveTrainer`: the loss that separates the teacher's experts of a token from its hard negatives.
//!
//! ```text
//! u_e = score of expert e + bias of its selection;  P: the teacher's experts;  H: hard negatives
//! triplet    mean over p, h of max(0, margin - u_p + u_h)
//! InfoNCE    mean over p of ln(1 + sum over h of exp((u_h - u_p) / temperature))
//! churn      mean over e of (u_e - u0_e)^2             tokens that the old router, with scores u0, sends to P already
//! boundary   max(0, min(gap of the teacher, margin) - gap)^2      gap = lowest u of P - highest u of the others
//! balance    n_experts times the sum over e of (share of e - teacher's share of e)^2     share: mean softmax(u / temperature)
//! ```
//! `H` is the `top_k` experts outside `P` that the student scores highest, and those the teacher ranks right behind `P`. Distances
//! are differences of routing scores, not cosines of embeddings, because a router of sigmoid scores compares those. Sources:
//! triplet loss of arXiv 1503.03832; InfoNCE of arXiv 1807.03748, with several positives as in arXiv 2004.11362.
//!
//! **Invariant:** a batch that is routed as the teacher routes it, beyond the margin and by the old scores, has a gradient only from
//! InfoNCE.

use tl_kernels::math;

/// The factors of the terms, and their constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ContrastiveOptions {
    /// The distance that chosen experts are to keep from others, in units of the score.
    pub margin: f32,
    /// Divides the scores in InfoNCE and in the shares of the balance.
    pub temperature: f32,
    /// Factor of the triplet term.
    pub triplet: f32,
    /// Factor of InfoNCE, which draws chosen experts away from all hard negatives at once.
    pub info_nce: f32,
    /// Factor of the churn, which holds decisions that are right already.
    pub churn: f32,
    /// Factor of the penalty on gaps that are narrower than the teacher's.
    pub boundary: f32,
    /// Factor of the balance of loads.
    pub balance: f32,
}

impl Default for ContrastiveOptions {
    fn default() -> Self {
        Self { margin: 0.05, temperature: 0.1, triplet: 1.0, info_nce: 0.1, churn: 0.1, boundary: 1.0, balance: 0.1 }
    }
}

/// The routing of some tokens. Scores are those of selection, with the bias: `[n, n_experts]`.
#[derive(Clone, Copy, Debug)]
pub struct RoutingBatch<'a> {
    /// The scores of the router in training.
    pub scores: &'a [f32],
    /// The scores that the teacher's router gives the same tokens.
    pub teacher: &'a [f32],
    /// The scores of the router before its training.
    pub before: &'a [f32],
    /// The teacher's experts, `[n, top_k]`, ascending within a token.
    pub chosen: &'a [u32],
    /// The number of experts that each token is sent to.
    pub top_k: usize,
}

impl RoutingBatch<'_> {
    fn n_experts(&self) -> usize {
        self.scores.len() * self.top_k / self.chosen.len().max(1)
    }
}

/// The loss of routing scores against a teacher's choices, with its gradient.
#[derive(Clone, Copy, Debug, Default)]
pub struct ContrastiveTrainer {
    /// The terms that count, and how much.
    pub options: ContrastiveOptions,
}

/// One token of a batch.
struct Token<'a> {
    u: &'a [f32],
    chosen: Vec<usize>,
    /// Numbers of the hard negatives, ascending.
    hard: Vec<usize>,
}

impl<'a> Token<'a> {
    fn new(u: &'a [f32], teacher: &[f32], chosen: &[u32]) -> Self {
        let chosen: Vec<usize> = chosen.iter().map(|&id| id as usize).collect();
        let mut hard = Self::highest_outside(u, &chosen);
        hard.extend(Self::highest_outside(teacher, &chosen));
        hard.sort_unstable();
        hard.dedup();
        Self { u, chosen, hard }
    }

    /// As many experts as are chosen, of those that are not, with the highest scores.
    fn highest_outside(scores: &[f32], chosen: &[usize]) -> Vec<usize> {
        let mut others: Vec<usize> = (0..scores.len()).filter(|id| !chosen.contains(id)).collect();
        others.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        others.truncate(chosen.len());
        others
    }

    /// The chosen expert with the lowest score and the other one with the highest; `None` where every expert is chosen.
    fn boundary(&self, scores: &[f32]) -> Option<(usize, usize)> {
        let low = self.chosen.iter().copied().min_by(|&a, &b| scores[a].total_cmp(&scores[b]))?;
        Some((low, *Self::highest_outside(scores, &self.chosen).first()?))
    }
}

/// The value of a term and the gradient it adds to.
struct Sum<'d> {
    value: f64,
    d: &'d mut [f32],
}

impl Sum<'_> {
    fn add(&mut self, expert: usize, by: f64) {
        self.d[expert] += by as f32;
    }
}

impl ContrastiveTrainer {
    /// The mean loss of the tokens; its gradient is added to `d_scores` `[n, n_experts]`.
    ///
    /// # Panics
    /// When the slices of the batch do not fit each other.
    pub fn loss(&self, batch: &RoutingBatch<'_>, d_scores: &mut [f32]) -> f64 {
        let (e, k) = (batch.n_experts(), batch.top_k);
        let n = batch.chosen.len() / k.max(1);
        let mut value = 0.0;
        for (t, d) in d_scores.chunks_exact_mut(e.max(1)).enumerate() {
            let row = t * e..(t + 1) * e;
            let teacher = &batch.teacher[row.clone()];
            let token = Token::new(&batch.scores[row.clone()], teacher, &batch.chosen[t * k..(t + 1) * k]);
            let mut sum = Sum { value: 0.0, d };
            let share = 1.0 / n as f64;
            self.triplet(&token, share, &mut sum);
            self.info_nce(&token, share, &mut sum);
            self.boundary(&token, teacher, share, &mut sum);
            self.churn(&token, &batch.before[row], share, &mut sum);
            value += sum.value;
        }
        value + self.balance(batch, d_scores)
    }

    fn triplet(&self, token: &Token<'_>, share: f64, sum: &mut Sum<'_>) {
        let weight = f64::from(self.options.triplet) * share / (token.chosen.len() * token.hard.len()).max(1) as f64;
        for &p in &token.chosen {
            for &h in &token.hard {
                let short = f64::from(self.options.margin) - f64::from(token.u[p]) + f64::from(token.u[h]);
                if short > 0.0 {
                    sum.value += weight * short;
                    sum.add(p, -weight);
                    sum.add(h, weight);
                }
            }
        }
    }

    fn info_nce(&self, token: &Token<'_>, share: f64, sum: &mut Sum<'_>) {
        let temperature = f64::from(self.options.temperature);
        let weight = f64::from(self.options.info_nce) * share / token.chosen.len().max(1) as f64;
        for &p in &token.chosen {
            let of = |h: usize| math::exp_f64((f64::from(token.u[h]) - f64::from(token.u[p])) / temperature);
            let all = 1.0 + token.hard.iter().map(|&h| of(h)).sum::<f64>();
            sum.value += weight * math::ln(all);
            for &h in &token.hard {
                let by = weight * of(h) / (all * temperature);
                sum.add(h, by);
                sum.add(p, -by);
            }
        }
    }

    fn boundary(&self, token: &Token<'_>, teacher: &[f32], share: f64, sum: &mut Sum<'_>) {
        let Some(((low, high), (of_low, of_high))) = token.boundary(token.u).zip(token.boundary(teacher)) else {
            return;
        };
        let weight = f64::from(self.options.boundary) * share;
        let wanted = (f64::from(teacher[of_low]) - f64::from(teacher[of_high])).min(f64::from(self.options.margin));
        let short = wanted - (f64::from(token.u[low]) - f64::from(token.u[high]));
        if short > 0.0 {
            sum.value += weight * short * short;
            sum.add(low, -2.0 * weight * short);
            sum.add(high, 2.0 * weight * short);
        }
    }

    fn churn(&self, token: &Token<'_>, before: &[f32], share: f64, sum: &mut Sum<'_>) {
        // The old router chose the teacher's experts if none of the others scored as high.
        let was_right = token.boundary(before).is_some_and(|(low, high)| before[low] > before[high]);
        if !was_right {
            return;
        }
        let weight = f64::from(self.options.churn) * share / before.len().max(1) as f64;
        for (expert, (&u, &old)) in token.u.iter().zip(before).enumerate() {
            let moved = f64::from(u) - f64::from(old);
            sum.value += weight * moved * moved;
            sum.add(expert, 2.0 * weight * moved);
        }
    }

    fn balance(&self, batch: &RoutingBatch<'_>, d_scores: &mut [f32]) -> f64 {
        let e = batch.n_experts().max(1);
        let (own, teacher) = (self.shares(batch.scores, e), self.shares(batch.teacher, e));
        let weight = f64::from(self.options.balance) * e as f64;
        let missing: Vec<f64> = own.mean.iter().zip(&teacher.mean).map(|(own, teacher)| own - teacher).collect();
        let n = (batch.scores.len() / e).max(1) as f64;
        for (p, d) in own.of_tokens.chunks_exact(e).zip(d_scores.chunks_exact_mut(e)) {
            let mean: f64 = p.iter().zip(&missing).map(|(p, missing)| p * missing).sum();
            for ((p, missing), d) in p.iter().zip(&missing).zip(d) {
                *d += (2.0 * weight * p * (missing - mean) / (n * f64::from(self.options.temperature))) as f32;
            }
        }
        weight * missing.iter().map(|missing| missing * missing).sum::<f64>()
    }

    fn shares(&self, scores: &[f32], e: usize) -> Shares {
        let (mut of_tokens, mut mean) = (Vec::with_capacity(scores.len()), vec![0.0; e]);
        let n = (scores.len() / e).max(1) as f64;
        for u in scores.chunks_exact(e) {
            let top = u.iter().fold(f32::NEG_INFINITY, |top, &u| top.max(u));
            let parts = u.iter().map(|&u| math::exp_f64(f64::from(u - top) / f64::from(self.options.temperature)));
            let parts: Vec<f64> = parts.collect();
            let sum: f64 = parts.iter().sum();
            of_tokens.extend(parts.iter().map(|part| part / sum));
        }
        for row in of_tokens.chunks_exact(e) {
            mean.iter_mut().zip(row).for_each(|(mean, p)| *mean += p / n);
        }
        Shares { of_tokens, mean }
    }
}

/// The softmax of each token's scores, `[n, n_experts]`, and its mean over tokens.
struct Shares {
    of_tokens: Vec<f64>,
    mean: Vec<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::samples::Samples;

    const EXPERTS: usize = 6;
    const NOTHING: ContrastiveOptions = ContrastiveOptions {
        margin: 0.3,
        temperature: 0.5,
        triplet: 0.0,
        info_nce: 0.0,
        churn: 0.0,
        boundary: 0.0,
        balance: 0.0,
    };
    /// Each term by itself.
    const TERMS: [ContrastiveOptions; 5] = [
        ContrastiveOptions { triplet: 1.0, ..NOTHING },
        ContrastiveOptions { info_nce: 1.0, ..NOTHING },
        ContrastiveOptions { churn: 1.0, ..NOTHING },
        ContrastiveOptions { boundary: 1.0, ..NOTHING },
        ContrastiveOptions { balance: 1.0, ..NOTHING },
    ];

    /// The `k` experts with the highest scores, ascending.
    fn top(scores: &[f32], k: usize) -> Vec<u32> {
        let mut ids: Vec<u32> = (0..scores.len() as u32).collect();
        ids.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
        ids.truncate(k);
        ids.sort_unstable();
        ids
    }

    #[test]
    fn every_term_has_a_gradient_that_follows_its_differences() {
        let mut samples = Samples::new(5);
        let [order, teacher, mut before] = [(); 3].map(|()| samples.values(7 * EXPERTS));
        // Scores of one token lie 0.2 apart, so that no step changes the hard negatives or passes the margin.
        let rank = |row: &[f32], score: f32| row.iter().filter(|other| **other < score).count() as f32;
        let rows = order.chunks_exact(EXPERTS);
        let scores: Vec<f32> = rows.flat_map(|row| row.iter().map(|&score| 0.2 * rank(row, score))).collect();
        // Some tokens were routed rightly before.
        before[..3 * EXPERTS].copy_from_slice(&teacher[..3 * EXPERTS]);
        let chosen: Vec<u32> = teacher.chunks_exact(EXPERTS).flat_map(|scores| top(scores, 2)).collect();
        for options in TERMS {
            let trainer = ContrastiveTrainer { options };
            let loss = |scores: &[f32], d: &mut [f32]| {
                trainer.loss(&RoutingBatch { scores, teacher: &teacher, before: &before, chosen: &chosen, top_k: 2 }, d)
            };
            let mut d = vec![0.0; scores.len()];
            assert!(loss(&scores, &mut d) > 0.0, "{options:?}");
            for direction in 0..8 {
                let direction = Samples::new(100 + direction).values(scores.len());
                let along: f64 = d.iter().zip(&direction).map(|(d, v)| f64::from(*d) * f64::from(*v)).sum();
                let error = [1e-2f32, 3e-3, 1e-3].map(|step| {
                    let at = |sign: f32| {
                        let moved: Vec<f32> = scores.iter().zip(&direction).map(|(s, v)| s + sign * step * v).collect();
                        loss(&moved, &mut vec![0.0; scores.len()])
                    };
                    ((at(1.0) - at(-1.0)) / (2.0 * f64::from(step)) - along).abs() / along.abs().max(1e-3)
                });
                assert!(error.iter().any(|error| *error < 1e-3), "{options:?}: {error:?} of {along}");
            }
        }
    }

    #[test]
    fn a_batch_that_is_routed_as_the_teacher_routes_it_beyond_the_margin_is_left_alone() {
        let scores = [0.9, 0.8, 0.2, 0.1, 0.3, 0.2];
        let batch = RoutingBatch { scores: &scores, teacher: &scores, before: &scores, chosen: &[0, 1], top_k: 2 };
        for options in TERMS {
            let mut d = [0.0; EXPERTS];
            let value = ContrastiveTrainer { options }.loss(&batch, &mut d);
            assert_eq!(options.info_nce == 0.0, value == 0.0 && d == [0.0; EXPERTS], "{options:?}");
        }
    }

    #[test]
    fn the_experts_that_the_teacher_ranks_next_are_hard_negatives_too() {
        // The student scores 2 and 3 highest of the others, the teacher ranks 4 and 5 behind its choice.
        let scores = [0.5, 0.5, 0.9, 0.8, 0.1, 0.1];
        let teacher = [0.9, 0.8, 0.1, 0.0, 0.6, 0.5];
        let batch = RoutingBatch { scores: &scores, teacher: &teacher, before: &scores, chosen: &[0, 1], top_k: 2 };
        let mut d = [0.0; EXPERTS];
        ContrastiveTrainer { options: ContrastiveOptions { info_nce: 1.0, ..NOTHING } }.loss(&batch, &mut d);
        assert!(d[..2].iter().all(|d| *d < 0.0) && d[2..].iter().all(|d| *d > 0.0), "{d:?}");
        assert!(d[2] > d[4], "the expert that scores higher is pushed harder: {d:?}");
    }
}
