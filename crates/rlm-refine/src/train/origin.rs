//! The metadata of a student that was trained: those that it had, and where its values come from.

use std::collections::HashSet;

use gguf_bitnet::{Array, GgufFile, Metadata, Value};

use super::source::Source;
use super::taught::add_taught_suites;
use crate::error::Result;
use crate::ptq::CALIBRATION_SPANS;

/// The metadata of `file`, trained on `source` with these settings; `identities` are those of student and teacher. A verdict of gates
/// was about the student before.
///
/// # Errors
/// A key of another type.
pub(super) fn refined_metadata(
    file: &GgufFile,
    source: &Source<'_>,
    [student, teacher]: [&str; 2],
    settings: &serde_json::Value,
    has_trits: bool,
) -> Result<Metadata> {
    let mut metadata = file.metadata().clone();
    metadata.retain(|key, _| !key.starts_with("craftsman.gates."));
    let mut spans: Vec<u64> = match metadata.array(CALIBRATION_SPANS)? {
        Some(Array::U64(spans)) => spans.clone(),
        _ => Vec::new(),
    };
    let known: HashSet<u64> = spans.iter().copied().collect();
    spans.extend(source.spans().into_iter().filter(|span| !known.contains(span)));
    metadata.insert(CALIBRATION_SPANS, Value::Array(Array::U64(spans)));
    metadata.insert("craftsman.provenance.refined_from_blake3", student);
    metadata.insert("craftsman.provenance.teacher_blake3", teacher);
    metadata.insert("craftsman.provenance.refinement_blake3", source.blake3());
    add_taught_suites(&mut metadata, source.suite().into_iter())?;
    metadata.insert("craftsman.provenance.refinement", settings.to_string());
    if has_trits {
        metadata.insert("craftsman.bitnet.weight_encoding", "distilled_ternary");
    }
    Ok(metadata)
}
