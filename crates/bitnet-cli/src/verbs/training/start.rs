//! The adapter that a training starts from.

use std::path::Path;

use anyhow::Result;
use moe_runtime::ModelFiles;
use moe_runtime::adapters::{AdapterFile, OpenAdapters, ScaledAdapter};
use rlm_refine::train::{Group, blank_adapter, blank_sidecar};

use crate::exit::UsageError;

/// Ranks of additions to matrices and of sidecars unless the options say otherwise.
const RANKS: [usize; 2] = [1, 32];

/// The adapter that a training starts from.
pub(in crate::verbs) enum AdapterStart<'a> {
    /// One that adds nothing: additions of these groups.
    Blank { groups: Vec<Group>, rank: Option<usize> },
    /// One that was made for the student.
    From(&'a Path),
}

impl AdapterStart<'_> {
    /// Refuses a run that would write to the adapter that it starts from.
    pub(super) fn check_outputs(&self, out: &Path, log: Option<&Path>) -> Result<(), UsageError> {
        let AdapterStart::From(path) = self else { return Ok(()) };
        let curve = log.map(|log| log.with_extension("svg"));
        let mut written = [Some(out), log, curve.as_deref()].into_iter().flatten();
        let start = path.canonicalize().ok();
        match start.is_some() && written.any(|place| place.canonicalize().ok() == start) {
            true => {
                Err(UsageError::new("--adapter is a file that the run would write: give --out and --log other names"))
            }
            false => Ok(()),
        }
    }

    /// Reads or makes it.
    ///
    /// # Errors
    /// A file that is no adapter of the student, a student without matrices for one.
    pub(super) fn read(&self, student: &ModelFiles) -> Result<AdapterFile> {
        match self {
            AdapterStart::Blank { groups, rank } => {
                let [of_matrices, of_sidecars] = RANKS.map(|default| rank.unwrap_or(default));
                if !groups.contains(&Group::Sidecar) {
                    return Ok(blank_adapter(student, of_matrices)?);
                }
                let mut adapter = blank_sidecar(student, of_sidecars)?;
                if groups.contains(&Group::Adapter) {
                    adapter.pairs.extend(blank_adapter(student, of_matrices)?.pairs);
                }
                Ok(adapter)
            }
            AdapterStart::From(path) => {
                let opened = OpenAdapters::open(&[ScaledAdapter::new(path)])?;
                let mut adapters = opened.read(student, &mut || student.identity(&mut |_, _| {}))?;
                // One was opened.
                let (adapter, _) = adapters.remove(0);
                Ok(adapter)
            }
        }
    }
}
