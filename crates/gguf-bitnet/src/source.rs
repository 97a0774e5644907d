//! The view of a model file that both container formats share: named tensors and their bytes.

mod error;
mod file_kind;
mod scales;
mod shard_name;
mod tensor_info;
mod tensor_source;
mod zero_tail;

pub(crate) use file_kind::START_BYTES;
pub(crate) use shard_name::ShardName;
pub(crate) use tensor_source::within;
pub(crate) use zero_tail::{FILE_BLOCK_BYTES, cuts_row};

pub use error::SourceError;
pub use file_kind::FileKind;
pub use scales::Scales;
pub use tensor_info::TensorInfo;
pub use tensor_source::TensorSource;
pub use zero_tail::ZeroTail;
