//! Paths for which `-` does not stand for standard input or output.

use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};

/// The reason for an output that is read back and renamed.
pub(crate) const MODEL_OUT: &str = "a model is checked after it was written and cannot go to standard output: write the name of a file, such as out.gguf";

/// The reason for the files of a suite.
pub(crate) const SUITE_FILE: &str =
    "suite and corpus are two files, so neither is read from standard input: write the name of a file";

/// The reason for a store of lessons.
pub(crate) const STORE: &str = "a store is read at several places: write the name of a file";

/// Parses a path and refuses `-`, for `reason`. A file of that name is `./-`.
pub(crate) fn path_not_stream(reason: &'static str) -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(move |path| if path == Path::new("-") { Err(reason) } else { Ok(path) })
}
