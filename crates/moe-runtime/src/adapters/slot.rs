//! The place from which a sequence takes its adapters, and where another thread may put others.
//!
//! **Invariant:** a step reads the place once, before its first layer, so that it computes with one set from beginning to
//! end; a set that is put in later counts from the next step on.

use std::sync::{Arc, Mutex, PoisonError};

use crate::adapters::set::AdapterSet;

/// A shared place for a set of adapters; clones are the same place.
#[derive(Clone, Debug, Default)]
pub struct AdapterSlot(Arc<Mutex<Option<Arc<AdapterSet>>>>);

impl AdapterSlot {
    /// A place that holds `set`.
    #[must_use]
    pub fn new(set: Option<Arc<AdapterSet>>) -> AdapterSlot {
        AdapterSlot(Arc::new(Mutex::new(set)))
    }

    /// The set that the next step computes with.
    #[must_use]
    pub fn current(&self) -> Option<Arc<AdapterSet>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts in `set`, and returns the set before it.
    pub fn swap(&self, set: Option<Arc<AdapterSet>>) -> Option<Arc<AdapterSet>> {
        std::mem::replace(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), set)
    }
}
