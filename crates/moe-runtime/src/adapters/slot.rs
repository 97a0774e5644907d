//! The place from which a sequence takes its adapters, and where another thread may put others.
//!
//! **Invariant:** a step reads the place once, before its first layer, so that it computes with one set from beginning to
//! end; a set that is put in later counts from the next step on.
//!
//! **Invariant:** while the number of changes stays the same, so does the set. Positions of a cache that were computed
//! between two readings of one number were computed with one set.

use std::sync::{Arc, Mutex, PoisonError};

use crate::adapters::set::AdapterSet;

/// A shared place for a set of adapters; clones are the same place.
#[derive(Clone, Debug, Default)]
pub struct AdapterSlot(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    set: Option<Arc<AdapterSet>>,
    /// How often another set was put in.
    changes: u64,
}

impl AdapterSlot {
    /// A place that holds `set`.
    #[must_use]
    pub fn new(set: Option<Arc<AdapterSet>>) -> AdapterSlot {
        AdapterSlot(Arc::new(Mutex::new(Content { set, changes: 0 })))
    }

    /// The set that the next step computes with.
    #[must_use]
    pub fn current(&self) -> Option<Arc<AdapterSet>> {
        self.counted().1
    }

    /// How often another set was put in, and the set that the next step computes with.
    #[must_use]
    pub fn counted(&self) -> (u64, Option<Arc<AdapterSet>>) {
        let content = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (content.changes, content.set.clone())
    }

    /// Puts in `set`, and returns the set before it. The same set once more is no change.
    pub fn swap(&self, set: Option<Arc<AdapterSet>>) -> Option<Arc<AdapterSet>> {
        let mut content = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if content.set.as_ref().map(Arc::as_ptr) != set.as_ref().map(Arc::as_ptr) {
            content.changes += 1;
        }
        std::mem::replace(&mut content.set, set)
    }
}
