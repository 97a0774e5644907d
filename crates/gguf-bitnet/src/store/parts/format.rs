//! The lines of JSON inside a part.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version that is written and read.
pub(super) const VERSION: u64 = 1;
/// Most bytes of the first line, which holds the manifest.
pub(super) const MAX_HEADER_BYTES: u64 = 64 << 20;
/// Most bytes of any other line.
pub(super) const MAX_LINE_BYTES: u64 = 64 << 10;
/// Most characters of the reason why something failed. As JSON a character has at most six bytes, so that the line of a unit
/// stays far below [`MAX_LINE_BYTES`], beyond which a part could not be read.
pub(super) const MAX_REASON_CHARS: usize = 1000;

/// The first line of a part: the job and the share of it that the part has.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) part: u64,
    pub(super) shard: String,
    /// Units of the whole job.
    pub(super) units: usize,
    pub(super) manifest: Value,
}

/// The line before a unit's bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UnitLine {
    pub(super) unit: usize,
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) digest: String,
    /// Things of the unit that failed.
    pub(super) failed: u64,
    /// The reason of the first of them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) failure: Option<String>,
}

/// The last line of a part, which shows that it is whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndLine {
    /// Units in the part.
    pub(super) end: usize,
    pub(super) digest: String,
}

/// The names of the units of a job.
#[derive(Clone, Debug)]
pub(super) struct Names(blake3::Hasher);

impl Names {
    pub(super) fn of(manifest: &Value) -> Names {
        let mut hasher = blake3::Hasher::new();
        hasher.update(manifest.to_string().as_bytes()).update(b"\n");
        Names(hasher)
    }

    pub(super) fn name(&self, unit: usize) -> String {
        self.0.clone().update(&(unit as u64).to_le_bytes()).finalize().to_string()
    }
}

/// The digest of the end line, fed with the lines of the units.
#[derive(Debug, Default)]
pub(super) struct EndDigest(blake3::Hasher);

impl EndDigest {
    pub(super) fn add(&mut self, line: &UnitLine) {
        self.0.update(line.name.as_bytes()).update(line.digest.as_bytes()).update(&line.failed.to_le_bytes());
    }

    pub(super) fn finish(&self) -> String {
        self.0.finalize().to_string()
    }
}

/// A line as it is stored.
pub(super) fn text(line: &impl Serialize) -> std::io::Result<String> {
    Ok(serde_json::to_string(line)? + "\n")
}
