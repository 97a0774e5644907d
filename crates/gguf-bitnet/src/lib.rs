//! GGUF and safetensors: validated reading over memory maps, streaming writing, names, resumable jobs.
//!
//! A model file is not trusted: opening it checks every count, length, name and byte range against the size of the
//! file before memory is allocated or a view exists. The weights themselves (codes, scales, NaN) are checked when they
//! are read or by [`verify`].
//!
//! The rooms; each uses only rooms above it:
//!
//! ```text
//! formats            storage types: one file per format, sizes, decoding, encoding
//! source             the view of named tensors that both containers share
//! store              maps, output files, free space, resumable jobs
//! gguf, safetensors  the containers
//! names              from the names in a file to the tensors of a model
//! model              whole models: finding, identity, verification, new metadata
//! ```
//! Each room has an error enum, nested in [`Error`].

mod error;
mod formats;
mod gguf;
mod model;
mod names;
mod safetensors;
mod shown;
mod source;
mod store;

pub use error::{Error, Result};
pub use formats::{FormatError, TensorType, UnknownTypeName, dequantize, encode_row, quantize_row};
pub use gguf::{Array, GgufError, GgufFile, GgufWriter, Metadata, OpenOptions, Value, split_file_name, split_metadata};
pub use model::{
    Defect, DefectKind, ModelError, OpenModel, TypeCount, VerifyReport, identity, identity_of, local_state,
    open_source, resolve_model, rewrite_metadata, verify, verify_source,
};
pub use names::{
    Catalog, ClassCount, DiscoveryReport, Expected, LogicalTensor, Matrix, Misshaped, NamesError, Part, SplitDims,
    TensorClass, TensorNameMapper, gguf_name, hf_name, validate,
};
pub use safetensors::{SafetensorsDir, SafetensorsError};
pub use shown::is_unseen;
pub use source::{SourceError, TensorInfo, TensorSource};
pub use store::{
    Job, JobUnit, MappedFile, NewFile, StoreError, output_path, peak_rss_bytes, require_space, write_atomic,
};
pub use ternary_core::{Bytes, I2sLayout, Rounding};
