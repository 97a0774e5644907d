//! Failures of making a student or a synthetic model.

use std::path::Path;

use gguf_bitnet::FormatError;

use crate::adapt::AdaptError;
use crate::export::ExportError;
use crate::policy::PolicyError;
use crate::ptq::PtqError;
use crate::recipe::RecipeError;
use crate::train::TrainError;

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A defect of a recipe, an input or the environment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named as in the messages")]
pub enum Error {
    /// The recipe cannot be read, or does not fit the model.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// A calibration cannot be used, or its student drifts away.
    #[error(transparent)]
    Ptq(#[from] PtqError),
    /// An adapter cannot be made.
    #[error(transparent)]
    Adapt(#[from] AdaptError),
    /// An adapter cannot be folded into the weights.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A policy store cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A model cannot be trained, or a run cannot go on.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A recording of a teacher cannot be read.
    #[error(transparent)]
    Evaluation(Box<behavior_eval::Error>),
    /// Teacher and student are no pair.
    #[error(
        "teacher and student differ in {what}: {teacher} and {student}; name the teacher that the student was made of"
    )]
    NotAPair { what: String, teacher: String, student: String },
    /// The memory limit is below the need of the tensor with the largest rows.
    #[error("{limit} bytes of memory are too few: `{tensor}` needs at least {needed} (raise --max-memory)")]
    Memory { limit: u64, needed: u64, tensor: String },
    /// No choice of types is small enough.
    #[error(
        "no choice of types gives a student of {target} bytes or less: the smallest has {smallest} (raise --target-size)"
    )]
    TargetSize { target: u64, smallest: u64 },
    /// A student whose units depend on each other.
    #[error("a calibrated student is made layer by layer: share the layers with --rounds in place of --part")]
    NotCut,
    /// A search of types, which one machine makes.
    #[error("the search of types runs on one machine: leave out --shard, or --target-size")]
    SearchNotCut,
    /// The student would replace its own source.
    #[error("{path} belongs to the model that is read: choose another name for the output")]
    OutputIsSource { path: String },
    /// The policy store would replace the model, or the model the store.
    #[error("{path} belongs to the model that is read or written: choose another name for the policies")]
    PoliciesAreModel { path: String },
    /// The source has holes where weights should lie.
    #[error("{path}: {defect}; make or download it again (--allow-zero quantises it as it is)")]
    SourceWithoutWeights { path: String, defect: String },
    /// The file that was written is not the file that was planned.
    #[error("verification of the written file failed: {defect}")]
    NotAsPlanned { defect: String },
    /// A shape description cannot be used.
    #[error("{path} is not a usable shape: {reason}")]
    Shape { path: String, reason: String },
    /// A directory has no tokenizer to copy.
    #[error("{path}: there is no tokenizer.json in it; name the directory of a checkpoint with a tokenizer")]
    NoTokenizer { path: String },
    /// A model file could not be read or written.
    #[error(transparent)]
    Gguf(#[from] gguf_bitnet::Error),
    /// A model's configuration or tokenizer could not be read.
    #[error(transparent)]
    Runtime(#[from] moe_runtime::Error),
    /// The operating system refused an operation on a file.
    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: String, source: std::io::Error },
}

impl From<behavior_eval::Error> for Error {
    fn from(error: behavior_eval::Error) -> Self {
        Error::Evaluation(Box::new(error))
    }
}

impl Error {
    /// Adds the names of the tensor and of the file to an error about rows, whose encoder knows neither.
    pub(crate) fn of_tensor(self, name: &str, path: &Path) -> Error {
        match self {
            Error::Gguf(error @ gguf_bitnet::Error::Format(FormatError::NotRepresentable { .. })) => {
                error.in_tensor(name).in_file(path).into()
            }
            error => error,
        }
    }

    /// The failure to `action` the file or directory `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { action, path: path.display().to_string(), source }
    }
}
