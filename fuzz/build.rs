//! Tells the sources of the server that they are part of a fuzz target, as `cargo fuzz` does, also where a stable compiler checks
//! the targets.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(fuzzing)");
    println!("cargo::rustc-cfg=fuzzing");
}
