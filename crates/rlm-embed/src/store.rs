//! Chunks of text with their vectors: an index file, and the search for the vectors nearest to one.
//!
//! ```text
//! retriever.rs   NeighborRetriever: the search, as the recursion needs it
//! flat.rs        FlatNeighborStore: exact search over all rows, in memory or over a file
//!   top.rs       the k best of many scores
//!   file.rs      the index file: header, segments, the end of its complete part     segment.rs   one batch of chunks
//! hnsw.rs        HnswNeighborStore: a graph of neighbours (feature `hnsw`)
//! chunks.rs      texts cut into chunks
//! ```

mod chunks;
mod error;
mod file;
mod flat;
#[cfg(feature = "hnsw")]
mod hnsw;
mod retriever;
mod segment;
mod top;

pub use chunks::cut;
pub use error::IndexError;
pub use flat::{Chunk, FlatNeighborStore, NewChunk};
#[cfg(feature = "hnsw")]
pub use hnsw::HnswNeighborStore;
pub use retriever::{Neighbor, NeighborRetriever};
