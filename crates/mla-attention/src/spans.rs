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
//! and at the end `out = acc / sum`. Latent attention is the case of one key head whose values are the first part of the
//! keys, so both kinds of attention run through here. How scores and weighted sums are made depends on the cache's
//! number type: `float` and `int8`.
//!
//! A span is read once for all rows of a task that see it and share its head: their scores are one small matrix product,
//! and so are their weighted sums.
//!
//! **Invariant**: spans start at absolute multiples of 64, and the operations of a row are the same in the same order
//! with any other rows beside it. So neither batch nor threads change a bit.
//!
//! **Invariant**: a score of minus infinity weighs nothing; a row with no other score gives zeros. A score that is not a
//! number shows in its own row's output and in no other row.

mod attend;
mod float;
mod int8;
mod softmax;

pub(crate) use attend::{Query, attend};
pub(crate) use float::{Columns, FloatSpans};
pub(crate) use int8::Int8Spans;
