//! Drafts: guesses at the next tokens, which one step of the model verifies together.
//!
//! ```text
//! sequence  ... the harbour of the        drafter: it stood there before, " harbour" followed
//! step      rows  [ the | harbour | of ]  one read of the weights for all rows
//! sampler   row 0 chooses " harbour"      equal to the draft: row 1 is the next one
//!           row 1 chooses " wall"         not " of": the token stands, the rest of the draft is dropped
//! ```
//!
//! A drafter names one token for each position and no probabilities. Speculative sampling (Leviathan, Kalman, Matias, "Fast
//! inference from transformers via speculative decoding", 2023, section 2.3) accepts such a token `d` with the probability
//! `p(d)` that the model gives it, and draws from `p` without `d` otherwise. The sampler draws a token from `p` and compares
//! it with `d`: the probability of "equal" is `p(d)`, and a token that is not equal has the distribution of `p` without
//! `d`. Both rules have the same outcome, and this one needs no random numbers of its own.
//!
//! **Invariant:** an answer has the tokens that it has without drafts, greedy or sampled: each of its tokens is chosen by the
//! same sampler, with the same random number, from logits with the same bits.

pub(crate) mod drafter;
pub(crate) mod mtp;
pub(crate) mod ngram;
pub(crate) mod policy;
pub(crate) mod speculation;
pub(crate) mod verify;
