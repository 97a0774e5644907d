//! `prove cluster`: a batch and the gates by the Ray adapter of the Python package, with kills on two nodes of this machine.
//!
//! pip fetches Ray into an environment in the work folder. Without it, or without the right to make a network namespace, the
//! proof is skipped by name.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::environment::{done, environment};
use super::interop;
use super::proof::{Judged, Proof};
use crate::outcome::Outcome;
use crate::repo;

const RAY: &str = "ray==2.60.0";
/// A network namespace of its own with the loopback interface alone, whose processes end with the first of them.
const NAMESPACE: &str = r#"#!/bin/sh
exec unshare -n --pid --fork --kill-child --mount-proc sh -c 'ip link set lo up && exec "$0" "$@"' "#;

pub(super) fn prove(proof: &mut Proof<'_>, binary: impl FnOnce() -> Outcome<PathBuf>) -> Outcome<Judged> {
    proof.need_disk(2_000_000_000)?;
    let trial = ["-n", "--pid", "--fork", "--mount-proc", "ip", "link", "set", "lo", "up"];
    if !done(Command::new("unshare").args(trial).stderr(Stdio::null())) {
        repo::say("SKIP cluster: this user cannot make a network namespace (unshare -n), or there is no `ip`");
        return Ok(Judged::Skipped);
    }
    let Some(python) = environment(proof, "environment", &[RAY])? else {
        repo::say(&format!("SKIP cluster: pip of {} cannot fetch {RAY}", proof.options.python.display()));
        return Ok(Judged::Skipped);
    };
    let inside = proof.work.join("python-in-a-namespace");
    script(&inside, &format!("{NAMESPACE}'{}' \"$@\"\n", python.display()))?;
    interop::script_of(&inside, proof, &binary()?, "two_nodes.py", &[])?;
    Ok(Judged::Measured)
}

/// Writes a program for the shell.
fn script(path: &Path, text: &str) -> Outcome {
    std::fs::write(path, text)?;
    match done(Command::new("chmod").arg("+x").arg(path)) {
        true => Ok(()),
        false => Err(format!("cannot make {} a program", path.display()).into()),
    }
}
