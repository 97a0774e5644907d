//! Tokens with a role that an architecture's files do not state: they are looked up in the vocabulary by their text.

/// The special tokens of an architecture. A text that a vocabulary does not hold has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpecialTokens {
    /// Tokens that end an answer, also where the model's files list only some of them.
    pub stops: &'static [&'static str],
    /// The token that a checkpoint's chat ends a turn with.
    pub end_of_turn: Option<&'static str>,
    /// The token that ends a message which waits for a tool.
    pub end_of_message: Option<&'static str>,
    /// Tokens that the model expects before raw text; used where a vocabulary has all of them.
    pub raw_prefix: &'static [&'static str],
    /// Tokens that the parser of answers needs to see although some vocabularies call them control tokens.
    pub markup: &'static [&'static str],
    /// Start and end of a thought; a chat template may put the start at the end of a prompt.
    pub thought: Option<[&'static str; 2]>,
    /// The markup of tool calls in answers.
    pub call: Option<CallMarkup>,
    /// The tokens before a text, before the text that follows a gap, and before the text of the gap.
    pub infill: Option<[&'static str; 3]>,
}

/// Start and end of a tool call and of its parts: the name stands behind the start of the call, then come keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallMarkup {
    pub whole: [&'static str; 2],
    pub key: [&'static str; 2],
    pub value: [&'static str; 2],
}

impl SpecialTokens {
    /// No special tokens: for an architecture whose files state all of them.
    pub(crate) const NONE: SpecialTokens = SpecialTokens {
        stops: &[],
        end_of_turn: None,
        end_of_message: None,
        raw_prefix: &[],
        markup: &[],
        thought: None,
        call: None,
        infill: None,
    };
}
