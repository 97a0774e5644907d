//! `prove ternary-forward`: ternary models of width 2048 made here, run here and in NumPy, in three activation modes.
//!
//! Of the two presets one has Q8_0 beside its ternary layers, the other Q6_K.
//! The tests of moe-runtime hold the reverse: a file and numbers made by NumPy, read and run here.

use std::path::Path;
use std::process::{Command, Stdio};

use super::proof::Proof;
use crate::bitnet::{self, arg};
use crate::outcome::Outcome;
use crate::repo;

const TOKENS: &str = "3,17,95,0,41,17,60,2";

pub(super) fn prove(proof: &mut Proof<'_>, binary: &Path) -> Outcome {
    proof.need_disk(500_000_000)?;
    let interop = repo::root().join("fixtures/interop");
    let (shape, script) = (interop.join("ternary_forward.json"), interop.join("ternary_forward.py"));
    for preset in ["phase2", "balanced"] {
        let model = proof.work.join(format!("{preset}.gguf"));
        let to = arg(&model)?;
        bitnet::output(
            binary,
            &["synth", "--shape", arg(&shape)?, "--format", "gguf", "--preset", preset, "--out", to],
        )?;
        for mode in ["f32", "a8-block", "a8-token"] {
            compare(proof, binary, &script, &model, preset, mode)?;
        }
    }
    Ok(())
}

/// One file in one mode.
fn compare(proof: &mut Proof<'_>, binary: &Path, script: &Path, model: &Path, preset: &str, mode: &str) -> Outcome {
    let (want, got) = (proof.work.join("want.safetensors"), proof.work.join("got.safetensors"));
    let _ = std::fs::remove_file(&got);
    let python = |args: &[&str]| {
        Command::new(&proof.options.python).arg("-B").arg(script).args(args).stdin(Stdio::null()).output()
    };
    let made = python(&["run", arg(model)?, "--tokens", TOKENS, "--mode", mode, "--out", arg(&want)?])?;
    if !made.status.success() {
        return Err(format!("{} failed: {}", script.display(), String::from_utf8_lossy(&made.stderr)).into());
    }
    bitnet::output(binary, &["dump", "--model", arg(model)?, "--tokens", TOKENS, "--act", mode, "--out", arg(&got)?])?;
    let mut comparison = vec!["compare", arg(&want)?, arg(&got)?];
    let target = if mode == "f32" {
        comparison.push("--exact");
        "every position within 1e-4"
    } else {
        "half of the positions within 1e-5, all within 5e-2, same router sets"
    };
    let compared = python(&comparison)?;
    let figure = String::from_utf8_lossy(&compared.stdout).trim().to_owned();
    proof.figure(format!("{preset}, {mode}: equals NumPy"), figure, target, compared.status.success());
    Ok(())
}
