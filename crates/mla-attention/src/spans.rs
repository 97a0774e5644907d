//! Softmax attention over a cache in one pass: spans of 64 positions and an online softmax (arXiv 1805.02867;
//! arXiv 2205.14135).
//!
//! A *row* is one query: a (token, head) pair. For each row, and each span of positions up to the row's own:
//!
//! ```text
//! s_j = scale * (query . key_j)                          one score per position of the span
//! M   = max(m, max_j s_j)                                the running maximum
//! p_j = exp(s_j - M)
//! sum = sum * exp(m - M) + (p_0 + p_1 + ...)             the running denominator
//! acc = acc * exp(m - M) + p_0 v_0 + p_1 v_1 + ...       the running numerator
//! ```
//!
//! and at the end `out = acc / sum`. Latent attention is the case of one key head whose values are the first part of
//! the keys, so this room serves both kinds of attention. Scores and weighted sums are computed by `float` or by
//! `int8`, depending on the cache's number type.
//!
//! A span is read once for all rows of a task that see it and share its sequence and head: their scores are one small matrix product,
//! and so are their weighted sums.
//!
//! **Invariant**: spans start at absolute multiples of 64, and the operations of a row and their order do not depend
//! on the other rows of its task, of whatever sequence. So neither the batch nor the number of threads changes a bit.
//!
//! **Invariant**: a score of minus infinity gets the weight 0; a row of such scores alone gives zeros. A NaN score
//! appears in the output of its own row and changes no other row.

mod attend;
mod float;
mod int8;
mod layer_caches;
mod softmax;

pub(crate) use attend::{Query, attend};
pub(crate) use float::{Columns, FloatSpans};
pub(crate) use int8::Int8Spans;
pub(crate) use layer_caches::LayerCaches;
