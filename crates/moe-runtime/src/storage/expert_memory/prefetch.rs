//! Bringing single experts into memory and giving their memory back.

/// A routed expert of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExpertKey {
    /// Index of the layer in the model.
    pub layer: usize,
    /// Index of the expert in its layer.
    pub expert: usize,
}

/// Brings experts into memory and gives their memory back. Both are hints: an expert can be read at any time.
pub trait Prefetcher: Send + Sync {
    /// Starts to bring an expert into memory and returns without waiting for it.
    fn load(&self, expert: ExpertKey);
    /// Gives the memory of an expert back.
    fn release(&self, expert: ExpertKey);
}
