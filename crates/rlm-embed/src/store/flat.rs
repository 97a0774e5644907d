//! Exact search: the dot product of the query with every row.
//!
//! **Invariant:** the result is the k best rows of all that were added and not removed, with the bits of `dot16`, on any number
//! of threads. The file, where there is one, has every change before a call returns.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ternary_core::Bytes;
use tl_kernels::Pool;
use tl_kernels::rows::{Table, dots};

use super::error::IndexError;
use super::file::{Content, Writer};
use super::retriever::{Neighbor, NeighborRetriever};
use super::segment::{self, Added, MAX_CHUNKS, Segment};
use super::top::Top;
use crate::error::Result;

pub use super::segment::NewChunk;

/// A chunk of a store.
pub type Chunk<'a> = NewChunk<'a>;

/// Rows that one task multiplies.
const BLOCK_ROWS: usize = 512;
/// Longest text of a chunk in bytes, and longest id and source.
const MAX_TEXT_BYTES: usize = 1 << 20;
const MAX_NAME_BYTES: usize = 4096;

/// Chunks with their vectors, and the exact search over them.
///
/// ```
/// use std::sync::Arc;
/// use rlm_embed::store::{FlatNeighborStore, NeighborRetriever, NewChunk};
/// let mut store = FlatNeighborStore::in_memory(2, [0; 32], Arc::new(tl_kernels::Pool::serial()));
/// let chunk = |id| NewChunk { id, source: "notes", text: "..." };
/// store.add(&[chunk("east"), chunk("north")], &[1.0, 0.0, 0.0, 1.0])?;
/// assert_eq!(store.chunk(store.nearest(&[0.6, 0.8], 1)[0].row).id, "north");
/// store.remove(&["north"])?;
/// assert_eq!(store.nearest(&[0.6, 0.8], 5).len(), 1);
/// # Ok::<(), rlm_embed::Error>(())
/// ```
#[derive(Debug)]
pub struct FlatNeighborStore {
    dims: usize,
    identity: [u8; 32],
    segments: Vec<Added>,
    /// For each row: its segment, and its place there.
    rows: Vec<[usize; 2]>,
    is_live: Vec<bool>,
    by_id: HashMap<String, usize>,
    writer: Option<Writer>,
    void_bytes: u64,
    pool: Arc<Pool>,
}

impl FlatNeighborStore {
    /// A store without a file, for vectors of `dims` values from the embedder of this `identity`.
    #[must_use]
    pub fn in_memory(dims: usize, identity: [u8; 32], pool: Arc<Pool>) -> FlatNeighborStore {
        let (segments, rows, is_live, by_id) = (Vec::new(), Vec::new(), Vec::new(), HashMap::new());
        FlatNeighborStore { dims, identity, segments, rows, is_live, by_id, writer: None, void_bytes: 0, pool }
    }

    /// Opens an index of the embedder of this `identity`, whose vectors have `dims` values, for searching and changing; makes an
    /// empty one where there is none.
    ///
    /// # Errors
    /// As [`FlatNeighborStore::open_to_change`]; an index of another embedder.
    pub fn open_or_create(path: &Path, dims: usize, identity: [u8; 32], pool: Arc<Pool>) -> Result<FlatNeighborStore> {
        let store = FlatNeighborStore::of_writer(Writer::open_or_create(path, dims, identity)?, path, pool)?;
        store.check_embedder(dims, identity, path)?;
        Ok(store)
    }

    /// Opens an index for searching. Its vectors stay in the mapped file.
    ///
    /// # Errors
    /// A file that is no index or is damaged.
    pub fn open(path: &Path, pool: Arc<Pool>) -> Result<FlatNeighborStore> {
        FlatNeighborStore::of_content(Content::read(path)?, path, pool)
    }

    /// Opens an index for searching and changing.
    ///
    /// # Errors
    /// As [`FlatNeighborStore::open`], and while another process changes the index.
    pub fn open_to_change(path: &Path, pool: Arc<Pool>) -> Result<FlatNeighborStore> {
        FlatNeighborStore::of_writer(Writer::open(path)?, path, pool)
    }

    fn of_writer(mut writer: Writer, path: &Path, pool: Arc<Pool>) -> Result<FlatNeighborStore> {
        let content = Content::read(path)?;
        writer.begin_at(content.end);
        let mut store = FlatNeighborStore::of_content(content, path, pool)?;
        store.writer = Some(writer);
        Ok(store)
    }

    /// Refuses an index, which lies at `path`, of another embedder than that of `identity` with vectors of `dims` values.
    ///
    /// # Errors
    /// [`IndexError::OtherEmbedder`].
    pub fn check_embedder(&self, dims: usize, identity: [u8; 32], path: &Path) -> Result<()> {
        match (self.dims, self.identity) == (dims, identity) {
            true => Ok(()),
            false => Err(IndexError::OtherEmbedder { path: path.to_owned() }.into()),
        }
    }

    fn of_content(content: Content, path: &Path, pool: Arc<Pool>) -> Result<FlatNeighborStore> {
        let mut store = FlatNeighborStore::in_memory(content.dims, content.identity, pool);
        store.void_bytes = content.void_bytes;
        for segment in content.segments {
            store.take(segment).map_err(|defect| IndexError::Inconsistent { path: path.to_owned(), defect })?;
        }
        Ok(store)
    }

    /// Number of values in a vector.
    #[must_use]
    pub fn dims(&self) -> usize {
        self.dims
    }

    /// The identity of the embedder whose vectors these are.
    #[must_use]
    pub fn identity(&self) -> [u8; 32] {
        self.identity
    }

    /// Bytes of the file that belonged to no whole segment when it was opened: writes that were interrupted, or damage in the last
    /// one, which nothing tells apart.
    #[must_use]
    pub fn void_bytes(&self) -> u64 {
        self.void_bytes
    }

    /// Number of chunks that were not removed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is no chunk.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Number of rows, those of removed chunks included.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The row of the chunk `id`.
    #[must_use]
    pub fn row_of(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// The rows of all chunks, in the order in which they were added.
    pub fn live_rows(&self) -> impl Iterator<Item = usize> {
        (0..self.rows.len()).filter(|&row| self.is_live[row])
    }

    /// Whether `row` is the row of a chunk that was not removed.
    #[must_use]
    pub fn is_live(&self, row: usize) -> bool {
        self.is_live.get(row).is_some_and(|live| *live)
    }

    /// The chunk in `row`.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn chunk(&self, row: usize) -> Chunk<'_> {
        let [segment, i] = self.rows[row];
        self.segments[segment].chunk(i)
    }

    /// The vector in `row`, `[dims]`.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn vector(&self, row: usize) -> &[f32] {
        let [segment, i] = self.rows[row];
        &self.segments[segment].vectors()[i * self.dims..][..self.dims]
    }

    /// Adds chunks with their vectors `[chunks, dims]`: all of them or, on an error, none.
    ///
    /// # Errors
    /// An id that is there already, a text that is too long, vectors of another shape or that are not finite; a failed write.
    pub fn add(&mut self, chunks: &[NewChunk<'_>], vectors: &[f32]) -> Result<()> {
        if let Some(chunk) = chunks.iter().find(|chunk| self.by_id.contains_key(chunk.id)) {
            return Err(IndexError::Duplicate { id: short(chunk.id) }.into());
        }
        self.put(chunks, vectors)
    }

    /// As [`FlatNeighborStore::add`], but a chunk whose id is there already takes the place of that one, in the same write: a reader
    /// finds the old one or the new one.
    ///
    /// # Errors
    /// As [`FlatNeighborStore::add`], except for ids that are there already.
    pub fn put(&mut self, chunks: &[NewChunk<'_>], vectors: &[f32]) -> Result<()> {
        if chunks.is_empty() {
            return Ok(());
        }
        self.check(chunks, vectors)?;
        self.commit(segment::encode_added(chunks, vectors))
    }

    /// Removes the chunks of these ids, and returns their number: all of them or, on an error before the first write, none. An id
    /// that stands twice counts once.
    ///
    /// # Errors
    /// [`IndexError::NoSuchChunk`]; a failed write.
    pub fn remove(&mut self, ids: &[&str]) -> Result<usize> {
        if let Some(id) = ids.iter().find(|id| !self.by_id.contains_key(**id)) {
            return Err(IndexError::NoSuchChunk { id: short(id) }.into());
        }
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        for some in ids.chunks(MAX_CHUNKS) {
            self.commit(segment::encode_removed(some))?;
        }
        Ok(ids.len())
    }

    /// The `k` nearest rows to each of `queries` `[n, dims]`.
    ///
    /// # Panics
    /// If `queries` is not a whole number of vectors.
    #[must_use]
    pub fn nearest_to_each(&self, queries: &[f32], k: usize) -> Vec<Vec<Neighbor>> {
        assert!(queries.len().is_multiple_of(self.dims), "queries must be [n, {}]", self.dims);
        self.nearest_from(queries, k, 0)
    }

    /// As [`FlatNeighborStore::nearest_to_each`], among the rows from `first` on.
    pub(super) fn nearest_from(&self, queries: &[f32], k: usize, first: usize) -> Vec<Vec<Neighbor>> {
        let n = queries.len() / self.dims;
        let mut blocks = Vec::new();
        let mut row = 0;
        for segment in &self.segments {
            for vectors in segment.vectors().chunks(BLOCK_ROWS * self.dims) {
                let rows = vectors.len() / self.dims;
                if row + rows > first {
                    blocks.push(Block { row, vectors, scores: vec![0.0; n * rows] });
                }
                row += rows;
            }
        }
        self.pool.chunks_mut(&mut blocks, 1, |_, blocks| {
            for Block { vectors, scores, .. } in blocks {
                let rows = vectors.len() / self.dims;
                let table = Table::new(vectors, rows, self.dims, self.dims);
                dots(Table::new(queries, n, self.dims, self.dims), table, scores);
            }
        });
        (0..n)
            .map(|query| {
                let mut top = Top::new(k);
                for Block { row, vectors, scores } in &blocks {
                    let rows = vectors.len() / self.dims;
                    for (i, &score) in scores[query * rows..][..rows].iter().enumerate() {
                        if row + i >= first && self.is_live[row + i] {
                            top.push(row + i, score);
                        }
                    }
                }
                top.into_sorted()
            })
            .collect()
    }

    fn check(&self, chunks: &[NewChunk<'_>], vectors: &[f32]) -> Result<(), IndexError> {
        let n = chunks.len();
        if n > MAX_CHUNKS {
            return Err(IndexError::TooMany { n, limit: MAX_CHUNKS });
        }
        let (expected, got) = (n.saturating_mul(self.dims), vectors.len());
        if got != expected {
            return Err(IndexError::Vectors { n, expected, got });
        }
        let mut ids = std::collections::HashSet::new();
        for (chunk, vector) in chunks.iter().zip(vectors.chunks_exact(self.dims)) {
            let id = || short(chunk.id);
            for (what, part, limit) in [
                ("id", chunk.id, MAX_NAME_BYTES),
                ("source", chunk.source, MAX_NAME_BYTES),
                ("text", chunk.text, MAX_TEXT_BYTES),
            ] {
                if part.len() > limit {
                    return Err(IndexError::TooLong { what, id: id(), got: part.len(), limit });
                }
            }
            if !ids.insert(chunk.id) {
                return Err(IndexError::Duplicate { id: id() });
            }
            if !vector.iter().all(|x| x.is_finite()) {
                return Err(IndexError::NotFinite { id: id() });
            }
        }
        Ok(())
    }

    /// Writes a checked segment, where there is a file, and takes it.
    fn commit(&mut self, bytes: Vec<u8>) -> Result<()> {
        if let Some(writer) = &mut self.writer {
            writer.append(&bytes)?;
        }
        let segment = segment::of_own_bytes(&Bytes::from(bytes), self.dims).expect("a segment of our own can be read");
        self.take(segment).expect("ids were checked before");
        Ok(())
    }

    fn take(&mut self, segment: Segment) -> Result<(), &'static str> {
        match segment {
            Segment::Added(added) => {
                for i in 0..added.len() {
                    let row = self.rows.len();
                    if let Some(old) = self.by_id.insert(added.chunk(i).id.to_owned(), row) {
                        self.is_live[old] = false;
                    }
                    self.rows.push([self.segments.len(), i]);
                    self.is_live.push(true);
                }
                self.segments.push(added);
            }
            Segment::Removed(ids) => {
                for id in ids {
                    let row = self.by_id.remove(&id).ok_or("a chunk was removed that is not there")?;
                    self.is_live[row] = false;
                }
            }
            Segment::Void(_) => return Err("a void is no change"),
        }
        Ok(())
    }
}

impl NeighborRetriever for FlatNeighborStore {
    fn nearest(&self, query: &[f32], k: usize) -> Vec<Neighbor> {
        assert_eq!(query.len(), self.dims, "a query has {} values", self.dims);
        self.nearest_from(query, k, 0).pop().unwrap_or_default()
    }
}

/// Rows that are multiplied by one task.
struct Block<'a> {
    row: usize,
    vectors: &'a [f32],
    scores: Vec<f32>,
}

/// An id of readable length, for messages.
fn short(id: &str) -> String {
    id.chars().take(80).collect()
}
