//! Files and memory of the operating system: maps, output files, free space, resident memory, resumable jobs.

pub(crate) mod disk;
mod error;
mod job;
mod map;
mod memory;
mod new_file;
mod parts;
mod path;
mod read;

pub use disk::{require_space, sync_dir, write_atomic};
pub use error::StoreError;
pub use job::{Job, JobUnit, first_difference};
pub use map::MappedFile;
#[cfg(target_os = "linux")]
pub use map::end_on_lost_pages;
pub use memory::{available_bytes, peak_rss_bytes, rss_bytes};
pub use new_file::NewFile;
pub use parts::{Cut, PartError, Parts, Shard, UnitJob, UnitResult};
pub(crate) use read::read_start;

pub use path::{link_target, output_path};
pub use read::{MAX_CONFIG_BYTES, open_regular, read_stream, read_text, read_text_if_any};
