//! How a text is cut for scoring: windows side by side, the second half of each scored.
//!
//! ```text
//!   window i of n_ctx tokens:   [prefix | text i*body .. (i+1)*body]      body = n_ctx - prefix
//!                                0         n_ctx/2            n_ctx-1
//!                               |  seen   |  predicted and scored  |
//! ```
//!
//! The prefix (`[gMASK]<sop>` for this model line) stands in every window and counts towards its length. A last,
//! partial window is dropped.

use serde::Serialize;

use super::error::FidelityError;
use crate::Result;

/// The shortest window: two predictions, so that a standard error exists.
const MIN_WINDOW: usize = 4;

/// How a text is scored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct FidelityConfig {
    /// Length of a window, prefix included.
    pub n_ctx: usize,
    pub prefix: Vec<u32>,
    /// Score at most this many windows, from the start of the text.
    pub max_windows: Option<usize>,
}

impl Default for FidelityConfig {
    /// Windows of 256 tokens without a prefix, all of the text.
    fn default() -> Self {
        Self { n_ctx: 256, prefix: Vec::new(), max_windows: None }
    }
}

/// The measurement of a text: how it was cut, and the figures of all scored predictions.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct TextReport<F> {
    /// Version of the report's schema; absent from reports on one model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<u32>,
    /// Length of a window.
    pub n_ctx: usize,
    pub prefix: Vec<u32>,
    pub text_tokens: usize,
    pub windows: usize,
    pub predictions: u64,
    #[serde(flatten)]
    pub figures: F,
}

/// The windows of one text; see the module's picture.
#[derive(Debug)]
pub(super) struct Windows<'a> {
    text: &'a [u32],
    prefix: &'a [u32],
    n_ctx: usize,
    count: usize,
}

impl<'a> Windows<'a> {
    /// Cuts a text, checking all that can be checked before a model runs.
    pub(super) fn new(text: &'a [u32], config: &'a FidelityConfig, vocab_size: usize) -> Result<Self, FidelityError> {
        let FidelityConfig { n_ctx, ref prefix, max_windows } = *config;
        if n_ctx < MIN_WINDOW {
            return Err(FidelityError::WindowTooShort { n_ctx, min: MIN_WINDOW });
        }
        if prefix.len() >= n_ctx / 2 {
            return Err(FidelityError::PrefixTooLong { prefix: prefix.len(), n_ctx });
        }
        if max_windows == Some(0) {
            return Err(FidelityError::NoWindows);
        }
        let need = n_ctx - prefix.len();
        let full = text.len() / need;
        if full == 0 {
            return Err(FidelityError::TextTooShort { have: text.len(), need });
        }
        let known = |token: u32| usize::try_from(token).is_ok_and(|t| t < vocab_size);
        for (index, &token) in prefix.iter().enumerate().chain(text.iter().enumerate()) {
            if !known(token) {
                return Err(FidelityError::TokenOutOfRange { index, token, vocab_size });
            }
        }
        Ok(Self { text, prefix, n_ctx, count: full.min(max_windows.unwrap_or(full)) })
    }

    /// The report on all windows.
    pub(super) fn report<F>(&self, schema: Option<u32>, predictions: u64, figures: Option<F>) -> Result<TextReport<F>> {
        Ok(TextReport {
            schema,
            n_ctx: self.n_ctx,
            prefix: self.prefix.to_vec(),
            text_tokens: self.text.len(),
            windows: self.count,
            predictions,
            figures: figures.ok_or(FidelityError::NoWindows)?,
        })
    }

    /// Number of windows, at least 1.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The first scored position of a window.
    fn first_scored(&self) -> usize {
        self.n_ctx / 2
    }

    /// Scored positions of a window.
    pub(super) fn scored(&self) -> usize {
        self.n_ctx - self.first_scored()
    }

    /// All windows, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Window> {
        (0..self.count).map(|index| self.window(index))
    }

    /// Window number `index`, which must be below [`Windows::count`].
    pub(super) fn window(&self, index: usize) -> Window {
        let body = self.n_ctx - self.prefix.len();
        let tokens = [self.prefix, &self.text[index * body..(index + 1) * body]].concat();
        Window { index, tokens, first_scored: self.first_scored() }
    }
}

/// One window of a text.
pub(super) struct Window {
    pub(super) index: usize,
    /// Prefix and text, `[n_ctx]`.
    tokens: Vec<u32>,
    first_scored: usize,
}

impl Window {
    /// The tokens that a model is fed: all but the last, which is only predicted.
    pub(super) fn seen(&self) -> &[u32] {
        &self.tokens[..self.tokens.len() - 1]
    }

    /// The row of logits that predicts the first scored position.
    pub(super) fn first_row(&self) -> usize {
        self.first_scored - 1
    }

    /// The token that row `row` predicts.
    pub(super) fn target(&self, row: usize) -> usize {
        self.tokens[row + 1] as usize
    }
}

#[cfg(test)]
mod tests {
    use super::{FidelityConfig, FidelityError, Windows};

    /// The numbers of tokens, windows and predictions of the mini teacher's held-out text.
    #[test]
    fn held_out_text_of_63656_tokens_gives_250_windows_and_32000_predictions() {
        let config = FidelityConfig { n_ctx: 256, prefix: vec![2038, 2040], max_windows: None };
        let text = vec![7; 63_656];
        let windows = Windows::new(&text, &config, 2048).unwrap();
        assert_eq!((windows.count(), windows.first_scored()), (250, 128));
        assert_eq!(windows.count() * windows.scored(), 32_000);
    }

    #[test]
    fn windows_lie_side_by_side_behind_their_prefix() {
        let config = FidelityConfig { n_ctx: 5, prefix: vec![9], max_windows: None };
        let text: Vec<u32> = (0..11).collect();
        let windows = Windows::new(&text, &config, 20).unwrap();
        assert_eq!(windows.count(), 2, "the last three tokens make no window");
        let tokens: Vec<Vec<u32>> = windows.iter().map(|window| window.tokens).collect();
        assert_eq!(tokens, [[9, 0, 1, 2, 3], [9, 4, 5, 6, 7]]);
        assert_eq!((windows.first_scored(), windows.scored()), (2, 3));
        let one = FidelityConfig { max_windows: Some(1), ..config };
        assert_eq!(Windows::new(&text, &one, 20).unwrap().count(), 1);
    }

    #[test]
    fn nothing_to_score_is_an_error() {
        let base = FidelityConfig { n_ctx: 4, prefix: vec![0], max_windows: None };
        let fails = |text: &[u32], config: &FidelityConfig| Windows::new(text, config, 10).unwrap_err();
        assert!(matches!(fails(&[], &base), FidelityError::TextTooShort { have: 0, need: 3 }));
        assert!(matches!(fails(&[1, 2], &base), FidelityError::TextTooShort { have: 2, need: 3 }));
        let short = FidelityConfig { n_ctx: 3, ..base.clone() };
        assert!(matches!(fails(&[1; 9], &short), FidelityError::WindowTooShort { .. }));
        let long = FidelityConfig { prefix: vec![0, 0], ..base.clone() };
        assert!(matches!(fails(&[1; 9], &long), FidelityError::PrefixTooLong { prefix: 2, n_ctx: 4 }));
        let none = FidelityConfig { max_windows: Some(0), ..base.clone() };
        assert!(matches!(fails(&[1; 9], &none), FidelityError::NoWindows));
        assert!(matches!(fails(&[1, 2, 10], &base), FidelityError::TokenOutOfRange { index: 2, token: 10, .. }));
        let alien = FidelityConfig { prefix: vec![10], ..base };
        assert!(matches!(fails(&[1; 9], &alien), FidelityError::TokenOutOfRange { index: 0, .. }));
    }
}
