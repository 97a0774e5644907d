//! The experts that teacher and student choose, and the tokens that each network is calibrated on.

use moe_runtime::forward::{DecoderLayer, FeedForward, RouterScratch};
use tl_kernels::{ActivationBuffer, Pool};

use super::network::Tokens;
use super::report::RoutingReport;
use super::steps::{Search, Step};
use super::streams::Streams;

/// Tokens that are routed at a time.
const BATCH_TOKENS: usize = 1024;
/// Tokens of a run that is fitted or held out as a whole.
const RUN_TOKENS: usize = 16;
/// One run of this many is held out of the fit and judges its rows.
const HELD_OUT: usize = 16;
/// Runs by which the held-out one moves from one sixteen to the next; has no factor in common with sixteen.
const SHIFT: usize = 5;
/// Held-out tokens that a network is judged on at least, where its layer has as many.
const ENOUGH_HELD_OUT: usize = 64;

/// Whether a token is held out of the fit: one run of every sixteen, another one each time, so that no position of the
/// windows is left out of the fit or of the judgement.
pub(crate) fn is_held_out(token: usize) -> bool {
    let run = token / RUN_TOKENS;
    run % HELD_OUT == (HELD_OUT / 2 + run / HELD_OUT * SHIFT) % HELD_OUT
}

/// The experts that teacher and student choose for each token; empty for a dense layer.
pub(super) struct Routes {
    top_k: usize,
    n: usize,
    /// `[n, top_k]` each, ascending within a token.
    teacher: Vec<(u32, f32)>,
    student: Vec<(u32, f32)>,
}

impl Routes {
    pub(super) fn new(pool: &Pool, teacher: &DecoderLayer, student: &DecoderLayer, streams: &Streams) -> Self {
        let n = streams.teacher.len() / streams.hidden;
        let (top_k, teacher) = route(pool, teacher, &streams.teacher, streams.hidden);
        let (_, student) = route(pool, student, &streams.student, streams.hidden);
        Self { top_k, n, teacher, student }
    }

    /// The tokens that fit a network and those held out, and how many of each it did not see.
    ///
    /// An expert that sees fewer tokens than it has `inputs`, or fewer than 64 held-out ones, gets others of its layer, at even
    /// distances and with the mean weight of a gate.
    pub(super) fn tokens(
        &self,
        expert: Option<usize>,
        search: &Search,
        token_weights: &[f32],
        inputs: usize,
    ) -> [(Tokens, usize); 2] {
        let squared = search.steps.has(Step::GateWeights);
        let weight = |gate: f32| if squared { gate * gate } else { 1.0 };
        let gate_of = |t: usize| match expert {
            None => Some(1.0),
            Some(expert) => {
                let chosen = &self.student[t * self.top_k..][..self.top_k];
                chosen.iter().find(|(id, _)| *id as usize == expert).map(|(_, gate)| weight(*gate))
            }
        };
        let mut tokens = [Tokens::default(), Tokens::default()];
        let mut others = [Vec::new(), Vec::new()];
        for (t, token_weight) in token_weights.iter().enumerate() {
            let part = usize::from(is_held_out(t));
            match gate_of(t) {
                Some(gate) => tokens[part].push(t, gate * token_weight),
                None => others[part].push(t),
            }
        }
        let mut pooled = [0; 2];
        if search.steps.has(Step::PooledTokens) {
            let gates: f64 = self.student.iter().map(|(_, gate)| f64::from(weight(*gate))).sum();
            let mean = (gates / self.student.len().max(1) as f64) as f32;
            let parts = tokens.iter_mut().zip(&others).zip(&mut pooled);
            for (((tokens, others), pooled), enough) in parts.zip([inputs, ENOUGH_HELD_OUT]) {
                let lacking = enough.saturating_sub(tokens.positions.len()).min(others.len());
                for i in 0..lacking {
                    let t = others[i * others.len() / lacking];
                    tokens.push(t, mean * token_weights[t]);
                }
                *pooled = lacking;
            }
        }
        let [fit, held_out] = tokens;
        [(fit, pooled[0]), (held_out, pooled[1])]
    }

    pub(super) fn report(&self) -> Option<RoutingReport> {
        if self.top_k == 0 || self.n == 0 {
            return None;
        }
        let (mut exact, mut overlap, mut mass) = (0usize, 0usize, 0.0f64);
        for (teacher, student) in self.teacher.chunks_exact(self.top_k).zip(self.student.chunks_exact(self.top_k)) {
            let common = |id: u32| student.iter().any(|(other, _)| *other == id);
            let both = teacher.iter().filter(|(id, _)| common(*id));
            let (count, weight) = both.fold((0, 0.0), |(n, sum), (_, w)| (n + 1, sum + f64::from(*w)));
            let total: f64 = teacher.iter().map(|(_, w)| f64::from(*w)).sum();
            exact += usize::from(count == self.top_k);
            overlap += count;
            mass += if total > 0.0 { weight / total } else { 0.0 };
        }
        let n = self.n as f64;
        Some(RoutingReport {
            exact: exact as f64 / n,
            overlap: overlap as f64 / (n * self.top_k as f64),
            mass: mass / n,
        })
    }
}

/// How many experts a layer chooses for a token, and the choice for each row of `x`, the residual stream behind its
/// attention, ascending within a token: expert and weight. None for a dense layer.
pub(crate) fn route(pool: &Pool, layer: &DecoderLayer, x: &[f32], hidden: usize) -> (usize, Vec<(u32, f32)>) {
    let FeedForward::Moe { router, .. } = layer.ffn() else { return (0, Vec::new()) };
    let (mut acts, mut scratch) = (ActivationBuffer::new(), RouterScratch::default());
    let mut routes = Vec::new();
    for rows in x.chunks(BATCH_TOKENS * hidden) {
        acts.fill(rows.len() / hidden, hidden, |t, row| layer.norm_for_ffn(&rows[t * hidden..][..hidden], row));
        router.route(pool, &acts, &mut scratch);
        routes.extend(scratch.decision.ids.iter().copied().zip(scratch.decision.weights.iter().copied()));
    }
    (router.config().top_k, routes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_of_a_window_is_held_out_once_in_sixteen_windows() {
        const WINDOW: usize = RUN_TOKENS * HELD_OUT;
        let mut times = [0; WINDOW];
        (0..HELD_OUT * WINDOW).filter(|&token| is_held_out(token)).for_each(|token| times[token % WINDOW] += 1);
        assert_eq!(times, [1; WINDOW]);
    }
}
