//! The tools and standard libraries that a part of `cargo xtask cross` needs, and how they are installed.

use xshell::{Shell, cmd};

use crate::outcome::Outcome;
use crate::{repo, targets};

/// A program, or a file by its absolute path, with the Debian package that has it.
#[derive(Clone, Copy)]
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) package: &'static str,
}

/// Installs the standard library of `target` and the tools that are missing. Returns what is still missing, each with
/// the command that installs it.
pub(super) fn install(sh: &Shell, target: &str, tools: &[Tool]) -> Outcome<Vec<String>> {
    if !targets::is_installed(sh, target)? && is_there("rustup") {
        attempt(sh, &["rustup", "target", "add", target]);
    }
    let missing = || tools.iter().filter(|tool| !is_there(tool.name));
    let packages: Vec<&str> = missing().map(|tool| tool.package).collect();
    if !packages.is_empty() && is_there("apt-get") && is_root(sh) {
        attempt(sh, &["apt-get", "update", "--quiet=2"]);
        let install = ["apt-get", "install", "--yes", "--quiet=2", "--no-install-recommends"];
        attempt(sh, &[&install[..], &packages].concat());
    }
    let library = (!targets::is_installed(sh, target)?)
        .then(|| format!("the standard library of {target} (rustup target add {target})"));
    let tools = missing().map(|Tool { name, package }| format!("{name} (apt-get install {package})"));
    Ok(library.into_iter().chain(tools).collect())
}

/// Prints a command and runs it. Its failure is a remark: the caller looks whether the tools are there.
fn attempt(sh: &Shell, command: &[&str]) {
    repo::say(&command.join(" "));
    let (program, args) = (command[0], &command[1..]);
    let done = cmd!(sh, "{program} {args...}").env("DEBIAN_FRONTEND", "noninteractive").quiet().ignore_stdout().run();
    if let Err(error) = done {
        repo::say(&format!("remark: {error}"));
    }
}

fn is_root(sh: &Shell) -> bool {
    cmd!(sh, "id -u").quiet().read().is_ok_and(|id| id == "0")
}

/// Whether a file of this absolute path exists, or a program of this name is on the path of programs.
fn is_there(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // An absolute path replaces the folder it is joined to.
    std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
}

#[cfg(test)]
mod tests {
    use super::is_there;
    use crate::repo;

    #[test]
    fn programs_are_found_by_name_and_files_by_path() {
        assert!(is_there("cargo") && !is_there("no-such-program"));
        let manifest = repo::root().join("Cargo.toml");
        assert!(is_there(manifest.to_str().unwrap()) && !is_there("/no/such/path"));
        assert!(!is_there("src"), "a folder beside us is no program");
    }
}
