//! What lies between this crate and the operating system: maps, output files, free space, memory, resumable jobs.

pub(crate) mod disk;
mod error;
pub mod job;
mod map;
mod memory;
mod new_file;
mod path;

pub use disk::{free_space, require_space, write_atomic};
pub use error::StoreError;
pub use map::MappedFile;
pub use memory::{current_rss_bytes, peak_rss_bytes};
pub use new_file::NewFile;
pub use path::{join_file_name, output_path};
