//! Models in several files: `NAME-00001-of-0000N.gguf` and the `split.*` metadata.
//!
//! `split.no` counts from 0, the file names from 1. The first part holds all metadata of the
//! model, the other parts only the `split.*` keys; each part has its own tensors.

use super::error::GgufError;
use super::metadata::Metadata;
use crate::error::Result;
use crate::source::ShardName;

/// Ending of the file names.
pub(crate) const ENDING: &str = ".gguf";

/// Keys of the split metadata.
const NO: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// File name of part `no` (from 1) of `count`.
///
/// ```
/// assert_eq!(gguf_bitnet::split_file_name("model", 2, 3), "model-00002-of-00003.gguf");
/// ```
pub fn split_file_name(stem: &str, no: u64, count: u64) -> String {
    format!("{stem}-{no:05}-of-{count:05}.gguf")
}

/// The metadata of part `no` (from 1) of `count`; `n_tensors` counts the tensors of all parts.
pub fn split_metadata(model: &Metadata, no: u16, count: u16, n_tensors: i32) -> Metadata {
    let mut part = if no == 1 { model.clone() } else { Metadata::default() };
    if let Some(alignment) = model.get(super::header::ALIGNMENT_KEY) {
        part.insert(super::header::ALIGNMENT_KEY, alignment.clone());
    }
    part.insert(NO, no.saturating_sub(1));
    part.insert(COUNT, count);
    part.insert(TENSORS, n_tensors);
    part
}

/// The `split.*` metadata of one part.
pub(super) struct SplitInfo {
    /// Number of the part, from 0.
    pub(super) no: u64,
    pub(super) count: u64,
    /// Tensors of all parts.
    pub(super) n_tensors: Option<u64>,
}

impl SplitInfo {
    /// Reads the keys; `None` for a model in one file.
    pub(super) fn read(metadata: &Metadata) -> Result<Option<SplitInfo>> {
        let count = metadata.u64(COUNT)?.unwrap_or(0);
        if count <= 1 {
            return Ok(None);
        }
        let no = metadata.require(NO, metadata.u64(NO)?)?;
        Ok(Some(SplitInfo { no, count, n_tensors: metadata.u64(TENSORS)? }))
    }

    /// Checks the name of the file that this was read from and takes it apart.
    pub(super) fn name<'a>(&self, file_name: &'a str) -> Result<ShardName<'a>> {
        match ShardName::parse(file_name, ENDING) {
            Some(name) if self.no.checked_add(1) == Some(name.number) && name.count == self.count => Ok(name),
            _ => Err(GgufError::SplitName { no: self.no.saturating_add(1), count: self.count }.into()),
        }
    }

    /// Checks that a part is number `no` (from 0) of the set that `self` began.
    pub(super) fn check_part(&self, part: Option<&SplitInfo>, no: u64) -> Result<()> {
        let (part_no, part_count) = part.map_or((0, 0), |p| (p.no, p.count));
        if part_count != self.count {
            return Err(GgufError::SplitMismatch { key: COUNT, expected: self.count, got: part_count }.into());
        }
        if part_no != no {
            return Err(GgufError::SplitMismatch { key: NO, expected: no, got: part_no }.into());
        }
        Ok(())
    }

    /// Checks the number of tensors found in all parts.
    pub(super) fn check_tensors(&self, found: usize) -> Result<()> {
        match self.n_tensors {
            Some(expected) if expected != found as u64 => {
                Err(GgufError::SplitMismatch { key: TENSORS, expected: found as u64, got: expected }.into())
            }
            _ => Ok(()),
        }
    }
}

/// Whether `key` describes a part rather than the model.
pub(super) fn is_split_key(key: &str) -> bool {
    matches!(key, NO | COUNT | TENSORS)
}
