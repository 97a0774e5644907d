//! GGUF and safetensors: validated reading over memory maps, streaming writing, names, resumable jobs.
//!
//! A model file is untrusted input: opening one checks every count, length, name and span against the size of the file
//! before anything is allocated or any view exists. The weights themselves (codes, scales, NaN) are checked when they
//! are read or by [`verify`].

mod error;
mod formats;
mod gguf;
mod model;
mod names;
mod safetensors;
mod shown;
mod source;
mod store;
mod text;

pub use error::{Error, Result};
pub use formats::{FormatError, TensorType, TritGroup, Trits, UnknownTypeName, dequantize, encode_row, quantize_row};
pub use gguf::{Array, GgufError, GgufFile, GgufWriter, Metadata, OpenOptions, Value, split_file_name, split_metadata};
pub use model::{
    Converted, Defect, DefectKind, ModelError, OpenModel, Role, TypeCount, VERIFY_JOB, VerifyReport, Weightless,
    ZeroTensor, convert, hub_folder, identity, identity_of, local_state, open_source, resolve_model, rewrite_metadata,
    sample_of, verify, verify_parts, verify_shard, verify_source,
};
pub use names::{
    Catalog, ClassCount, DiscoveryReport, Expected, LogicalTensor, Matrix, Misshaped, NameRow, NamesError, Part, Piece,
    RowOrder, Scope, Spelling, SplitDims, TensorClass, TensorNameMapper, validate,
};
pub use safetensors::{Quantization, SafetensorsDir, SafetensorsError, TritWeights};
pub use shown::is_unseen;
pub use source::{FileKind, Scales, SourceError, TensorInfo, TensorSource, ZeroTail};
#[cfg(target_os = "linux")]
pub use store::end_on_lost_pages;
pub use store::{
    Cut, Job, JobUnit, MAX_CONFIG_BYTES, MappedFile, NewFile, PartError, Parts, Shard, StoreError, UnitJob, UnitResult,
    available_bytes, first_difference, link_target, open_regular, output_path, peak_rss_bytes, read_stream, read_text,
    read_text_if_any, require_space, rss_bytes, sync_dir, write_atomic,
};
pub use text::{NotText, with_line_feeds, without_mark};

/// The examples of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
