//! Changes of logits before a token is chosen: penalties on the answer so far, biases, and forbidden tokens.

use std::collections::BTreeMap;

use super::config::SamplerConfig;
use crate::error::{Error, Result};
use crate::sessions::error::SessionError;

/// Largest bias of a token, in either direction.
const MAX_BIAS: f32 = 100.0;

/// The changes of one answer's logits.
#[derive(Clone, Debug, Default)]
pub(super) struct Adjustments {
    /// How often the answer holds each of its tokens.
    counts: BTreeMap<u32, u32>,
    /// Added to the logits of these tokens.
    bias: Vec<(u32, f32)>,
    /// The changed logits, `[vocab]`.
    changed: Vec<f32>,
}

impl Adjustments {
    /// Sets the biases. Of two for one token both count.
    pub(super) fn set_bias(&mut self, bias: Vec<(u32, f32)>) -> Result<()> {
        match bias.iter().find(|(_, value)| !(-MAX_BIAS..=MAX_BIAS).contains(value)) {
            Some(&(_, value)) => {
                let rule = "between -100 and 100";
                Err(Error::Session(SessionError::Sampling { setting: "logit_bias", value, rule }))
            }
            None => {
                self.bias = bias;
                Ok(())
            }
        }
    }

    /// Counts a token of the answer.
    pub(super) fn count(&mut self, token: u32) {
        *self.counts.entry(token).or_default() += 1;
    }

    /// Forgets the tokens of the answer.
    pub(super) fn forget(&mut self) {
        self.counts.clear();
    }

    /// The logits `[vocab]` with all changes; `None` when there are none. Bit `i % 32` of word `i / 32` of `allowed`
    /// says whether token `i` may come next.
    pub(super) fn apply<'a>(
        &'a mut self,
        logits: &[f32],
        config: &SamplerConfig,
        allowed: Option<&[u32]>,
    ) -> Option<&'a [f32]> {
        if self.counts.is_empty() && self.bias.is_empty() && allowed.is_none() {
            return None;
        }
        self.changed.clear();
        self.changed.extend_from_slice(logits);
        for (&token, &count) in &self.counts {
            if let Some(z) = at(&mut self.changed, token) {
                *z = if *z > 0.0 { *z / config.repetition_penalty } else { *z * config.repetition_penalty };
                *z -= count as f32 * config.frequency_penalty + config.presence_penalty;
            }
        }
        for &(token, bias) in &self.bias {
            if let Some(z) = at(&mut self.changed, token) {
                *z += bias;
            }
        }
        if let Some(allowed) = allowed {
            for (index, z) in self.changed.iter_mut().enumerate() {
                if allowed.get(index / 32).is_none_or(|word| word >> (index % 32) & 1 == 0) {
                    *z = f32::NEG_INFINITY;
                }
            }
        }
        Some(&self.changed)
    }
}

fn at(logits: &mut [f32], token: u32) -> Option<&mut f32> {
    logits.get_mut(usize::try_from(token).ok()?)
}
