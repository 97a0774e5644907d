//! The computed beginnings of prompts, in memory and on disk, for every sequence that begins the same way.
//!
//! ```text
//! tokens      |  64 tokens  |  64 tokens  |  64 tokens  | rest
//! names    root ─► a = H(root, tokens) ─► b = H(a, tokens) ─► c = H(b, tokens)
//! ```
//!
//! A name stands for all tokens up to the end of its block, for the model, and for everything else that decides the bits
//! of a cache. So two prompts share the blocks of their common beginning without being compared, and a block of another
//! model, cache type or adapter is never found.
//!
//! **Invariant:** a sequence that resumes from blocks has the bits of one that computed them. A block that is damaged,
//! foreign or gone is a miss, never an error.

mod cache;
mod disk;
mod gone;
mod lru;
mod name;

pub use cache::{CachedPrefix, DiskOptions, PromptCache, PromptCacheOptions};
pub use name::{BlockName, PromptKey};
