//! Detection of token loops: a low-bit student falls into them more often than its teacher.
//!
//! A loop is a text that ends in the same n-gram several times in a row:
//!
//! ```text
//!   ... the harbor of the harbor of the harbor of
//!           |---------|---------|----------|        period 3, three repeats
//! ```
//!
//! For each period `p` up to the limit the detector counts how many of the last tokens equal the token `p` places
//! before them. The run reaches `p * (repeats - 1)` exactly when the last `p * repeats` tokens are one n-gram
//! repeated. One comparison per period and token; memory is `max_period` tokens and as many counters.

use std::fmt;

/// When a repetition counts as a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopConfig {
    /// Longest n-gram looked for, in tokens; 0 switches the detector off.
    pub max_period: usize,
    /// How often the n-gram has to stand in a row; values below 2 are taken as 2.
    pub min_repeats: usize,
    /// How many tokens the repeats have to cover together, so that `....` or `======` is not called a loop.
    pub min_tokens: usize,
}

impl Default for LoopConfig {
    /// Periods up to 64, four repeats, at least 32 tokens.
    fn default() -> Self {
        Self { max_period: 64, min_repeats: 4, min_tokens: 32 }
    }
}

/// The n-gram that a text ends in several times in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenLoop {
    /// Length of the repeated n-gram, in tokens; the shortest that explains the repetition.
    pub period: usize,
    /// How often it stands at the end of the text, in a row.
    pub repeats: usize,
}

impl fmt::Display for TokenLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { period, repeats } = self;
        write!(f, "the last {period} token{} came {repeats} times in a row", if *period == 1 { "" } else { "s" })
    }
}

/// Watches generated tokens for loops.
///
/// ```
/// use moe_runtime::{LoopConfig, LoopDetector};
/// let mut detector = LoopDetector::new(LoopConfig { max_period: 8, min_repeats: 3, min_tokens: 6 });
/// let found = [1, 2, 3, 2, 3, 2, 3].into_iter().find_map(|token| detector.push(token));
/// assert_eq!(found.map(|l| (l.period, l.repeats)), Some((2, 3)));
/// ```
#[derive(Clone, Debug)]
pub struct LoopDetector {
    config: LoopConfig,
    /// The last `max_period` tokens, a ring; token number `t` (from 0) lies at `t % max_period`.
    ring: Vec<u32>,
    /// `runs[p - 1]`: how many tokens in a row, up to now, equal the token `p` before them.
    runs: Vec<usize>,
    seen: usize,
}

impl LoopDetector {
    /// A detector before the first token.
    #[must_use]
    pub fn new(config: LoopConfig) -> Self {
        let config = LoopConfig { min_repeats: config.min_repeats.max(2), ..config };
        Self { config, ring: vec![0; config.max_period], runs: vec![0; config.max_period], seen: 0 }
    }

    /// Takes the next generated token; the loop it completes, if any (the shortest period wins).
    pub fn push(&mut self, token: u32) -> Option<TokenLoop> {
        let n = self.config.max_period;
        if n == 0 {
            return None;
        }
        let mut found = None;
        for period in 1..=n.min(self.seen) {
            let run = &mut self.runs[period - 1];
            if self.ring[(self.seen - period) % n] != token {
                *run = 0;
                continue;
            }
            *run += 1;
            let repeats = *run / period + 1;
            let enough = repeats >= self.config.min_repeats && repeats * period >= self.config.min_tokens;
            if enough && found.is_none() {
                found = Some(TokenLoop { period, repeats });
            }
        }
        self.ring[self.seen % n] = token;
        self.seen += 1;
        found
    }

    /// Removes all tokens seen so far.
    pub fn reset(&mut self) {
        self.runs.fill(0);
        self.seen = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::{LoopConfig, LoopDetector, TokenLoop};
    use proptest::prelude::*;

    /// The definition, spelled out: the shortest period whose n-gram ends the text often enough.
    fn by_definition(text: &[u32], config: LoopConfig) -> Option<TokenLoop> {
        (1..=config.max_period).find_map(|period| {
            let mut run = 0;
            while run + period < text.len() && text[text.len() - 1 - run] == text[text.len() - 1 - run - period] {
                run += 1;
            }
            let repeats = run / period + 1;
            (run > 0 && repeats >= config.min_repeats && repeats * period >= config.min_tokens)
                .then_some(TokenLoop { period, repeats })
        })
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(
            text in prop::collection::vec(0u32..3, 0..80),
            max_period in 0usize..9,
            min_repeats in 2usize..5,
            min_tokens in 0usize..12,
        ) {
            let config = LoopConfig { max_period, min_repeats, min_tokens };
            let mut detector = LoopDetector::new(config);
            for end in 0..text.len() {
                prop_assert_eq!(detector.push(text[end]), by_definition(&text[..=end], config));
            }
        }
    }

    #[test]
    fn ordinary_text_is_no_loop_and_a_loop_has_a_named_reason() {
        let mut detector = LoopDetector::new(LoopConfig::default());
        assert!((0..500u32).all(|t| detector.push(t * t % 509).is_none()));
        let found = (0..100).find_map(|i| detector.push([9, 8, 7][i % 3])).expect("a loop of three tokens");
        assert_eq!(found, TokenLoop { period: 3, repeats: 11 });
        assert_eq!(found.to_string(), "the last 3 tokens came 11 times in a row");
    }

    #[test]
    fn reset_forgets() {
        let config = LoopConfig { max_period: 4, min_repeats: 2, min_tokens: 2 };
        let mut detector = LoopDetector::new(config);
        assert!(detector.push(5).is_none());
        detector.reset();
        assert!(detector.push(5).is_none());
        assert!(detector.push(5).is_some());
    }
}
