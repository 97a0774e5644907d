//! Failures of the calibrated quantiser.

/// A calibration that cannot be used, or a student that drifts away.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its variant and its fields mean")]
pub enum PtqError {
    #[error(
        "the calibration texts give no window of tokens: name longer texts, exclude less, or raise --calibration-tokens"
    )]
    NoTokens,
    #[error(
        "the unfinished job chose its calibration windows with another model: pass --force to begin anew, or name an empty folder \
         with --rounds"
    )]
    OtherModel,
    #[error("{name} holds conversations, but the model has no chat template: give plain text")]
    NoTemplate { name: String },
    #[error("line {line} of {name} is no conversation of this model: {reason}")]
    Conversation { name: String, line: usize, reason: String },
    #[error(
        "token {token} of the calibration is beyond the {vocab} that the model knows: its tokenizer belongs to another"
    )]
    Token { token: u32, vocab: usize },
    #[error(
        "{what} of layer {layer} are not finite numbers: run `bitnet verify` on the model, or calibrate on other texts"
    )]
    NotFinite { what: &'static str, layer: usize },
    #[error(
        "behind layer {layer} the student is {drift:.2} of the teacher's length away from it, behind the layer before {before:.2}: \
         give more calibration tokens or higher precision, or pass --force to go on"
    )]
    Drift { layer: usize, drift: f64, before: f64 },
    #[error(
        "{limit} bytes of memory are too few: the calibration needs {needed} (raise --max-memory, or lower --calibration-tokens)"
    )]
    Memory { limit: u64, needed: u64 },
    #[error(
        "layer {layer}: {missing} missing in {dir}: run what is missing with --shard, or copy its parts there, then run this \
         command again"
    )]
    MissingParts { layer: usize, missing: String, dir: String },
    #[error(
        "{path} belongs to another calibration: its `{key}` is {found}, here it is {given}: give all machines the same model, \
         texts and settings, or name an empty folder"
    )]
    OtherRounds { path: String, key: String, found: String, given: String },
    #[error("{path} is cut off or damaged: remove it, and the next command writes it anew; the parts stay")]
    DamagedRounds { path: String },
    #[error(
        "{path} is one of {found} parts of its layer, and --shard cuts into {given}: finish the layer with {found} shards, or \
         remove its parts"
    )]
    OtherCut { path: String, found: usize, given: usize },
    #[error("no feed-forward network is ternary by this recipe, so there is nothing to share: leave out --rounds")]
    NoRounds,
}
