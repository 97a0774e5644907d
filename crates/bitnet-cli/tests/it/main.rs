//! The built `bitnet` binary: its output, its files, its refusals and its exit codes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod command_lines;
mod common;
mod doctor;
mod dump;
mod files;
mod gates;
mod integrity;
mod low_bits;
mod places;
mod refusals;
mod texts;
mod trace;
mod words;
