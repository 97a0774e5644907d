//! The mixture-of-experts decoder: configuration, router, experts, tokenizer, sampling, sessions.
//!
//! **Invariant:** a token's numbers do not depend on how the prompt was cut into batches, nor on the thread count.

pub mod error;

pub use error::{Error, Result};
