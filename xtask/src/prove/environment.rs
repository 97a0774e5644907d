//! Packages in the work folder: environments of Python that pip fills, and modules of Node that npm fetches.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::proof::Proof;
use crate::bitnet::arg;
use crate::outcome::Outcome;

/// The Python of a new environment in the folder `name` of the work folder, made by the Python of the options, with what pip
/// installs for `packages`; `None` where it cannot.
pub(super) fn environment(proof: &Proof<'_>, name: &str, packages: &[&str]) -> Outcome<Option<PathBuf>> {
    let folder = proof.work.join(name);
    let python = folder.join("bin/python");
    let is_there = done(Command::new(&proof.options.python).args(["-m", "venv", arg(&folder)?]))
        && done(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages));
    Ok(is_there.then_some(python))
}

/// The `node_modules` of a new folder in the work folder, with what npm installs for `packages`; `None` where it cannot.
pub(super) fn modules(proof: &Proof<'_>, packages: &[&str]) -> Outcome<Option<PathBuf>> {
    let folder = proof.work.join("node");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("package.json"), r#"{"private": true}"#)?;
    let install = ["install", "--silent", "--no-audit", "--no-fund", "--prefix", arg(&folder)?];
    let is_there = done(Command::new("npm").args(install).args(packages));
    Ok(is_there.then(|| folder.join("node_modules")))
}

/// Whether a program ended well; its standard output is dropped.
pub(super) fn done(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}
