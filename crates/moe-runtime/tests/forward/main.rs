//! The forward pass of whole models: against transformers, against itself, and wrong on purpose.

mod chunks;
mod generation;
mod golden;
mod goldens;
mod naive_mla;
mod negative;
mod ternary;
