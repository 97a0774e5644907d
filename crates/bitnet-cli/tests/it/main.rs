//! The built `bitnet` binary: its output, its files, its refusals and its exit codes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod adapters;
mod batch;
mod bench;
#[cfg(target_os = "linux")]
mod chat;
mod command_lines;
mod common;
mod convert;
mod doctor;
mod dump;
mod embed;
mod files;
mod gates;
mod integrity;
mod lessons;
mod low_bits;
#[cfg(target_os = "linux")]
mod offload;
mod places;
mod prompt_cache;
#[cfg(target_os = "linux")]
mod pty;
mod refusals;
mod rounds;
#[cfg(feature = "serve")]
mod serve;
mod settings;
mod shards;
mod texts;
mod trace;
mod training;
mod words;
