//! GGUF: reading over memory maps, metadata, and streaming writing.

mod craftsman;
mod cursor;
mod error;
mod file;
pub(crate) mod header;
pub(crate) mod i2s_layout;
mod metadata;
mod q2_0;
mod split;
pub(crate) mod value;
mod writer;

pub(crate) use split::ENDING;

pub use error::GgufError;
pub use file::{GgufFile, OpenOptions};
pub use metadata::Metadata;
pub use split::{split_file_name, split_metadata};
pub use value::{Array, Value};
pub use writer::GgufWriter;
