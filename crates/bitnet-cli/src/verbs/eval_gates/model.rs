//! An opened model with its identity, and the way from it to a subject of the gates.

use anyhow::Result;
use mla_attention::CacheType;
use moe_runtime::adapters::AdapterSlot;
use moe_runtime::{LoadOptions, ModelFiles};
use rlm_refine::measure::ModelSubject;

use crate::args::{self, AdapterArgs};
use crate::load;
use crate::output::{self, Progress};

/// An open model and its identity.
pub(super) struct IdentifiedModel {
    /// The name by which it was opened.
    pub(super) spec: String,
    pub(super) files: ModelFiles,
    pub(super) id: String,
    /// The adapters that belong to it; the identity covers them.
    adapters: AdapterSlot,
}

impl IdentifiedModel {
    /// Opens a model; one without weights is refused before the other model computes anything.
    pub(super) fn open(spec: &str, what: &'static str, allow_zero: bool) -> Result<Self> {
        let files = load::open(spec)?;
        if !allow_zero {
            load::refuse_zeros(&files)?;
        }
        let progress = Progress::bytes(what);
        let id = files.identity(&mut |done, total| progress.show(done, total))?;
        Ok(Self { spec: spec.to_owned(), files, id, adapters: AdapterSlot::default() })
    }

    /// The model with adapters, which make another model of it.
    pub(super) fn with_adapters(mut self, adapters: &AdapterArgs) -> Result<Self> {
        // Opened once, so that the identity is that of the factors in use.
        let opened = adapters.open()?;
        self.adapters = AdapterSlot::new(args::sum_of_adapters(opened.as_ref(), &self.files)?);
        self.id = args::adapted_identity(opened.as_ref(), &self.files)?;
        Ok(self)
    }

    /// The model as the gates see it.
    pub(super) fn load(&self, options: &LoadOptions, kv: CacheType) -> Result<ModelSubject> {
        let subject = ModelSubject::load(&self.files, self.id.clone(), options, kv)?;
        let subject = subject.with_adapters(self.adapters.clone());
        load::keep_trials(&self.files, options);
        load::note_zeros(&self.files, options)?;
        subject.model().kernels().iter().filter_map(load::self_test_warning).for_each(output::note);
        Ok(subject)
    }
}
