//! Logarithms of the probabilities that a model gave to tokens.
//!
//! They are those of the model itself: before temperature, penalties, biases, constraints and filters.

use tl_kernels::math::{exp_f64_in_place, ln};

/// Numbers of a row whose exponentials are computed at a time.
const AT_ONCE: usize = 512;

/// A token with its probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLogprob {
    /// Id of the token.
    pub token: u32,
    /// Natural logarithm of the probability, at most 0.
    pub logprob: f32,
}

/// The chosen token beside the most likely ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// The token that was chosen, likely or not.
    pub chosen: TokenLogprob,
    /// The most likely tokens, best first; of two equal ones the lower id first.
    pub top: Vec<TokenLogprob>,
}

impl Logprobs {
    /// The logarithms for one row of logits `[vocab]`, of the token `chosen` and of the `top` most likely ones: the
    /// log-softmax of the row. A token outside of the row has minus infinity.
    ///
    /// ```
    /// use moe_runtime::Logprobs;
    /// let logprobs = Logprobs::of(&[0.0, 0.0, f32::NEG_INFINITY], 1, 1);
    /// assert_eq!((logprobs.chosen.token, logprobs.top[0].token), (1, 0));
    /// assert!((logprobs.chosen.logprob + 0.6931472).abs() < 1e-6);
    /// ```
    #[must_use]
    pub fn of(logits: &[f32], chosen: u32, top: usize) -> Logprobs {
        let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let mut sum = 0.0;
        let mut buffer = [0.0; AT_ONCE];
        for logits in logits.chunks(AT_ONCE) {
            let powers = &mut buffer[..logits.len()];
            powers.iter_mut().zip(logits).for_each(|(power, &z)| *power = f64::from(z) - largest);
            exp_f64_in_place(powers);
            powers.iter().for_each(|power| sum += power);
        }
        let shift = largest + ln(sum);
        let logprob = |z: f32| (f64::from(z) - shift) as f32;
        let chosen_logit = usize::try_from(chosen).ok().and_then(|index| logits.get(index));
        let chosen_logit = chosen_logit.copied().unwrap_or(f32::NEG_INFINITY);
        let mut best: Vec<(u32, f32)> = Vec::with_capacity(top + 1);
        for (token, &z) in (0u32..).zip(logits) {
            if best.len() == top && best.last().is_none_or(|&(_, last)| z <= last) {
                continue;
            }
            best.insert(best.partition_point(|&(_, other)| other >= z), (token, z));
            best.truncate(top);
        }
        let top = best.into_iter().map(|(token, z)| TokenLogprob { token, logprob: logprob(z) }).collect();
        Logprobs { chosen: TokenLogprob { token: chosen, logprob: logprob(chosen_logit) }, top }
    }
}

#[cfg(test)]
mod tests {
    use super::Logprobs;
    use proptest::prelude::*;

    #[test]
    fn a_known_row() {
        // e^1 + e^2 + e^3 = 30.192875; log-softmax -2.4076059, -1.4076059, -0.4076059 (scipy.special.log_softmax).
        let got = Logprobs::of(&[1.0, 3.0, 2.0], 2, 2);
        assert_eq!(got.top.iter().map(|t| t.token).collect::<Vec<_>>(), [1, 2]);
        for (got, want) in [(got.chosen, -1.407_606_f32), (got.top[0], -0.407_606), (got.top[1], -1.407_606)] {
            assert!((got.logprob - want).abs() < 1e-6, "{got:?}");
        }
        assert_eq!(Logprobs::of(&[0.0], 7, 0).chosen.logprob, f32::NEG_INFINITY);
    }

    proptest! {
        #[test]
        fn probabilities_sum_to_one_and_the_best_come_in_order(
            logits in prop::collection::vec(prop_oneof![-30f32..30.0, (-2i8..2).prop_map(f32::from)], 1..60),
            top in 0usize..20,
        ) {
            let all = Logprobs::of(&logits, 0, logits.len()).top;
            let sum: f64 = all.iter().map(|t| f64::from(t.logprob).exp()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-5, "{}", sum);
            let mut order: Vec<u32> = (0..).take(logits.len()).collect();
            order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
            let got: Vec<u32> = Logprobs::of(&logits, 0, top).top.iter().map(|t| t.token).collect();
            prop_assert_eq!(&got[..], &order[..top.min(order.len())]);
        }
    }
}
