//! GGUF files out of libFuzzer.

#![no_main]

#[path = "../exercise.rs"]
#[allow(dead_code, reason = "each target uses its own half")]
mod exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    exercise::gguf(data);
});
