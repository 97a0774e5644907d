//! A rendered conversation: its text, and the places of it that are words whatever they spell.

use std::sync::Arc;

/// The prompt of a conversation, as [`ChatTemplate::prompt`](crate::ChatTemplate::prompt) makes it.
///
/// Control tokens come from the template alone: text of users, tools and documents that spells one stays words when
/// the prompt is turned into tokens. The text alone does not say which is which, so encoding it with special parsing
/// would turn such words into tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatPrompt {
    text: String,
    /// Bytes at which content begins that no control token may cover, ascending.
    words: Vec<usize>,
    /// User-defined tokens that may not cover such bytes either: those that the template has as markers.
    markers: Arc<[u32]>,
}

impl ChatPrompt {
    /// A text that is all markup: the text of every control token in it becomes that token. Only for texts without
    /// content of a stranger.
    pub fn of_markup(text: impl Into<String>) -> ChatPrompt {
        ChatPrompt { text: text.into(), words: Vec::new(), markers: Arc::default() }
    }

    pub(crate) fn new(text: String, words: Vec<usize>) -> ChatPrompt {
        ChatPrompt { text, words, markers: Arc::default() }
    }

    pub(crate) fn with_markers(self, markers: &Arc<[u32]>) -> ChatPrompt {
        ChatPrompt { markers: Arc::clone(markers), ..self }
    }

    /// The text, markup and words alike.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn words(&self) -> &[usize] {
        &self.words
    }

    /// Whether a user-defined token is a marker of the template.
    pub(crate) fn is_marker(&self, id: u32) -> bool {
        self.markers.contains(&id)
    }

    /// Whether the prompt ends with this marker, written by the template.
    pub(crate) fn ends_with(&self, marker: &str) -> bool {
        let start = self.text.len().checked_sub(marker.len());
        start.is_some_and(|start| self.text.ends_with(marker) && self.words.iter().all(|&word| word < start))
    }
}
