//! `cargo xtask targets`: checks that the product compiles for the other desktop systems.
//!
//! A check without linking, so it needs only the target's standard library (`rustup target add NAME`), no foreign
//! toolchain. A target that is not installed is one SKIP line. A PASS line means that the code compiles, not that it runs.

use std::path::Path;

use xshell::{Shell, cmd};

use crate::outcome::Outcome;
use crate::repo;

const TARGETS: [&str; 2] = ["aarch64-apple-darwin", "x86_64-pc-windows-msvc"];

pub(crate) fn run() -> Outcome {
    let sh = repo::shell()?;
    for target in TARGETS {
        if !is_installed(&sh, target)? {
            repo::say(&format!("SKIP {target}: its standard library is not installed (rustup target add {target})"));
            continue;
        }
        cmd!(sh, "cargo check --quiet --profile checked --target {target} -p bitnet-cli").run()?;
        repo::say(&format!("PASS {target}: `bitnet` compiles"));
    }
    Ok(())
}

/// Whether the toolchain has the standard library of a target.
pub(crate) fn is_installed(sh: &Shell, target: &str) -> Outcome<bool> {
    let sysroot = cmd!(sh, "rustc --print sysroot").quiet().read()?;
    Ok(Path::new(&sysroot).join("lib/rustlib").join(target).join("lib").is_dir())
}
