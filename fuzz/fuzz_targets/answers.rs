//! Answers of a model out of libFuzzer.

#![no_main]

#[path = "../answers.rs"]
mod answers;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    answers::answer(data);
});
