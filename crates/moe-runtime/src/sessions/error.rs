//! Failures of sequences, of the choice of tokens, and of answers.

/// A sequence that cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message names its fields")]
pub enum SessionError {
    /// The call had no tokens.
    #[error("there are no tokens to compute; give a prompt")]
    NoTokens,
    /// A token id outside of the vocabulary.
    #[error("token {token} is not in the vocabulary of {vocab}; use the tokenizer that belongs to the model")]
    Token { token: u32, vocab: usize },
    /// A step was given a sequence that does not exist, or one sequence twice.
    #[error("sequence {index} of {sequences} does not exist or is part of the step already; give each one segment")]
    Segment { index: usize, sequences: usize },
    /// A prompt, or a prompt and its answer, are longer than the context.
    #[error("{need} tokens do not fit the context of {have}; shorten the prompt or start with a larger context (-c)")]
    ContextFull { have: usize, need: usize },
    /// A context that the model was not made for.
    #[error(
        "a context of {asked} tokens is more than the {made_for} the model was made for; choose at most {made_for}"
    )]
    ContextTooLong { asked: usize, made_for: usize },
    /// A sampling setting is out of range.
    #[error("sampling setting {setting} = {value} is not usable; it has to be {rule}")]
    Sampling { setting: &'static str, value: f32, rule: &'static str },
    /// A logit that is NaN or plus infinity, or a row without any finite one.
    #[error("logit {token} is {value}: the forward pass went wrong; run `bitnet verify` on the model")]
    Logit { token: usize, value: f32 },
    /// A grammar that cannot be compiled or followed.
    #[error("the answer cannot be constrained: {reason}; change the schema, the pattern or the grammar")]
    Grammar { reason: String },
    /// A row in which each token is forbidden.
    #[error("no token may come next: the constraint of the answer forbids every token that the model finds possible")]
    NothingAllowed,
    /// A row without logits.
    #[error("there is no logit to choose a token from; the model's vocabulary is empty")]
    NoLogits,
    /// More logits than token ids exist.
    #[error("a row of logits reaches index {got}, but token ids have 32 bits; convert the model again")]
    TooManyLogits { got: usize },
    /// Bytes that are no saved sequence of this model, run in this way.
    #[error("the saved sequence cannot be used: {reason}; compute the tokens again")]
    Saved { reason: &'static str },
    /// A scripted backend was called more often than it has answers.
    #[error("the script has no answer for call {calls}; give it one answer for each call")]
    ScriptEnded { calls: usize },
}
