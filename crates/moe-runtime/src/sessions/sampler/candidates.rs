//! The tokens that may be drawn: filtered, then drawn from.

use super::config::SamplerConfig;
use super::to_id;
use crate::error::Result;

/// Tokens that are sorted first; each time that more are needed, [`GROWTH`] times as many are sorted.
const FIRST_SORTED: usize = 128;
const GROWTH: usize = 8;

/// Tokens with their weights; the best one has weight 1. Only as many as a draw looks at are sorted: a vocabulary has 150,000
/// tokens, and mostly a few of them hold nearly all of the weight.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    /// The weights of the whole vocabulary.
    weights: Vec<f32>,
    tokens: Vec<Candidate>,
    /// The first so many tokens are sorted, and better than the others.
    sorted: usize,
    /// The weight of all tokens.
    weight: f64,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    logit: f32,
    id: u32,
    weight: f32,
}

impl Candidate {
    /// Best first: falling logit, then rising id. Total, because no logit is NaN.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        other.logit.total_cmp(&self.logit).then(self.id.cmp(&other.id))
    }
}

impl Candidates {
    /// Fills the candidates and cuts them to those that the settings keep. `top` is the largest logit.
    pub(super) fn filter(&mut self, logits: &[f32], top: f32, config: &SamplerConfig) -> Result<()> {
        self.weigh(logits, top, config.temperature);
        let before_min_p = if config.top_k == 0 {
            self.collect(logits, config.min_p)?;
            self.weights.iter().copied().map(f64::from).sum()
        } else {
            // With a bound on their number the likely tokens are chosen first.
            self.collect(logits, 0.0)?;
            self.keep_top_k(config.top_k);
            let weight = self.sum();
            self.tokens.retain(|c| c.weight >= config.min_p);
            weight
        };
        self.weight =
            if config.top_p < 1.0 { self.keep_top_p(before_min_p * f64::from(config.top_p)) } else { self.sum() };
        Ok(())
    }

    /// Computes `exp((z - top) / temperature)` for every token; forbidden ones have 0.
    fn weigh(&mut self, logits: &[f32], top: f32, temperature: f32) {
        self.weights.clear();
        // The best token has distance 0; dividing it by the smallest temperature still gives 0.
        self.weights.extend(logits.iter().map(|logit| (logit - top) / temperature));
        // Its sum is one of F32; the sums here are of F64.
        let _ = tl_kernels::math::exp_sum_in_place(&mut self.weights, 0.0);
    }

    /// Fills the candidates with the allowed tokens of at least this weight, in ascending id. The best token has weight 1 and always
    /// stays.
    fn collect(&mut self, logits: &[f32], floor: f32) -> Result<()> {
        self.tokens.clear();
        self.sorted = 0;
        for (index, (&logit, &weight)) in logits.iter().zip(&self.weights).enumerate() {
            if weight >= floor && logit > f32::NEG_INFINITY {
                // -0 and 0 are one value: they must tie.
                self.tokens.push(Candidate { logit: logit + 0.0, id: to_id(index)?, weight });
            }
        }
        Ok(())
    }

    /// Cuts to the `k` best.
    fn keep_top_k(&mut self, k: usize) {
        if k > 0 && k < self.tokens.len() {
            self.tokens.select_nth_unstable_by(k - 1, Candidate::order);
            self.tokens.truncate(k);
            self.tokens.sort_unstable_by_key(|c| c.id);
        }
    }

    /// Cuts where the best tokens first hold the weight `wanted`; returns what they hold.
    fn keep_top_p(&mut self, wanted: f64) -> f64 {
        let (mut held, mut kept) = (0.0, 0);
        while held < wanted
            && let Some(next) = self.best(kept)
        {
            held += f64::from(next.weight);
            kept += 1;
        }
        self.tokens.truncate(kept);
        self.sorted = kept;
        held
    }

    /// Inverse transform sampling over the tokens, best first; there is always at least one.
    pub(super) fn draw(&mut self, uniform: f64) -> u32 {
        let target = uniform * self.weight;
        let (mut held, mut drawn, mut place) = (0.0, 0, 0);
        while held <= target
            && let Some(next) = self.best(place)
        {
            held += f64::from(next.weight);
            drawn = next.id;
            place += 1;
        }
        drawn
    }

    /// The token at `place`, counted from the best one; `None` behind the last.
    fn best(&mut self, place: usize) -> Option<Candidate> {
        while place >= self.sorted && self.sorted < self.tokens.len() {
            let rest = &mut self.tokens[self.sorted..];
            let more = (self.sorted * (GROWTH - 1)).max(FIRST_SORTED).min(rest.len());
            if more < rest.len() {
                rest.select_nth_unstable_by(more - 1, Candidate::order);
            }
            rest[..more].sort_unstable_by(Candidate::order);
            self.sorted += more;
        }
        self.tokens.get(place).copied()
    }

    /// The weights of the candidates, summed in ascending id.
    fn sum(&self) -> f64 {
        self.tokens.iter().map(|c| f64::from(c.weight)).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The module's definition: every filter keeps a prefix of all tokens, sorted.
    fn by_definition(logits: &[f32], config: &SamplerConfig, uniform: f64) -> u32 {
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |id: usize| f64::from(tl_kernels::math::exp((logits[id] - top) / config.temperature));
        let mut order: Vec<usize> = (0..logits.len()).filter(|&id| logits[id] > f32::NEG_INFINITY).collect();
        order.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap());
        if config.top_k > 0 {
            order.truncate(config.top_k);
        }
        let wanted = order.iter().map(|&id| weight(id)).sum::<f64>() * f64::from(config.top_p);
        order.retain(|&id| weight(id) >= f64::from(config.min_p));
        let mut held = 0.0;
        let is_kept = |id: &usize| {
            let goes_on = config.top_p >= 1.0 || held < wanted;
            held += weight(*id);
            goes_on
        };
        let kept: Vec<usize> = order.into_iter().take_while(is_kept).collect();
        let target = uniform * kept.iter().map(|&id| weight(id)).sum::<f64>();
        let mut held = 0.0;
        let drawn = kept.iter().find(|&&id| {
            held += weight(id);
            held > target
        });
        *drawn.or(kept.last()).unwrap() as u32
    }

    proptest! {
        /// Long rows need several sorts, flat ones all of them.
        #[test]
        fn a_draw_is_that_of_the_definition(
            logits in prop::collection::vec(prop_oneof![8 => -9f32..9.0, 1 => Just(f32::NEG_INFINITY), 1 => Just(1.5)], 1..3000),
            top_k in prop_oneof![Just(0usize), 1usize..2000], top_p in prop_oneof![Just(1f32), 0.01f32..1.0],
            min_p in prop_oneof![Just(0f32), 0f32..0.5], temperature in 0.1f32..20.0, uniform in 0f64..1.0,
        ) {
            let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            prop_assume!(top > f32::NEG_INFINITY);
            let config = SamplerConfig { temperature, top_k, top_p, min_p, ..SamplerConfig::default() };
            let mut candidates = Candidates::default();
            for _ in 0..2 {
                candidates.filter(&logits, top, &config).unwrap();
                prop_assert_eq!(candidates.draw(uniform), by_definition(&logits, &config, uniform));
            }
        }
    }

    #[test]
    fn tokens_behind_those_that_are_drawn_stay_unsorted() {
        let logits: Vec<f32> = (0..100_000u32).map(|id| if id < 3 { 20.0 } else { id as f32 / 1e6 }).collect();
        let mut candidates = Candidates::default();
        let mut drawn = |top_p| {
            candidates.filter(&logits, 20.0, &SamplerConfig { top_p, min_p: 0.0, ..SamplerConfig::default() }).unwrap();
            (candidates.draw(0.5), candidates.tokens.len(), candidates.sorted)
        };
        assert_eq!(drawn(0.95), (1, 3, 3));
        assert_eq!(drawn(1.0), (1, 100_000, FIRST_SORTED));
    }
}
