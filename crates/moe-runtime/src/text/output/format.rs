//! The markup that a model writes answers in.

use std::sync::Arc;

use crate::models::registry::special_tokens;
use crate::models::tokens::CallMarkup;
use crate::text::prompt::ChatPrompt;
use crate::text::tokenizer::Tokenizer;

/// The role of a token in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    ThoughtStart,
    ThoughtEnd,
    CallStart,
    CallEnd,
    KeyStart,
    KeyEnd,
    ValueStart,
    ValueEnd,
}

/// Where an answer begins: the prompt may have opened a thought already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OutputStart {
    /// In the answer itself.
    #[default]
    Content,
    /// In a thought, so that the first end of one is the end of that.
    Reasoning,
}

/// The tokens of a vocabulary that mark thoughts and tool calls in answers.
///
/// ```
/// use moe_runtime::{OutputFormat, Tokenizer};
/// assert!(!OutputFormat::of_model(&Tokenizer::bytes()).has_calls());
/// let glm = ["<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"];
/// let format = OutputFormat::find(|text| glm.iter().position(|token| *token == text).map(|id| id as u32));
/// assert!(format.has_calls() && format.thought_end().is_none());
/// ```
#[derive(Clone, Debug, Default)]
pub struct OutputFormat {
    /// Id, role and text of each marker; at most eight.
    markers: Arc<[(u32, Marker, &'static str)]>,
}

impl OutputFormat {
    /// The format of a model's answers.
    #[must_use]
    pub fn of_model(tokenizer: &Tokenizer) -> OutputFormat {
        OutputFormat::find(|text| tokenizer.token_to_id(text))
    }

    /// The format of a vocabulary in which `id_of` finds the token of a text: the markup of the first architecture that is
    /// there as a whole, once for thoughts and once for calls.
    pub fn find(id_of: impl Fn(&str) -> Option<u32>) -> OutputFormat {
        use Marker::{CallEnd, CallStart, KeyEnd, KeyStart, ThoughtEnd, ThoughtStart, ValueEnd, ValueStart};
        let all = |markers: &[(Marker, &'static str)]| {
            let found = markers.iter().map(|&(marker, text)| Some((id_of(text)?, marker, text)));
            found.collect::<Option<Vec<_>>>()
        };
        let thought = |[start, end]: [&'static str; 2]| all(&[(ThoughtStart, start), (ThoughtEnd, end)]);
        let call = |CallMarkup { whole, key, value }| {
            all(&[
                (CallStart, whole[0]),
                (CallEnd, whole[1]),
                (KeyStart, key[0]),
                (KeyEnd, key[1]),
                (ValueStart, value[0]),
                (ValueEnd, value[1]),
            ])
        };
        let thought = special_tokens().filter_map(|tokens| tokens.thought).find_map(thought);
        let call = special_tokens().filter_map(|tokens| tokens.call).find_map(call);
        OutputFormat { markers: [thought, call].into_iter().flatten().flatten().collect() }
    }

    /// Where the answer to `prompt` begins.
    #[must_use]
    pub fn start_of(&self, prompt: &ChatPrompt) -> OutputStart {
        match self.of(Marker::ThoughtStart) {
            Some((_, text)) if prompt.ends_with(text) => OutputStart::Reasoning,
            _ => OutputStart::Content,
        }
    }

    /// Whether answers can hold tool calls.
    #[must_use]
    pub fn has_calls(&self) -> bool {
        self.call_start().is_some()
    }

    /// The token that ends a thought.
    #[must_use]
    pub fn thought_end(&self) -> Option<u32> {
        self.of(Marker::ThoughtEnd).map(|(id, _)| id)
    }

    /// The token that begins a tool call.
    #[must_use]
    pub fn call_start(&self) -> Option<u32> {
        self.of(Marker::CallStart).map(|(id, _)| id)
    }

    /// The markup of tool calls as the vocabulary spells it.
    #[cfg(feature = "grammar")]
    pub(crate) fn call_markup(&self) -> Option<CallMarkup> {
        let text = |marker| self.of(marker).map(|(_, text)| text);
        Some(CallMarkup {
            whole: [text(Marker::CallStart)?, text(Marker::CallEnd)?],
            key: [text(Marker::KeyStart)?, text(Marker::KeyEnd)?],
            value: [text(Marker::ValueStart)?, text(Marker::ValueEnd)?],
        })
    }

    fn of(&self, marker: Marker) -> Option<(u32, &'static str)> {
        self.markers.iter().find(|(_, m, _)| *m == marker).map(|&(id, _, text)| (id, text))
    }

    /// Role and text of a token that is a marker.
    pub(super) fn marker(&self, token: u32) -> Option<(Marker, &'static str)> {
        self.markers.iter().find(|(id, _, _)| *id == token).map(|&(_, marker, text)| (marker, text))
    }
}
