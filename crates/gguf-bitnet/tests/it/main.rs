//! Integration tests of the crate's public API.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod convert;
mod dequant;
mod encode;
mod fp8;
mod gguf_malformed;
mod gguf_round_trip;
mod job;
mod mutations;
mod names;
mod parts;
mod resolve;
mod safetensors;
mod storage;
mod support;
mod verify;
mod weightless;
