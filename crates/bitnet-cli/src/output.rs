//! The two streams: results on standard output, everything else on standard error.

mod progress;
mod size;
mod stream;
mod table;
mod utc;

pub(crate) use progress::Progress;
pub(crate) use size::{bits_per_weight, size};
pub(crate) use stream::{bytes, json, line, lines, name, not_written, note, raw};
pub(crate) use table::table;
pub(crate) use utc::Utc;
