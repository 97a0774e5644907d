//! The adapter that a training starts from.

use std::path::Path;

use anyhow::Result;
use moe_runtime::ModelFiles;
use moe_runtime::adapters::{AdapterFile, OpenAdapters, ScaledAdapter};
use rlm_refine::train::blank_adapter;

/// The adapter that a training starts from.
pub(in crate::verbs) enum AdapterStart<'a> {
    /// One that adds nothing.
    Blank { rank: usize },
    /// One that was made for the student.
    From(&'a Path),
}

impl AdapterStart<'_> {
    /// Reads or makes it.
    ///
    /// # Errors
    /// A file that is no adapter of the student, a student without matrices for one.
    pub(super) fn read(&self, student: &ModelFiles) -> Result<AdapterFile> {
        match self {
            AdapterStart::Blank { rank } => Ok(blank_adapter(student, *rank)?),
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
