//! Errors of models that cannot be found, or that are not the expected ones.

use std::path::PathBuf;

use super::role::Role;
use crate::source::ZeroTail;

/// A model that cannot be found or is not the expected one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the sentence of a variant says what its fields are")]
pub enum ModelError {
    /// There is no file at the path, and no model of this name in the cache.
    #[error("there is no model `{spec}`: give an existing file or directory, or `organisation/name` of a cached model")]
    NoSuchModel { spec: String },
    /// A model name that the Hugging Face cache does not hold.
    #[error(
        "there is no file or directory `{spec}`, and no model of this name at {}: \
         download it first, this program never does",
        looked.display()
    )]
    NotCached {
        spec: String,
        /// The folder in which the cache would hold the model.
        looked: PathBuf,
    },
    /// A cached model of which files are missing.
    #[error("the cached model has no usable snapshot ({what}): download it again")]
    BrokenCache { what: String },
    /// A path below a cached model that the snapshot does not hold.
    #[error("the cached model has no `{spec}`, it has {files}: name one of its files, or download this one")]
    NotInSnapshot {
        spec: String,
        /// Names of the first files.
        files: String,
    },
    /// A type that no GGUF file of a directory has.
    #[error("no GGUF file here has the type `{quant}` in its name ({files}): give another type, or fetch that file")]
    NoSuchQuant {
        quant: String,
        /// Names of the first files.
        files: String,
    },
    /// A link whose target is gone.
    #[error("the link points to a file that is not there: fetch the file, or correct the link")]
    LostLink,
    /// Standard input as a model.
    #[error("a model is mapped from a file and cannot be read from standard input: write it to a file and name that")]
    StandardInput,
    /// An adapter, a projector or another companion in place of a model.
    #[error("not a language model: the file is {role}")]
    NoLanguageModel { role: Role },
    /// A split set, whose metadata cannot be replaced.
    #[error("the model is split into {count} files; metadata can be replaced in a single file only: merge them first")]
    SplitRewrite { count: usize },
    /// A model without trits, or with trits that no other type takes.
    #[error("the model has no tensor of trits to convert: `bitnet quantize` makes ternary weights of others")]
    NothingToConvert,
    /// An output that is the model it is made from.
    #[error("the output is a file of the model that is converted: name another one")]
    OutputIsSource,
    /// A written tensor that is not the one of the source.
    #[error("the written tensor differs from the one that was read: check the disk and the memory of this machine")]
    NotConverted,
    /// A file whose end was never written.
    #[error("{tail} (--allow-zero uses it as it is)")]
    ZeroTail { tail: ZeroTail },
    /// Matrices or norms whose weights are all zero.
    #[error(
        "{first}{}; no model is meant so: make or download it again (--allow-zero uses it as it is)",
        and_more(*more)
    )]
    ZeroWeights {
        /// The first of them, as a sentence.
        first: String,
        /// Number of further tensors of which this is true.
        more: usize,
    },
    /// A model whose identity is not the expected one.
    #[error("the model has changed: its identity is {got}, not {expected}; evaluate it again")]
    IdentityChanged {
        /// BLAKE3 identity of the expected model.
        expected: String,
        /// BLAKE3 identity of the model found.
        got: String,
    },
}

fn and_more(more: usize) -> String {
    match more {
        0 => String::new(),
        1 => ", and 1 more tensor has such weights".to_owned(),
        n => format!(", and {n} more tensors have such weights"),
    }
}
