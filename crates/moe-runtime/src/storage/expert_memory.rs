//! The choice of the experts that stay in memory when the file is larger than the memory it may take.
//!
//! ```text
//! router ──► hook(layer, experts) ──► ExpertCache: experts not held are loaded, others evicted
//!                                 └─► ExpertPredictor: the experts that the next layer will need   (only if asked for)
//!                                            │
//!                                            ▼
//!                             Prefetcher: read ahead, give back            (FilePages: pages of the mapped file)
//! ```
//!
//! All pages of an expert are requested at once, before the first of them is touched: the disk then works on a queue
//! instead of one page at a time. Results do not depend on any of this.
//!
//! **Invariant:** the experts of the current batch are never given back.

mod cache;
mod memory;
mod pages;
mod predictor;
mod prefetch;

pub use cache::{CachePolicy, CacheStatistics};
pub use memory::{ExpertMemory, ExpertMemoryOptions};
pub use prefetch::{ExpertKey, Prefetcher};
