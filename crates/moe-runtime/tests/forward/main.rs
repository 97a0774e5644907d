//! The forward pass of whole models: against transformers, against itself, and wrong on purpose.

mod chunks;
mod experts;
mod generation;
mod golden;
mod goldens;
mod kernels;
mod loading;
mod memory_source;
mod naive_mla;
mod negative;
mod packing;
mod residency;
mod ternary;
mod tile_cache;
