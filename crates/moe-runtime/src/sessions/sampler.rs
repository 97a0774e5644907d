//! From logits to the next token: greedy, or drawn from a filtered distribution with a seed.
//!
//! Logits are first changed by the penalties on the answer so far and by biases, then a constraint forbids tokens. Order of
//! the filters behind that, all on the tokens sorted by falling logit (ties: the lower id first):
//!
//! 1. temperature: `w_i = exp((z_i - max z) / temperature)`, so the best token has weight 1;
//! 2. `top_k`: the first k;
//! 3. `top_p`: the shortest prefix with the share `top_p` of the weight that 2. left, the crossing token included;
//! 4. `min_p`: tokens of at least `min_p` times the best token's weight.
//!
//! Each filter keeps a prefix of the same order, so the result is the shortest of the three prefixes.
//!
//! **Invariant:** the same logits, settings and seed give the same token on every platform: `exp` is the kernels' own
//! polynomial, sums are in `f64` and in a fixed order, and the random numbers are [`SplitMix64`](crate::SplitMix64).

mod adjustments;
mod asked;
mod candidates;
mod choice;
mod config;
mod constraint;
mod logprobs;
mod thought;

pub use asked::SamplerChoice;
pub use choice::Sampler;
pub use config::SamplerConfig;
pub use constraint::TokenConstraint;
pub use logprobs::{Logprobs, TokenLogprob};

use crate::error::{Error, Result};
use crate::sessions::error::SessionError;

/// The id of the largest logit; the lowest id wins a tie.
pub(in crate::sessions) fn most_likely(logits: &[f32]) -> Result<u32> {
    let mut best = (f32::NEG_INFINITY, 0usize);
    for (id, &z) in logits.iter().enumerate() {
        if z.is_nan() || z == f32::INFINITY {
            return Err(Error::Session(SessionError::Logit { token: id, value: z }));
        }
        if z > best.0 {
            best = (z, id);
        }
    }
    match logits.first() {
        None => Err(Error::Session(SessionError::NoLogits)),
        Some(&first) if best.0 == f32::NEG_INFINITY => {
            Err(Error::Session(SessionError::Logit { token: 0, value: first }))
        }
        Some(_) => to_id(best.1),
    }
}

fn to_id(index: usize) -> Result<u32> {
    u32::try_from(index).map_err(|_| Error::Session(SessionError::TooManyLogits { got: index }))
}
