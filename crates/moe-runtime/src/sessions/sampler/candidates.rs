//! The tokens that may be drawn: filtered, then drawn from.

use super::config::SamplerConfig;
use super::to_id;
use crate::error::Result;

/// Tokens with their weights; the best one has weight 1.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates(Vec<Candidate>);

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
    /// Fills the candidates and cuts them to those that the settings keep, best first. `top` is the largest logit.
    pub(super) fn filter(&mut self, logits: &[f32], top: f32, config: &SamplerConfig) -> Result<()> {
        self.weigh(logits, top, config.temperature)?;
        let mass = self.keep_top_k(config.top_k);
        self.keep_min_p(config.min_p);
        self.0.sort_unstable_by(Candidate::order);
        self.keep_top_p(config.top_p, mass);
        Ok(())
    }

    /// Fills the candidates with `exp((z - top) / temperature)`, in ascending id; forbidden tokens stay out.
    fn weigh(&mut self, logits: &[f32], top: f32, temperature: f32) -> Result<()> {
        self.0.clear();
        for (index, &logit) in logits.iter().enumerate() {
            if logit == f32::NEG_INFINITY {
                continue;
            }
            // The best token has distance 0; dividing it by the smallest temperature still gives 0.
            let weight = tl_kernels::math::exp((logit - top) / temperature);
            // -0 and 0 are one value: they must tie.
            self.0.push(Candidate { logit: logit + 0.0, id: to_id(index)?, weight });
        }
        Ok(())
    }

    /// Cuts to the `k` best and returns the weight of the rest, summed in ascending id.
    fn keep_top_k(&mut self, k: usize) -> f64 {
        if k > 0 && k < self.0.len() {
            self.0.select_nth_unstable_by(k - 1, Candidate::order);
            self.0.truncate(k);
            self.0.sort_unstable_by_key(|c| c.id);
        }
        self.0.iter().map(|c| f64::from(c.weight)).sum()
    }

    /// Drops unlikely tokens; the best token has weight 1 and always stays.
    fn keep_min_p(&mut self, floor: f32) {
        self.0.retain(|c| c.weight >= floor);
    }

    /// Cuts the sorted candidates where they first hold the share `top_p` of `mass`.
    fn keep_top_p(&mut self, top_p: f32, mass: f64) {
        if top_p >= 1.0 {
            return;
        }
        let wanted = mass * f64::from(top_p);
        let mut held = 0.0;
        let crossing = self.0.iter().position(|c| {
            held += f64::from(c.weight);
            held >= wanted
        });
        if let Some(last) = crossing {
            self.0.truncate(last + 1);
        }
    }

    /// Inverse transform sampling over the sorted candidates; there is always at least one.
    pub(super) fn draw(&self, uniform: f64) -> u32 {
        let total: f64 = self.0.iter().map(|c| f64::from(c.weight)).sum();
        let target = uniform * total;
        let mut held = 0.0;
        let hit = self.0.iter().find(|c| {
            held += f64::from(c.weight);
            held > target
        });
        hit.or(self.0.last()).map_or(0, |c| c.id)
    }
}
