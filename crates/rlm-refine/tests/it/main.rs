//! Tests of students: their types, values, sizes and metadata, and the jobs that make them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod calibrated;
mod defects;
mod fp8;
mod from_gguf;
mod golden_tokens;
mod precision;
mod prompts;
mod resume;
mod sizes;
mod sources;
mod types;
mod values;
