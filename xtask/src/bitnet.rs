//! Where the `bitnet` binary is, and how this program runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use xshell::cmd;

use crate::outcome::{EndedWith, Outcome};
use crate::repo;

/// The `bitnet` binary that was named, or one built with `profile`.
pub(crate) fn binary(named: Option<&Path>, profile: &str) -> Outcome<PathBuf> {
    if let Some(path) = named {
        return Ok(std::path::absolute(path)?);
    }
    let sh = repo::shell()?;
    cmd!(sh, "cargo build --profile {profile} -p bitnet-cli").run()?;
    let path = target_dir().join(profile).join(format!("bitnet{}", std::env::consts::EXE_SUFFIX));
    if path.is_file() { Ok(path) } else { Err(format!("cargo did not leave a binary at {}", path.display()).into()) }
}

/// The folder that cargo builds into.
pub(crate) fn target_dir() -> PathBuf {
    repo::root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// Runs `bitnet` to its end and returns its standard output; its progress goes to the terminal.
pub(crate) fn output(binary: &Path, args: &[&str]) -> Outcome<String> {
    let done = Command::new(binary).args(args).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !done.status.success() {
        return Err(format!("`bitnet {}` ended with {}", args.join(" "), done.status).into());
    }
    Ok(String::from_utf8(done.stdout)?)
}

/// Runs `bitnet` to its end and parses its standard output as JSON.
pub(crate) fn json(binary: &Path, args: &[&str]) -> Outcome<Value> {
    let text = output(binary, args)?;
    serde_json::from_str(&text).map_err(|e| format!("`bitnet {}` did not print JSON: {e}", args.join(" ")).into())
}

/// A path as an argument; the repository's paths are UTF-8.
pub(crate) fn arg(path: &Path) -> Outcome<&str> {
    path.to_str().ok_or_else(|| format!("{} is not UTF-8", path.display()).into())
}

/// Runs a model verb through `cargo run`, in the caller's folder, so that relative paths keep their meaning.
pub(crate) fn forward(verb: &str, args: &[String]) -> Outcome {
    let sh = xshell::Shell::new()?;
    let manifest = repo::root().join("Cargo.toml");
    let run = cmd!(sh, "cargo run --quiet --release --manifest-path {manifest} -p bitnet-cli -- {verb} {args...}");
    let status = Command::from(run).status()?;
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(0) => Ok(()),
        Some(code) => Err(EndedWith(code).into()),
        None => Err(format!("`bitnet {verb}` ended with {status}").into()),
    }
}
