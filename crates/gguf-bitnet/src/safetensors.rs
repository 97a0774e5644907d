//! Checkpoints in the safetensors format: one file, or the shards of a directory.

mod checkpoint;
mod error;
mod header;
mod quantization;
mod scales;
mod shards;

pub(crate) use header::looks_like_safetensors;
pub(crate) use shards::{file_names, has_checkpoint};

pub use checkpoint::SafetensorsDir;
pub use error::SafetensorsError;
pub use quantization::{Quantization, TritWeights};
