//! Which experts stay in memory when the file is larger than the memory it may take.
//!
//! ```text
//! router ──► hook(layer, experts) ──► ExpertCache: those not held are loaded, others make room
//!                                 └─► ExpertPredictor: which experts will the next layer want?  (only if asked for)
//!                                            │
//!                                            ▼
//!                             Prefetcher: read ahead, give back            (FilePages: pages of the mapped file)
//! ```
//!
//! All pages of an expert are asked for at once, before the first of them is touched: the disk then has a queue to work on
//! instead of one page at a time. Nothing here changes a result.
//!
//! **Invariant:** the experts of the batch at hand are never given back.

mod cache;
mod memory;
mod pages;
mod predictor;
mod prefetch;

pub use cache::{CachePolicy, CacheStatistics};
pub use memory::{ExpertMemory, ExpertMemoryOptions};
pub use prefetch::{ExpertKey, Prefetcher};
