//! Tests of students: their types, values, sizes and metadata, and the jobs that make them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod adapt;
mod calibrated;
mod defects;
mod dense;
mod directions;
mod events;
mod ewc;
mod export;
mod fp8;
mod from_gguf;
mod golden_tokens;
mod mtp;
mod precision;
mod prompts;
mod refine;
mod resume;
mod sizes;
mod sources;
mod students;
mod train_model;
mod train_ops;
mod types;
mod values;
