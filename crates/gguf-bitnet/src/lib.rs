//! GGUF and safetensors: validated reading over memory maps, streaming writing, names, resumable jobs.
//!
//! A model file is hostile until proven otherwise: opening one checks every count, length, name and
//! span against the size of the file before anything is allocated or any view exists. What the
//! weights themselves hold (codes, scales, NaN) is checked when they are read or by [`verify`].

mod catalog;
mod class;
mod dequant;
mod discovery;
mod disk;
mod encode;
mod error;
mod identity;
pub mod job;
mod map;
mod mapper;
mod mem;
mod metadata;
mod new_file;
mod path;
mod reader;
mod resolve;
mod rewrite;
mod safetensors;
mod shown;
mod source;
mod types;
mod value;
mod verify;
mod writer;

pub use catalog::{Catalog, LogicalTensor, Matrix, Part};
pub use class::TensorClass;
pub use dequant::dequantize;
pub use discovery::{ClassCount, DiscoveryReport, Expected, Misshaped, validate};
pub use disk::{free_space, require_space, write_atomic};
pub use encode::{encode_row, quantize_row};
pub use error::{Error, Result};
pub use identity::{identity, identity_of, local_state};
pub use map::MappedFile;
pub use mapper::{SplitDims, TensorNameMapper, gguf_name, hf_name};
pub use mem::{current_rss_bytes, peak_rss_bytes};
pub use metadata::Metadata;
pub use new_file::NewFile;
pub use path::{join_file_name, output_path};
pub use reader::{GgufFile, OpenOptions, split_file_name, split_metadata};
pub use resolve::{OpenModel, open_source, resolve_model};
pub use rewrite::rewrite_metadata;
pub use safetensors::SafetensorsDir;
pub use shown::is_unseen;
pub use source::{TensorInfo, TensorSource};
pub use ternary_core::{Bytes, I2sLayout, Rounding};
pub use types::{TensorType, UnknownTypeName};
pub use value::{Array, Value};
pub use verify::{Defect, DefectKind, TypeCount, VerifyReport, verify, verify_source};
pub use writer::GgufWriter;
