//! `prove interop`: the Python scripts of `fixtures/interop/` that compare us with the `gguf` package and llama.cpp.

use std::path::Path;
use std::process::{Command, Stdio};

use super::proof::Proof;
use crate::bitnet::arg;
use crate::outcome::Outcome;
use crate::repo;

const SCRIPTS: [&str; 3] = ["gguf_package.py", "adapter.py", "llama_cpp_check.py"];

pub(super) fn prove(proof: &mut Proof<'_>, binary: &Path) -> Outcome {
    proof.need_disk(400_000_000)?;
    SCRIPTS.into_iter().try_for_each(|name| script(proof, binary, name, &[]))
}

/// Runs a script of `fixtures/interop` with more arguments, and takes the figures that it prints; other lines are shown.
pub(super) fn script(proof: &mut Proof<'_>, binary: &Path, script: &str, more: &[&str]) -> Outcome {
    let python = proof.options.python.clone();
    script_of(&python, proof, binary, script, more)
}

/// As [`script`], with another Python than the one of the options.
pub(super) fn script_of(python: &Path, proof: &mut Proof<'_>, binary: &Path, script: &str, more: &[&str]) -> Outcome {
    let path = repo::root().join("fixtures/interop").join(script);
    let done = Command::new(python)
        .args(["-B", arg(&path)?, "--bitnet", arg(binary)?, "--work", arg(&proof.work)?])
        .args(more)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cannot start {}: {e}; name a Python with --python", python.display()))?;
    proof.take(script, done.status, &String::from_utf8_lossy(&done.stdout));
    Ok(())
}
