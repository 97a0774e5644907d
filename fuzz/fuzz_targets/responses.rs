//! Bodies of `/v1/responses` out of libFuzzer, and the answers that the same bytes stand for.

#![no_main]
#![allow(dead_code, unused_imports, reason = "the target runs a part of the program")]

#[path = "../program.rs"]
mod program;

use http::scripted::{Dialect, Exercise};
use program::source::{http, load, output};

thread_local! {
    static EXERCISE: Exercise = Exercise::start();
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    EXERCISE.with(|exercise| exercise.input(Dialect::Responses, data));
});
