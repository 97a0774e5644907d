//! The embedding: one row of weights per token, of which a step reads those of its tokens.
//!
//! **Invariant:** of an embedding that stays in the mapped file, the pages of at most [`KEPT_ROWS`] reads and those of
//! the reads under way are resident: with the rows of all tokens that a long conversation meets, it would be resident in
//! full, and the memory plan would count all of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gguf_bitnet::{Catalog, LogicalTensor, TensorClass, TensorSource};
use tl_kernels::Linear;

use crate::error::Result;
use crate::load::rows::RowReader;

/// The model's embedding; an MTP block may have one of its own.
pub(crate) const EMBEDDING: &str = "token_embd.weight";

/// The model's head; in a tied model it is missing, and the embedding serves as the head.
pub(crate) const HEAD: &str = "output.weight";

/// Rows that are read before their pages go back to the system.
const KEPT_ROWS: usize = 128;

/// Bytes that the system may map for a row: the 64 KiB around a page on Linux, twice where the row crosses their border.
const MAPPED_AROUND_BYTES: u64 = 128 << 10;

/// The rows of all tokens, `[vocab, hidden]`.
#[derive(Debug)]
pub(crate) struct Embedding {
    weights: Linear,
    pages: Option<Pages>,
}

/// The mapped pages of an embedding.
struct Pages {
    source: Arc<dyn TensorSource>,
    /// The stored tensor in `source`.
    tensor: usize,
    rows_read: AtomicUsize,
}

impl Embedding {
    /// The embedding called `name` in the table of `rows`.
    pub(crate) fn read(rows: &RowReader<'_>, name: &str) -> Result<Embedding> {
        Ok(Embedding::of_file(rows.matrix(name)?, rows, name))
    }

    /// An embedding, if the model has it.
    pub(crate) fn read_optional(rows: &RowReader<'_>, name: &str) -> Result<Option<Embedding>> {
        Ok(rows.optional_matrix(name)?.map(|weights| Embedding::of_file(weights, rows, name)))
    }

    fn of_file(weights: Linear, rows: &RowReader<'_>, name: &str) -> Embedding {
        let pages =
            rows.stored_at(name).map(|(source, tensor)| Pages { source, tensor, rows_read: AtomicUsize::new(0) });
        // Checks of the weights may have read all of them.
        if let Some(pages) = &pages {
            pages.release();
        }
        Embedding { weights, pages }
    }

    /// The same embedding for a model whose head it is, too: all its pages are read in every step.
    pub(crate) fn into_head(self) -> Embedding {
        Embedding { pages: None, ..self }
    }

    /// The rows as a matrix, `[vocab, hidden]`.
    pub(crate) fn weights(&self) -> &Linear {
        &self.weights
    }

    /// Writes the row of `token` to `out` `[hidden]`.
    ///
    /// # Errors
    /// A damaged row.
    ///
    /// # Panics
    /// If the model has no such token.
    pub(crate) fn read_row(&self, token: u32, out: &mut [f32]) -> Result<()> {
        self.weights.dequantize_row(token as usize, out)?;
        if let Some(pages) = &self.pages
            && pages.rows_read.fetch_add(1, Ordering::Relaxed) % KEPT_ROWS == KEPT_ROWS - 1
        {
            pages.release();
        }
        Ok(())
    }

    /// Whether a step reads the rows of its tokens alone: not where the model has no other head.
    pub(crate) fn is_read_by_rows(catalog: &Catalog, tensor: &LogicalTensor) -> bool {
        let is_head = tensor.name == EMBEDDING && catalog.find(HEAD).is_none();
        tensor.class == TensorClass::Embedding && !is_head
    }

    /// The resident bytes of `stored` mapped bytes of an embedding that is read by rows.
    pub(crate) fn resident_bytes(stored: u64) -> u64 {
        // Other systems may keep pages that are given back.
        if cfg!(target_os = "linux") { stored.min(MAPPED_AROUND_BYTES * KEPT_ROWS as u64) } else { stored }
    }
}

impl Pages {
    fn release(&self) {
        self.source.release(self.tensor);
    }
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").field("tensor", &self.tensor).finish_non_exhaustive()
    }
}
