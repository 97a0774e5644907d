//! The choice of an answer's tokens, one after another.

use super::adjustments::Adjustments;
use super::candidates::Candidates;
use super::config::SamplerConfig;
use super::constraint::TokenConstraint;
use super::most_likely;
use super::thought::Thought;
use crate::error::{Error, Result};
use crate::rng::SplitMix64;
use crate::sessions::error::SessionError;

/// Chooses the tokens of an answer by one [`SamplerConfig`].
///
/// ```
/// use moe_runtime::{Sampler, SamplerConfig};
/// # fn main() -> moe_runtime::Result<()> {
/// let mut sampler = Sampler::new(SamplerConfig::greedy())?;
/// assert_eq!(sampler.sample(&[0.5, 2.0, 2.0])?, 1);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Sampler {
    config: SamplerConfig,
    rng: SplitMix64,
    adjustments: Adjustments,
    /// Most tokens of a thought.
    thought_budget: Option<usize>,
    /// The thought that the answer is in.
    thought: Option<Thought>,
    /// The rule of the answer behind its thought.
    constraint: Option<Box<dyn TokenConstraint>>,
    /// Buffer for the tokens that may be drawn.
    candidates: Candidates,
}

impl Sampler {
    /// A sampler at the start of its seed's stream.
    ///
    /// # Errors
    /// [`SessionError::Sampling`] when a setting is out of range.
    pub fn new(config: SamplerConfig) -> Result<Self> {
        config.check()?;
        Ok(Self {
            config,
            rng: SplitMix64::new(config.seed),
            adjustments: Adjustments::default(),
            thought_budget: None,
            thought: None,
            constraint: None,
            candidates: Candidates::default(),
        })
    }

    /// The same sampler, which adds a number to the logits of some tokens. A token outside of the vocabulary has no effect.
    ///
    /// # Errors
    /// [`SessionError::Sampling`] for a number below -100 or above 100.
    pub fn with_logit_bias(mut self, bias: Vec<(u32, f32)>) -> Result<Self> {
        self.adjustments.set_bias(bias)?;
        Ok(self)
    }

    /// The same sampler, which ends a thought that has `tokens`; `None` is no limit.
    #[must_use]
    pub fn with_thought_budget(self, tokens: Option<usize>) -> Self {
        Self { thought_budget: tokens, ..self }
    }

    /// The same sampler, whose answers follow a rule, except in a thought.
    #[must_use]
    pub fn with_constraint(self, constraint: Box<dyn TokenConstraint>) -> Self {
        Self { constraint: Some(constraint), ..self }
    }

    /// The settings that tokens are chosen by.
    #[must_use]
    pub fn config(&self) -> &SamplerConfig {
        &self.config
    }

    /// Begins another answer: penalties forget the one before, the random numbers go on. `thought_end` is the token that
    /// ends the thought which the prompt has opened; `None` where it opened none.
    pub fn begin_answer(&mut self, thought_end: Option<u32>) {
        self.adjustments.forget();
        if let Some(constraint) = &mut self.constraint {
            constraint.restart();
        }
        self.thought = thought_end.map(|end| Thought::new(end, self.thought_budget));
    }

    /// The next token for one row of logits `[vocab]`, which becomes part of the answer. Minus infinity forbids a token.
    ///
    /// Greedy sampling and the end of a thought that has used its budget draw no random number; every other call draws
    /// exactly one.
    ///
    /// # Errors
    /// [`SessionError::Logit`] when a logit is NaN or plus infinity, or when none is finite; [`SessionError::NoLogits`] for
    /// an empty row; [`SessionError::NothingAllowed`] when the constraint forbids all tokens, and its own failures.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        let token = match self.thought.and_then(Thought::forced) {
            Some(end) => end,
            None => self.choose(logits)?,
        };
        if self.config.penalises() {
            self.adjustments.count(token);
        }
        match (self.thought, &mut self.constraint) {
            (Some(thought), _) => self.thought = thought.after(token),
            (None, Some(constraint)) => constraint.take(token)?,
            (None, None) => {}
        }
        Ok(token)
    }

    fn choose(&mut self, logits: &[f32]) -> Result<u32> {
        // The model's own logits are checked, also those that a change hides.
        let best = most_likely(logits)?;
        let allowed = match &mut self.constraint {
            Some(constraint) if self.thought.is_none() => Some(constraint.allowed()?),
            _ => None,
        };
        let (logits, best) = match self.adjustments.apply(logits, &self.config, allowed) {
            None => (logits, best),
            Some(changed) => {
                let best = most_likely(changed).map_err(|_| Error::Session(SessionError::NothingAllowed))?;
                (changed, best)
            }
        };
        if self.config.is_greedy() {
            return Ok(best);
        }
        let uniform = self.rng.next_f64();
        self.candidates.filter(logits, logits[best as usize], &self.config)?;
        Ok(self.candidates.draw(uniform))
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::SamplerConfig;
    use super::super::constraint::TokenConstraint;
    use super::super::most_likely;
    use super::Sampler;
    use crate::error::Error;
    use crate::sessions::error::SessionError;
    use proptest::prelude::*;
    use std::f32::consts::LN_2;

    const OPEN: SamplerConfig = SamplerConfig {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        seed: 1,
    };

    /// The ids that a thousand draws return, ascending, each once.
    fn support(config: SamplerConfig, logits: &[f32]) -> Vec<u32> {
        let mut sampler = Sampler::new(config).unwrap();
        let mut seen: Vec<u32> = (0..1000).map(|_| sampler.sample(logits).unwrap()).collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    #[test]
    fn greedy_ties_go_to_the_lowest_id_and_draw_no_random_number() {
        assert_eq!(most_likely(&[1.0, 3.0, 3.0, -1.0]).unwrap(), 1);
        assert_eq!(most_likely(&[0.0, -0.0]).unwrap(), 0);
        assert_eq!(most_likely(&[-0.0, 0.0]).unwrap(), 0);
        assert_eq!(most_likely(&[f32::NEG_INFINITY, -5.0]).unwrap(), 1);
        let mut sampler = Sampler::new(SamplerConfig::greedy()).unwrap();
        let before = sampler.rng.clone();
        sampler.sample(&[0.0, 1.0]).unwrap();
        assert_eq!(sampler.rng, before);
    }

    #[test]
    fn unusable_logits_are_errors() {
        for temperature in [0.0, 1.0] {
            let mut sampler = Sampler::new(SamplerConfig { temperature, ..OPEN }).unwrap();
            assert!(matches!(
                sampler.sample(&[0.0, f32::NAN]),
                Err(Error::Session(SessionError::Logit { token: 1, .. }))
            ));
            assert!(matches!(
                sampler.sample(&[f32::INFINITY]),
                Err(Error::Session(SessionError::Logit { token: 0, .. }))
            ));
            assert!(matches!(sampler.sample(&[f32::NEG_INFINITY; 2]), Err(Error::Session(SessionError::Logit { .. }))));
            assert!(matches!(sampler.sample(&[]), Err(Error::Session(SessionError::NoLogits))));
        }
    }

    /// Probabilities 0.5, 0.25, 0.125, 0.125 at ids 2, 0, 1, 3.
    const LOGITS: [f32; 4] = [-LN_2, -2.0 * LN_2, 0.0, -2.0 * LN_2];

    #[test]
    fn each_filter_keeps_its_prefix() {
        assert_eq!(support(OPEN, &LOGITS), [0, 1, 2, 3]);
        assert_eq!(support(SamplerConfig { top_k: 1, ..OPEN }, &LOGITS), [2]);
        assert_eq!(support(SamplerConfig { top_k: 3, ..OPEN }, &LOGITS), [0, 1, 2], "a tie goes to the lower id");
        assert_eq!(support(SamplerConfig { top_p: 0.49, ..OPEN }, &LOGITS), [2]);
        assert_eq!(support(SamplerConfig { top_p: 0.6, ..OPEN }, &LOGITS), [0, 2], "the crossing token stays");
        assert_eq!(support(SamplerConfig { min_p: 0.4, ..OPEN }, &LOGITS), [0, 2]);
        assert_eq!(support(SamplerConfig { min_p: 1.0, ..OPEN }, &LOGITS), [2]);
        // Of the two tokens that top_k leaves, the first holds 2/3.
        assert_eq!(support(SamplerConfig { top_k: 2, top_p: 0.66, ..OPEN }, &LOGITS), [2]);
        assert_eq!(support(SamplerConfig { top_k: 2, top_p: 0.67, ..OPEN }, &LOGITS), [0, 2]);
        // top_p counts the mass before min_p: 0.75 of the whole needs both of the likely ones.
        assert_eq!(support(SamplerConfig { min_p: 0.4, top_p: 0.7, ..OPEN }, &LOGITS), [0, 2]);
        assert_eq!(support(SamplerConfig { temperature: 1e-30, ..OPEN }, &LOGITS), [2]);
    }

    #[test]
    fn frequencies_follow_the_distribution_and_the_temperature() {
        for (temperature, want) in [(1.0, [0.25, 0.125, 0.5, 0.125]), (0.5, [0.181_82, 0.045_45, 0.727_27, 0.045_45])] {
            let mut sampler = Sampler::new(SamplerConfig { temperature, ..OPEN }).unwrap();
            let mut count = [0u32; 4];
            for _ in 0..40_000 {
                count[sampler.sample(&LOGITS).unwrap() as usize] += 1;
            }
            for (id, share) in want.into_iter().enumerate() {
                let got = f64::from(count[id]) / 40_000.0;
                assert!((got - share).abs() < 0.01, "temperature {temperature}, token {id}: {got} against {share}");
            }
        }
    }

    #[test]
    fn a_seed_fixes_the_tokens_and_another_changes_them() {
        let logits: Vec<f32> = (0u16..50).map(|i| f32::from(i * 7 % 13) * 0.3).collect();
        let run = |seed| {
            let mut sampler = Sampler::new(SamplerConfig { seed, ..SamplerConfig::default() }).unwrap();
            (0..12).map(|_| sampler.sample(&logits).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }

    proptest! {
        #[test]
        fn a_drawn_token_is_never_a_forbidden_one(
            mut logits in prop::collection::vec(-20f32..20.0, 1..40),
            top_k in 0usize..5, top_p in 0.01f32..1.0, min_p in 0f32..1.0, temperature in 0.01f32..4.0, seed: u64,
        ) {
            logits.push(f32::NEG_INFINITY);
            let config = SamplerConfig { temperature, top_k, top_p, min_p, seed, ..OPEN };
            let id = Sampler::new(config).unwrap().sample(&logits).unwrap() as usize;
            prop_assert!(id < logits.len() - 1);
            let better = logits.iter().filter(|&&z| z > logits[id]).count();
            prop_assert!(top_k == 0 || better < top_k);
        }
    }

    #[test]
    fn penalties_count_the_answer_and_forget_it_with_the_next() {
        let greedy = SamplerConfig { temperature: 0.0, ..OPEN };
        let logits = [3.0, 2.0, -1.0, 0.9];
        let run = |config: SamplerConfig| {
            let mut sampler = Sampler::new(config).unwrap();
            let tokens: Vec<u32> = (0..4).map(|_| sampler.sample(&logits).unwrap()).collect();
            sampler.begin_answer(None);
            assert_eq!(sampler.sample(&logits).unwrap(), 0, "the next answer holds no token");
            tokens
        };
        assert_eq!(run(greedy), [0, 0, 0, 0]);
        // 3 -> 1.5 loses to 2, 2 -> 1 loses to 1.5, which stays.
        assert_eq!(run(SamplerConfig { repetition_penalty: 2.0, ..greedy }), [0, 1, 0, 0]);
        // 3 -> 1.5, 2 -> 0.5, then 1.5 again and 0.
        assert_eq!(run(SamplerConfig { frequency_penalty: 1.5, ..greedy }), [0, 1, 0, 3]);
        // 3 -> 1.5 once and no more.
        assert_eq!(run(SamplerConfig { presence_penalty: 1.5, ..greedy }), [0, 1, 0, 0]);
        let negative = SamplerConfig { repetition_penalty: 2.0, ..greedy };
        let mut sampler = Sampler::new(negative).unwrap();
        let tokens: Vec<u32> = (0..2).map(|_| sampler.sample(&[-1.0, -1.5]).unwrap()).collect();
        assert_eq!(tokens, [0, 1], "a negative logit is multiplied");
    }

    #[test]
    fn a_bias_moves_tokens_and_has_a_range() {
        let sampler = || Sampler::new(SamplerConfig { temperature: 0.0, ..OPEN }).unwrap();
        assert_eq!(sampler().with_logit_bias(vec![(2, 1.5), (9, 100.0)]).unwrap().sample(&[1.0, 0.0, 0.0]).unwrap(), 2);
        assert_eq!(sampler().with_logit_bias(vec![(0, -100.0)]).unwrap().sample(&[1.0, 0.5, 0.0]).unwrap(), 1);
        for value in [100.5, f32::NAN, f32::NEG_INFINITY] {
            let error = sampler().with_logit_bias(vec![(0, value)]).unwrap_err().to_string();
            assert!(error.contains("logit_bias"), "{error}");
        }
    }

    #[test]
    fn a_thought_ends_with_its_budget_and_only_the_first_one() {
        let mut sampler =
            Sampler::new(SamplerConfig { temperature: 0.0, ..OPEN }).unwrap().with_thought_budget(Some(2));
        let mut run = |thought_end, logits: [f32; 3]| {
            sampler.begin_answer(thought_end);
            (0..4).map(|_| sampler.sample(&logits).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(Some(2), [1.0, 0.0, 0.0]), [0, 0, 2, 0]);
        assert_eq!(run(None, [1.0, 0.0, 0.0]), [0, 0, 0, 0], "no thought, no limit");
        assert_eq!(run(Some(2), [0.0, 0.0, 1.0]), [2, 2, 2, 2], "it ended by itself");
        assert_eq!(run(Some(1), [1.0, 0.0, 0.0]), [0, 0, 1, 0]);
    }

    /// Allows the tokens 1 and 3, in this order, then token 0 for ever.
    #[derive(Debug, Default)]
    struct OneThenThree {
        taken: Vec<u32>,
        mask: [u32; 1],
    }

    impl TokenConstraint for OneThenThree {
        fn restart(&mut self) {
            self.taken.clear();
        }

        fn allowed(&mut self) -> crate::Result<&[u32]> {
            self.mask = [1 << [1, 3].get(self.taken.len()).copied().unwrap_or(0)];
            Ok(&self.mask)
        }

        fn take(&mut self, token: u32) -> crate::Result<()> {
            self.taken.push(token);
            Ok(())
        }
    }

    #[test]
    fn a_constraint_holds_behind_the_thought_and_begins_again_with_each_answer() {
        for temperature in [0.0, 1.0] {
            let sampler = Sampler::new(SamplerConfig { temperature, ..OPEN }).unwrap();
            let mut sampler = sampler.with_constraint(Box::new(OneThenThree::default())).with_thought_budget(Some(1));
            let logits = [0.0, 0.0, 9.0, 1.0, 0.0];
            for thought in [None, Some(4)] {
                sampler.begin_answer(thought);
                if thought.is_some() {
                    assert_ne!(sampler.sample(&logits).unwrap(), 1);
                    assert_eq!(sampler.sample(&logits).unwrap(), 4);
                }
                let tokens: Vec<u32> = (0..3).map(|_| sampler.sample(&logits).unwrap()).collect();
                assert_eq!(tokens, [1, 3, 0]);
            }
            sampler.begin_answer(None);
            let error = sampler.sample(&[1.0, f32::NEG_INFINITY]).unwrap_err();
            assert!(matches!(error, Error::Session(SessionError::NothingAllowed)), "{error}");
        }
    }
}
