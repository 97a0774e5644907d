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
    Ok(metadata.strings(TAUGHT_SUITES)?.unwrap_or_default().to_vec())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_of_another_type_are_refused_and_not_taken_for_none() {
        let mut metadata = Metadata::default();
        assert!(taught_suites(&metadata).unwrap().is_empty());
        add_taught_suites(&mut metadata, ["a", "b", "a"].into_iter()).unwrap();
        assert_eq!(taught_suites(&metadata).unwrap(), ["a", "b"]);
        metadata.insert(TAUGHT_SUITES, Value::Array(Array::U64(vec![1])));
        let error = taught_suites(&metadata).unwrap_err().to_string();
        assert!(error.contains("taught_suites_blake3") && error.contains("string"), "{error}");
        assert!(add_taught_suites(&mut metadata, std::iter::empty()).is_err());
    }
}
