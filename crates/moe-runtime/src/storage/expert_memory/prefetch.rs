//! Bringing single experts into memory and giving their memory back.

/// A routed expert of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExpertKey {
    /// Layer, from 0.
    pub layer: usize,
    /// Expert of the layer.
    pub expert: usize,
}

/// What can bring experts into memory and give them back. Both are hints: an expert can always be read.
pub trait Prefetcher: Send + Sync {
    /// Starts to bring an expert into memory and returns without waiting for it.
    fn load(&self, expert: ExpertKey);
    /// Gives the memory of an expert back.
    fn release(&self, expert: ExpertKey);
}
