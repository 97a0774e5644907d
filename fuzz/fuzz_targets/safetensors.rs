//! Safetensors files out of libFuzzer.

#![no_main]

#[path = "../exercise.rs"]
#[allow(dead_code, reason = "each target uses its own half")]
mod exercise;

thread_local! {
    static DIR: tempfile::TempDir = tempfile::tempdir().expect("a temporary folder can be made");
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    DIR.with(|dir| exercise::safetensors(dir.path(), data));
});
