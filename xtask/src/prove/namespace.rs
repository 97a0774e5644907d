//! Network namespaces with the loopback interface alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::environment::done;
use super::proof::Proof;
use crate::outcome::Outcome;

/// Its processes end with the first of them.
const NAMESPACE: &str = r#"#!/bin/sh
exec unshare -n --pid --fork --kill-child --mount-proc sh -c 'ip link set lo up && exec "$0" "$@"' "#;

/// Whether this user can make one.
pub(super) fn is_possible() -> bool {
    let trial = ["-n", "--pid", "--fork", "--mount-proc", "ip", "link", "set", "lo", "up"];
    done(Command::new("unshare").args(trial).stderr(Stdio::null()))
}

/// A program in the work folder that runs a Python in a namespace of its own.
pub(super) fn inside(proof: &Proof<'_>, python: &Path) -> Outcome<PathBuf> {
    let path = proof.work.join("python-in-a-namespace");
    std::fs::write(&path, format!("{NAMESPACE}'{}' \"$@\"\n", python.display()))?;
    match done(Command::new("chmod").arg("+x").arg(&path)) {
        true => Ok(path),
        false => Err(format!("cannot make {} a program", path.display()).into()),
    }
}
