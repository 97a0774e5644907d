//! Writing a trace, and where it lies.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use gguf_bitnet::NewFile;

use super::record::TraceRecord;
use crate::{Error, Result};

/// The file name of a trace: `{model}_{suite}_{timestamp}.jsonl`. Characters that a portable file name may not hold become `-`.
///
/// ```
/// use behavior_eval::records::trace::trace_file_name;
/// assert_eq!(trace_file_name("zai/GLM 4.7", "suite-200", "20260102T030405Z"),
///            "zai-GLM-4.7_suite-200_20260102T030405Z.jsonl");
/// ```
pub fn trace_file_name(model: &str, suite: &str, timestamp: &str) -> String {
    let part = |text: &str| -> String {
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '-' };
        let text: String = text.chars().take(64).map(safe).collect();
        let text = text.trim_start_matches('.');
        if text.is_empty() { "unnamed".to_owned() } else { text.to_owned() }
    };
    format!("{}_{}_{}.jsonl", part(model), part(suite), part(timestamp))
}

/// `root/eval/traces/{model}_{suite}_{timestamp}.jsonl`; the clock is the caller's.
pub fn trace_path(root: &Path, model: &str, suite: &str, timestamp: &str) -> PathBuf {
    root.join("eval").join("traces").join(trace_file_name(model, suite, timestamp))
}

/// Writes a trace file that appears when it is complete.
#[derive(Debug)]
pub struct TraceWriter {
    out: BufWriter<NewFile>,
    path: PathBuf,
}

impl TraceWriter {
    /// Starts the file `path`, whose folders are made as needed.
    ///
    /// # Errors
    /// [`Error::File`] when it is there already, [`Error::Store`] when it cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        let failed = |source| Error::File { path: path.to_owned(), source };
        if path.exists() {
            return Err(failed(std::io::Error::other("it exists already; choose another name")));
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        Ok(Self { out: BufWriter::new(NewFile::create(path)?), path: path.to_owned() })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn write(&mut self, record: &TraceRecord) -> Result<()> {
        record.write(&mut self.out).map_err(|source| Error::File { path: self.path.clone(), source })
    }

    /// Puts the file in place.
    ///
    /// # Errors
    /// [`Error::File`] when the disk refuses or the file has appeared meanwhile, [`Error::Store`] when it cannot be named.
    pub fn finish(self) -> Result<PathBuf> {
        let failed = |source| Error::File { path: self.path.clone(), source };
        let file = self.out.into_inner().map_err(|error| failed(error.into_error()))?;
        if self.path.exists() {
            return Err(failed(std::io::Error::other("it has appeared meanwhile; choose another name")));
        }
        file.publish()?;
        Ok(self.path)
    }
}

impl TraceRecord {
    /// Writes the record as one line.
    ///
    /// # Errors
    /// Errors of the writer.
    pub fn write(&self, out: &mut (impl Write + ?Sized)) -> std::io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        out.write_all(b"\n")
    }
}
