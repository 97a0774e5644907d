//! The suites that a student was trained on, which its metadata name and no gate may judge it on.

use gguf_bitnet::{Array, Metadata, Value};
use moe_runtime::ModelFiles;

use super::error::TrainError;
use crate::error::Result;

/// The key of these suites.
const TAUGHT_SUITES: &str = "craftsman.provenance.taught_suites_blake3";

/// The identities of the suites that a student was trained on, in the order of its refinements: it learned the teacher's recorded
/// answers to them, or from the rewards of its own.
///
/// # Errors
/// A key of another type.
pub fn taught_suites(metadata: &Metadata) -> Result<Vec<String>> {
    Ok(match metadata.array(TAUGHT_SUITES)? {
        Some(Array::String(suites)) => suites.clone(),
        _ => Vec::new(),
    })
}

/// Names `suites` behind those that the metadata name already.
pub(super) fn add_taught_suites<'s>(metadata: &mut Metadata, suites: impl Iterator<Item = &'s str>) -> Result<()> {
    let mut taught = taught_suites(metadata)?;
    for suite in suites {
        if !taught.iter().any(|known| known == suite) {
            taught.push(suite.to_owned());
        }
    }
    if !taught.is_empty() {
        metadata.insert(TAUGHT_SUITES, Value::Array(Array::String(taught)));
    }
    Ok(())
}

/// Refuses to judge a student on a suite that it was trained on. `suite` is the suite's identity.
///
/// # Errors
/// [`TrainError::TaughtSuite`], and a key of another type.
pub fn refuse_taught(student: &ModelFiles, suite: &str) -> Result<()> {
    let Some(file) = student.gguf() else { return Ok(()) };
    match taught_suites(file.metadata())?.iter().any(|taught| taught == suite) {
        false => Ok(()),
        true => Err(TrainError::TaughtSuite { path: student.path().display().to_string() }.into()),
    }
}
