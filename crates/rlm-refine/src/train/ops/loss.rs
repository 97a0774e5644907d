//! Losses of one position's logits, summed in F64, with their gradients.
//!
//! ```text
//! KL, full      sum_v p_v ln(p_v / q_v)                              d_z = q - p
//! KL, sparse    the same over the teacher's top tokens and one bucket for the rest
//! CE            -ln q_label                                          d_z = q - onehot(label)
//! action        -min(r A, clip(r, 1 - c, 1 + c) A) + beta (s - 1 - ln s)      r = q/q_old, s = q_reference/q of the token
//! ```
//! with `p` the teacher's and `q` the student's probabilities.

use tl_kernels::math;

/// The logits of a teacher at one position.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// The logit of every token, `[vocab]`.
    Full(&'a [f32]),
    /// Probabilities of the likeliest tokens; what is missing to 1 is shared by all others.
    Sparse {
        /// The likeliest tokens, each of them once.
        tokens: &'a [u32],
        /// The probability of each of these tokens.
        probabilities: &'a [f32],
    },
    /// A token that the model sampled, with its advantage.
    Action(Action),
}

/// A sampled token, for a step of policy optimisation (arXiv 1707.06347, 2402.03300).
#[derive(Clone, Copy, Debug)]
pub struct Action {
    /// Its number in the vocabulary.
    pub token: u32,
    /// The reward beyond that of other answers, in deviations.
    pub advantage: f64,
    /// Log probability of the token when it was sampled.
    pub old: f64,
    /// Log probability of the token by the model to stay near.
    pub reference: f64,
    /// The distance of the ratio from 1 beyond which it earns nothing.
    pub clip: f64,
    /// Factor of the divergence from the reference.
    pub beta: f64,
}

/// Most distance of two log probabilities that counts.
const MOST_DISTANCE: f64 = 20.0;

/// Least probability of the bucket of all other tokens: a teacher's below it is rounding, and a student's above it keeps the
/// gradient bounded.
const LEAST_TAIL: f64 = 1e-6;

/// The probabilities of logits in F64, and the number that turns a logit into the logarithm of its probability.
struct Softmax {
    p: Vec<f64>,
    log_sum: f64,
}

impl Softmax {
    fn new(logits: &[f32]) -> Self {
        let top = logits.iter().fold(f32::NEG_INFINITY, |m, &z| if z > m { z } else { m });
        let mut p: Vec<f64> = logits.iter().map(|&z| f64::from(z - top)).collect();
        math::exp_f64_in_place(&mut p);
        let sum: f64 = p.iter().sum();
        p.iter_mut().for_each(|p| *p /= sum);
        Self { p, log_sum: f64::from(top) + math::ln(sum) }
    }

    fn ln(&self, logit: f32) -> f64 {
        f64::from(logit) - self.log_sum
    }
}

/// The loss of a sampled token with log probability `now`, and its derivative by that.
fn surrogate(action: &Action, now: f64) -> (f64, f64) {
    let within = |distance: f64| distance.clamp(-MOST_DISTANCE, MOST_DISTANCE);
    let ratio = math::exp_f64(within(now - action.old));
    let gain = ratio * action.advantage;
    let clipped = ratio.clamp(1.0 - action.clip, 1.0 + action.clip) * action.advantage;
    let away = within(action.reference - now);
    let apart = math::exp_f64(away);
    // Where the clipped gain is smaller, it does not depend on the probability.
    let earned = if gain <= clipped { gain } else { 0.0 };
    (action.beta * (apart - away - 1.0) - gain.min(clipped), action.beta * (1.0 - apart) - earned)
}

/// The log probability of `token` by `logits` `[vocab]`.
#[must_use]
pub fn log_probability(logits: &[f32], token: u32) -> f64 {
    Softmax::new(logits).ln(logits[token as usize])
}

/// The probability of every token by `logits` `[vocab]`.
#[must_use]
pub fn probabilities(logits: &[f32]) -> Vec<f64> {
    Softmax::new(logits).p
}

/// The divergence of the student's `logits` `[vocab]` from `target`; adds `weight` times its gradient to `d_logits`.
pub fn divergence(logits: &[f32], target: Target<'_>, weight: f32, d_logits: &mut [f32]) -> f64 {
    let student = Softmax::new(logits);
    let (q, weight) = (&student.p, f64::from(weight));
    match target {
        Target::Action(action) => {
            let at = action.token as usize;
            let (loss, slope) = surrogate(&action, student.ln(logits[at]));
            for (d, q) in d_logits.iter_mut().zip(q) {
                *d -= (weight * slope * q) as f32;
            }
            d_logits[at] += (weight * slope) as f32;
            loss
        }
        Target::Full(teacher) => {
            let softmax = Softmax::new(teacher);
            let mut sum = 0.0;
            for (v, d) in d_logits.iter_mut().enumerate() {
                let p = softmax.p[v];
                sum += p * (softmax.ln(teacher[v]) - student.ln(logits[v]));
                *d += (weight * (q[v] - p)) as f32;
            }
            sum
        }
        Target::Sparse { tokens, probabilities } => {
            let seen: f64 = probabilities.iter().map(|&p| f64::from(p)).sum();
            let tail = if seen > 1.0 - LEAST_TAIL { 0.0 } else { 1.0 - seen };
            let student_seen: f64 = tokens.iter().map(|&t| q[t as usize]).sum();
            let student_tail = (1.0 - student_seen).max(LEAST_TAIL);
            let mut sum = if tail > 0.0 { tail * math::ln(tail / student_tail) } else { 0.0 };
            let rest = seen + tail - tail / student_tail;
            for (d, q) in d_logits.iter_mut().zip(q) {
                *d += (weight * q * rest) as f32;
            }
            for (&token, &p) in tokens.iter().zip(probabilities) {
                let (p, q) = (f64::from(p), q[token as usize]);
                if p > 0.0 {
                    sum += p * (math::ln(p) - student.ln(logits[token as usize]));
                }
                d_logits[token as usize] += (weight * (q * tail / student_tail - p)) as f32;
            }
            sum
        }
    }
}

/// The cross entropy of the student's `logits` `[vocab]` with the token that follows; adds `weight` times its gradient.
pub fn cross_entropy(logits: &[f32], label: u32, weight: f32, d_logits: &mut [f32]) -> f64 {
    let student = Softmax::new(logits);
    for (d, q) in d_logits.iter_mut().zip(&student.p) {
        *d += (f64::from(weight) * q) as f32;
    }
    d_logits[label as usize] -= weight;
    -student.ln(logits[label as usize])
}
