//! Frames of a coprocessor's line out of libFuzzer.

#![no_main]

#[path = "../frames.rs"]
mod frames;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    frames::line(data);
    frames::request(data);
});
