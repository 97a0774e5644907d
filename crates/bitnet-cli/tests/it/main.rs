//! The built `bitnet` binary: what it prints, what it writes, what it refuses, and with which exit code.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod command_lines;
mod common;
mod doctor;
mod dump;
mod files;
mod gates;
mod refusals;
mod texts;
mod trace;
mod words;
