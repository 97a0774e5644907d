//! Failures of training.

/// A model that cannot be trained, or a run that cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its variant and its fields mean")]
pub enum TrainError {
    #[error("the model has no tensor `{tensor}`: run `bitnet inspect` on it")]
    Missing { tensor: String },
    #[error("{path} is no GGUF of one file that holds each tensor by itself: make the student with `bitnet quantize`")]
    NoStudent { path: String },
    #[error("`{tensor}` has another shape in the teacher: name the teacher that the student was made of")]
    Shape { tensor: String },
    #[error(
        "{limit} bytes of memory are too few: a pass of {tokens} tokens needs {needed} (lower --windows-at-a-time, leave out of \
         --train what takes most, which is `{group}` with {of_group} bytes, or raise --max-memory)"
    )]
    Memory { limit: u64, needed: u64, tokens: usize, group: &'static str, of_group: u64 },
    #[error("the file has no weights of the groups that are to be trained ({groups}): name others with --train")]
    NothingToTrain { groups: String },
    #[error(
        "step {step}: {what} of the group `{group}` is not a finite number: lower --lr. The last good state \
         is {kept}"
    )]
    NotFinite { step: usize, what: String, group: &'static str, kept: String },
    #[error(
        "the gradient of `{tensor}` on the protected texts is not a finite number: run `bitnet verify` on the student, or leave \
         out --ewc"
    )]
    FisherNotFinite { tensor: String },
    #[error("groups of {group} answers cannot be compared: give at least {least} with --grpo-group")]
    SmallGroup { group: usize, least: usize },
    #[error("{path} has no chat template, so no prompt can be asked: leave out --grpo")]
    NoTemplate { path: String },
    #[error(
        "rewards need a model with experts and at least {needed} prompts with labels: name another file with --grpo-suite"
    )]
    NoPractice { needed: usize },
    #[error(
        "the groups `adapter` and `sidecar` belong to an adapter that training starts from: `bitnet refine --train adapter` trains \
         one, and so does `--train sidecar`"
    )]
    NoAdapter,
    #[error("the adapter holds additions of the groups {held}, and {asked} is to be trained: leave out --train")]
    AdapterGroups { held: String, asked: String },
    #[error("an adapter is trained by itself and on texts, because its model stays as it is: leave out {what}")]
    AdapterAlone { what: &'static str },
    #[error("`{name}` has the type {ty}, which is read but not written: leave its group out of --train")]
    Unwritable { name: String, ty: &'static str },
    #[error("`{name}` has the type {ty}, in which no repaired router can be written: leave out --repair-routers")]
    RouterType { name: String, ty: &'static str },
    #[error(
        "{windows} windows are too few to hold one out, and a repaired router is judged on held-out windows: give at least \
         {needed}, or leave out --repair-routers"
    )]
    NoHeldOut { windows: usize, needed: usize },
    #[error(
        "`{name}` has the type {ty}: scales and trits are trained in blocks of 256 weights with a scale each; make the student as \
         TQ2_0, TQ1_0 or BITNET_T158, or leave scales and trits out of --train"
    )]
    TernaryType { name: String, ty: &'static str },
    #[error(
        "{path} was trained on this suite (`refine --artifact` or `refine --grpo`), so its answers prove nothing: judge it on \
         another suite"
    )]
    TaughtSuite { path: String },
    #[error("{path} holds no predictions: record it with those of the answers, as `bitnet eval-gates` does")]
    NoLogits { path: String },
    #[error(
        "the recordings are those of model {recorded}, and the student was made of {made_of}: name the recordings of its \
         teacher with --artifact"
    )]
    OtherTeacher { recorded: String, made_of: String },
    #[error(
        "{what} reads the weights of the teacher, which recordings do not hold: name it with --teacher in place of --artifact"
    )]
    NoCheckpoint { what: &'static str },
    #[error(
        "{path} is a part of a model or the output: choose another name for the log, whose curve gets the ending `svg`"
    )]
    LogIsModel { path: String },
}
