//! Bodies of `/v1/messages` out of libFuzzer, and the answers that the same bytes stand for.

#![no_main]
#![allow(dead_code, unused_imports, reason = "the target runs a part of the program")]

#[macro_use]
#[path = "../program.rs"]
mod program;

dialect!(Messages);
