//! Sentence vectors and the evidence between texts.
//!
//! ```text
//! encoder ── store ──┐
//!   graph ───────────┴── recursion ─┬─ bench         bitnet embed, bitnet index
//! offload ──────────────────────────┴─ appliance
//! ```
//! - `encoder`: a text to a vector of unit length: BERT from safetensors, hashed words, a language model's hidden states
//! - `store`: vectors with their texts in one file that grows at its end, and the search for the nearest ones
//! - `graph`: which texts agree and which contradict each other
//! - `recursion`: a short loop around an encoder that reads a text together with its neighbours
//! - `bench`: what the recursion is worth beside the encoder alone
//! - [`offload`]: small tasks on coprocessors of an appliance
//! - `appliance`: chunks on their way into a store, with these tasks
//!
//! **Invariant:** a vector depends on its text and the weights alone: not on the other texts of a call, the number of threads,
//! or the instruction set. The recursion reads the store, too, and nothing else.
//!
//! Without features the crate is `no_std` and allocates nothing: the frames and messages of [`offload`] alone. The feature
//! `encoder` adds encoders and the store, without the crate `tokenizers`.

#![cfg_attr(not(feature = "encoder"), no_std)]

#[cfg(feature = "std")]
pub mod appliance;
#[cfg(feature = "std")]
pub mod bench;
#[cfg(feature = "encoder")]
pub mod encoder;
#[cfg(feature = "std")]
pub mod graph;
pub mod offload;
#[cfg(feature = "std")]
pub mod recursion;
#[cfg(feature = "encoder")]
pub mod store;

mod crc32;
#[cfg(feature = "encoder")]
mod error;
mod fnv;

#[cfg(feature = "encoder")]
pub use error::{Error, Result};

/// The examples of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
