//! Files and memory of the operating system: maps, output files, free space, resident memory, resumable jobs.

pub(crate) mod disk;
mod error;
mod job;
mod map;
mod memory;
mod new_file;
mod path;

pub use disk::{require_space, write_atomic};
pub use error::StoreError;
pub use job::{Job, JobUnit};
pub use map::MappedFile;
pub use memory::peak_rss_bytes;
pub use new_file::NewFile;
pub use path::output_path;
