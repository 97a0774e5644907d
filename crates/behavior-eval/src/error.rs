//! What can go wrong while a model is measured.

use std::path::PathBuf;

use crate::gates::BehavioralGate;
use crate::model::{ModelError, Role};
use crate::records::artifact::ArtifactDefect;
use crate::records::trace::TraceDefect;
use crate::suite::{Label, SuiteFault};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Failures of a measurement; none of them is ever turned into a figure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A window length nothing can be scored in.
    #[error("windows of {n_ctx} tokens are too short; use at least {min}")]
    WindowTooShort {
        /// The length asked for.
        n_ctx: usize,
        /// The shortest that works.
        min: usize,
    },
    /// The prefix reaches into the scored half.
    #[error("a prefix of {prefix} tokens leaves no unscored text in windows of {n_ctx}; use longer windows")]
    PrefixTooLong {
        /// Its length.
        prefix: usize,
        /// Length of a window.
        n_ctx: usize,
    },
    /// Not one full window.
    #[error("the text has {have} tokens, but one window needs {need}; give a longer text or shorter windows")]
    TextTooShort {
        /// Tokens of the text.
        have: usize,
        /// Tokens of text in a window.
        need: usize,
    },
    /// A limit of no windows at all.
    #[error("a limit of 0 windows scores nothing; leave it out or use at least 1")]
    NoWindows,
    /// A token the model does not have.
    #[error(
        "token {index} of the text is {token}, but the model knows {vocab_size}; tokenize with the model's own tokenizer"
    )]
    TokenOutOfRange {
        /// Position in the text; prefix tokens count from its start.
        index: usize,
        /// The token.
        token: u32,
        /// Number of tokens the model has.
        vocab_size: usize,
    },
    /// Teacher and student have different vocabularies.
    #[error("the teacher has {teacher} tokens and the student {student}; they cannot be compared")]
    VocabularyMismatch {
        /// Vocabulary of the teacher.
        teacher: usize,
        /// Vocabulary of the student.
        student: usize,
    },
    /// The model failed.
    #[error("the {role} failed in window {window}: {source}")]
    Model {
        /// Which model.
        role: Role,
        /// Index of the window.
        window: usize,
        /// What it said.
        source: ModelError,
    },
    /// The model broke the contract of [`crate::model::LanguageModel`].
    #[error("the {role} gave {got} in window {window} where {want} was due; its `logits` is not implemented right")]
    Contract {
        /// Which model.
        role: Role,
        /// Index of the window.
        window: usize,
        /// What came.
        got: String,
        /// What the contract says.
        want: String,
    },
    /// A logit that is no number.
    #[error(
        "the {role} gave logit {value} for token {token} at position {position} of window {window}; run `bitnet verify` on it"
    )]
    NotFinite {
        /// Which model.
        role: Role,
        /// Index of the window.
        window: usize,
        /// Position in the window.
        position: usize,
        /// Index of the logit.
        token: usize,
        /// Its value.
        value: f32,
    },
    /// A model under the gates failed.
    #[error("the {role} failed on prompt {prompt_id}: {source}")]
    Subject {
        /// Which model.
        role: Role,
        /// Which prompt.
        prompt_id: String,
        /// What it said.
        source: ModelError,
    },
    /// The model broke the contract of [`crate::model::Subject`].
    #[error(
        "the {role} handed out {got} as {what} of prompt {prompt_id}; run `bitnet verify` on it, or mend its `Subject`"
    )]
    SubjectContract {
        /// Which model.
        role: Role,
        /// Which prompt.
        prompt_id: String,
        /// Which column.
        what: &'static str,
        /// What came.
        got: String,
    },
    /// Two models decided about different things.
    #[error(
        "prompt {prompt_id}: the teacher's routing is {teacher:?} and the student's {student:?} (layers, tokens, \
         experts per token); both must come from the same tokens and the same architecture"
    )]
    RoutingShape {
        /// Which prompt.
        prompt_id: String,
        /// Layers, tokens and experts per token of the teacher.
        teacher: [usize; 3],
        /// The same of the student.
        student: [usize; 3],
    },
    /// A routing gate without a case.
    #[error("no token passed a router, so there is nothing to gate; give prompts and a model with experts")]
    NoCases,
    /// A file that cannot be opened, read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line of a trace that is wrong.
    #[error("{} line {line}: {defect}", path.display())]
    Trace {
        /// The trace.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        defect: TraceDefect,
    },
    /// Two traces that cannot be compared.
    #[error(
        "the traces part ways: the first has {first} where the second has {second}; compare traces of the same suite \
         and teacher"
    )]
    TraceMismatch {
        /// Where the first is.
        first: String,
        /// Where the second is.
        second: String,
    },
    /// A teacher artifact that is not what it should be.
    #[error("{}: {defect}; remove its folder to record it again", path.display())]
    Artifact {
        /// The artifact.
        path: PathBuf,
        /// What is wrong.
        defect: ArtifactDefect,
    },
    /// A recording that was begun with other prompts.
    #[error("the recording was begun with prompt {recorded} where {given} is given now; give the same suite")]
    PromptOrder {
        /// The prompt that is recorded.
        recorded: String,
        /// The prompt that is given.
        given: String,
    },
    /// A resumable job that cannot go on.
    #[error(transparent)]
    Job(#[from] gguf_bitnet::Error),
    /// A prompt that is asked for and not there.
    #[error("the suite has no prompt {prompt_id}; give the suite that it is of")]
    UnknownPrompt {
        /// Its id.
        prompt_id: String,
    },
    /// Models of different shapes.
    #[error("{what}: {teacher} in the teacher, {student} in the student; the gates compare models of one architecture")]
    Incomparable {
        /// What differs.
        what: &'static str,
        /// The teacher's.
        teacher: String,
        /// The student's.
        student: String,
    },
    /// Models with different tokenizers or chat templates.
    #[error(
        "prompt {prompt_id} has other tokens in the student than in the teacher; both must share tokenizer and chat \
         template"
    )]
    OtherTokens {
        /// The prompt.
        prompt_id: String,
    },
    /// The teacher is needed and cannot be had.
    #[error("the teacher cannot be loaded: {source}")]
    TeacherNotLoaded {
        /// Why.
        source: ModelError,
    },
    /// What was kept of an interrupted run is not as it was written.
    #[error("{}.partial is damaged ({reason}); remove it to start over", path.display())]
    Journal {
        /// The journal.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A gate that does not exist.
    #[error("there is no gate `{name}`; the gates are {}", crate::gates::BehavioralGate::names())]
    UnknownGate {
        /// What was asked for.
        name: String,
    },
    /// A threshold that no share can be compared with.
    #[error("{value} is no threshold for {gate}; use a number from 0 to 1")]
    ThresholdOutOfRange {
        /// Which gate.
        gate: BehavioralGate,
        /// What was asked for.
        value: f64,
    },
    /// A verdict without one of its figures.
    #[error("{gate} was not judged, and without it there is no verdict")]
    GateMissing {
        /// Which gate.
        gate: BehavioralGate,
    },
    /// A figure that rests on too little to decide anything.
    #[error("{gate} rests on {n} {}, fewer than {min}: no verdict; use a larger suite", gate.unit())]
    TooFewSamples {
        /// Which gate.
        gate: BehavioralGate,
        /// What it rests on.
        n: u64,
        /// What it takes.
        min: u64,
    },
    /// An earlier report that cannot be compared with.
    #[error("the baseline report is not usable: {reason}")]
    BaselineReport {
        /// What is wrong with it.
        reason: String,
    },
    /// Gate results in the metadata of a model that cannot be read.
    #[error(
        "the gate results in the model's metadata are damaged at `craftsman.gates.{name}`; evaluate the model again with --stamp"
    )]
    BadStamp {
        /// The key that is missing or wrong.
        name: &'static str,
    },
    /// A line of a suite or of its corpus that is not right.
    #[error("{} line {line}: {fault}", file.display())]
    Suite {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        fault: SuiteFault,
    },
    /// A suite that lacks one of the two labels which the gates weigh against each other.
    #[error(
        "the suite has {resolved} resolved and {indeterminate} indeterminate prompts; the gates need both kinds, for one alone is passed by always or never refusing"
    )]
    OneSided {
        /// Prompts that have an answer.
        resolved: u64,
        /// Prompts that have none.
        indeterminate: u64,
    },
    /// A suite too small for a verdict.
    #[error("the suite has {have} {label} prompts, but the gates need at least {need}; use a larger suite")]
    TooFewPrompts {
        /// Which prompts.
        label: Label,
        /// How many there are.
        have: u64,
        /// How many there must be.
        need: u64,
    },
    /// Too much evidence taken away for a verdict on what is left.
    #[error(
        "only {have} {label} prompts keep their label when evidence is taken away, but the gates need at least {need}; \
         take a smaller share, or use a larger suite"
    )]
    TooFewSurvive {
        /// Which prompts.
        label: Label,
        /// How many keep it.
        have: u64,
        /// How many there must be.
        need: u64,
    },
    /// A line of refusal signals that is none.
    #[error("line {line}: {reason}; write one phrase or `<tag>` per line")]
    RefusalSignal {
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A label threshold that does not exist or can decide nothing.
    #[error(
        "{name}={value} is no label threshold; use disagreement or fragility with a number from 0 to 1, or redundancy \
         with one from 0 on"
    )]
    LabelThreshold {
        /// Which signal.
        name: String,
        /// What was asked for.
        value: f64,
    },
    /// A share of the corpus that cannot be removed.
    #[error("a share of {fraction} of the chunks cannot be removed; use a number between 0 and 1")]
    Fraction {
        /// The share.
        fraction: f64,
    },
    /// A share of the corpus that is less than half a chunk.
    #[error("{fraction} of {chunks} chunks is less than one chunk; remove a larger share or use a larger suite")]
    NothingToRemove {
        /// The share.
        fraction: f64,
        /// Chunks of the suite.
        chunks: usize,
    },
}
