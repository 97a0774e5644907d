//! `cargo xtask package`: packs the crates and uses each of them from outside of this repository.
//!
//! Every library crate becomes an archive as for a registry. A second workspace below the system's folder of temporary files
//! sees the unpacked archives alone and holds one program per crate: the first example of the crate's README. All programs
//! are built and run, so a file that is missing in an archive, an undeclared dependency or a wrong README ends in an error.

use std::path::{Path, PathBuf};

use xshell::{Cmd, Shell, cmd};

use crate::outcome::Outcome;
use crate::{repo, targets};

/// Where the outside workspace lies, and whether it stays.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// An empty or new folder outside of the repository; the default is below the system's folder of temporary files.
    #[arg(long)]
    work: Option<PathBuf>,
    /// Leave the outside workspace where it is.
    #[arg(long)]
    keep: bool,
}

/// A library crate, and what the example of its README needs.
struct Packed {
    name: &'static str,
    /// Crates of ours that the example names beside this one.
    beside: &'static [&'static str],
    /// Arguments of the example; `fixtures/` stands for that folder of the repository, `WORK` for a new folder.
    args: &'static [&'static str],
}

const LIBRARIES: [Packed; 8] = [
    Packed { name: "ternary-core", beside: &[], args: &[] },
    Packed { name: "tl-kernels", beside: &[], args: &[] },
    Packed { name: "gguf-bitnet", beside: &[], args: &[] },
    Packed { name: "mla-attention", beside: &[], args: &[] },
    Packed { name: "moe-runtime", beside: &[], args: &["fixtures/craftsman-mini", "The river is"] },
    Packed {
        name: "behavior-eval",
        beside: &[],
        args: &["fixtures/suites/suite-200.jsonl", "fixtures/suites/suite-200.corpus.jsonl", "WORK"],
    },
    Packed { name: "rlm-refine", beside: &["moe-runtime", "ternary-core"], args: &["fixtures/craftsman-mini"] },
    Packed { name: "rlm-embed", beside: &[], args: &[] },
];

/// The binary is packed and compiled with the others.
const BINARY: &str = "bitnet-cli";

/// A microcontroller without an operating system, for `ternary-core` alone.
const BARE_TARGET: &str = "thumbv7em-none-eabihf";

pub(crate) fn run(args: &Args) -> Outcome {
    let sh = repo::shell()?;
    let work = match &args.work {
        Some(work) => std::path::absolute(work)?,
        None => std::env::temp_dir().join(format!("craftsman-package-{}", std::process::id())),
    };
    if work.starts_with(repo::root()) || work.read_dir().is_ok_and(|mut files| files.next().is_some()) {
        return Err(format!("{}: --work names an empty folder outside of the repository", work.display()).into());
    }
    let done = pack(&sh, &work).and_then(|archives| prove(&sh, &work, &archives));
    if !args.keep {
        sh.remove_path(&work)?;
    }
    done
}

/// The size of an archive and the number of its files.
struct Archive {
    bytes: u64,
    files: usize,
}

/// Packs every crate and unpacks the libraries below `work/archives`, the binary below `work/outside`.
fn pack(sh: &Shell, work: &Path) -> Outcome<Vec<Archive>> {
    let target = work.join("packed");
    let names = || LIBRARIES.iter().map(|library| library.name).chain([BINARY]);
    let packages: Vec<String> = names().flat_map(|name| ["--package".to_owned(), name.to_owned()]).collect();
    quietly(cmd!(sh, "cargo package --quiet --no-verify --allow-dirty --target-dir {target} {packages...}"))?;
    let mut archives = Vec::new();
    for name in names() {
        let folder = work.join(if name == BINARY { "outside" } else { "archives" });
        sh.create_dir(&folder)?;
        let file = target.join(format!("package/{}.crate", versioned(name)));
        cmd!(sh, "tar -xzf {file} -C {folder}").quiet().run()?;
        let files = cmd!(sh, "tar -tzf {file}").quiet().read()?.lines().count();
        archives.push(Archive { bytes: std::fs::metadata(&file)?.len(), files });
    }
    Ok(archives)
}

/// Runs a command without its messages, unless it fails.
fn quietly(command: Cmd<'_>) -> Outcome {
    let name = command.to_string();
    let ended = command.quiet().ignore_status().output()?;
    if ended.status.success() {
        return Ok(());
    }
    Err(format!("`{name}` failed:\n{}", String::from_utf8_lossy(&ended.stderr).trim_end()).into())
}

fn versioned(name: &str) -> String {
    format!("{name}-{}", env!("CARGO_PKG_VERSION"))
}

/// Builds and runs the examples of the READMEs over the unpacked archives, and prints the table.
fn prove(sh: &Shell, work: &Path, archives: &[Archive]) -> Outcome {
    let outside = work.join("outside");
    write_workspace(sh, work, &outside)?;
    let _inside = sh.push_dir(&outside);
    // The repository's toolchain and the versions of its lockfile.
    for file in ["Cargo.lock", "rust-toolchain.toml"] {
        sh.copy_file(repo::root().join(file), &outside)?;
    }
    cmd!(sh, "cargo build --quiet --workspace").run()?;
    let mut table = vec!["| crate | archive | files | dependencies |".to_owned(), "|---|---|---|---|".to_owned()];
    for (library, archive) in LIBRARIES.iter().zip(archives) {
        let name = library.name;
        let program = format!("use-{name}");
        let args = library.args.iter().map(|arg| argument(arg, work)).collect::<Vec<_>>();
        let said = cmd!(sh, "cargo run --quiet --package {program} -- {args...}").quiet().read()?;
        let Some(last) = said.lines().last().filter(|line| !line.trim().is_empty()) else {
            return Err(format!("the example of {name} printed nothing").into());
        };
        repo::say(&format!("PASS {name}: its example runs on the archive alone: {last}"));
        table.push(row(sh, name, archive)?);
    }
    let binary = archives.last().ok_or("no archive of the binary")?;
    table.push(row(sh, BINARY, binary)?);
    bare(sh)?;
    repo::say("");
    table.iter().for_each(|line| repo::say(line));
    Ok(())
}

/// Checks that `ternary-core` compiles for a target without the standard library, where that target is installed.
fn bare(sh: &Shell) -> Outcome {
    if targets::is_installed(sh, BARE_TARGET)? {
        cmd!(sh, "cargo build --quiet --package ternary-core --target {BARE_TARGET}").run()?;
        repo::say(&format!("PASS ternary-core compiles for {BARE_TARGET}, without the standard library"));
    } else {
        repo::say(&format!("SKIP {BARE_TARGET}: not installed (rustup target add {BARE_TARGET})"));
    }
    Ok(())
}

/// One row of the table: the crate, its archive and the number of crates that its users compile.
fn row(sh: &Shell, name: &str, archive: &Archive) -> Outcome<String> {
    let tree = cmd!(sh, "cargo tree --quiet --package {name} --edges normal --prefix none").quiet();
    let tree = tree.read()?;
    let mut crates: Vec<&str> = tree.lines().filter_map(|line| line.split(" (").next()).collect();
    crates.sort_unstable();
    crates.dedup();
    // The crate itself is the first line of its tree.
    let dependencies = crates.len().saturating_sub(1);
    Ok(format!("| `{name}` | {} | {} | {dependencies} |", repo::bytes(archive.bytes), archive.files))
}

fn argument(arg: &str, work: &Path) -> String {
    match arg {
        "WORK" => work.join("example").display().to_string(),
        _ if arg.starts_with("fixtures/") => repo::root().join(arg).display().to_string(),
        _ => arg.to_owned(),
    }
}

/// Writes a workspace of one program per crate, in which the names of our crates mean the unpacked archives.
fn write_workspace(sh: &Shell, work: &Path, outside: &Path) -> Outcome {
    // The binary is no dependency of anything, so its archive is a member of the workspace.
    let binary = versioned(BINARY);
    let mut root = format!("[workspace]\nresolver = \"3\"\nmembers = [\"use-*\", {binary:?}]\n\n[patch.crates-io]\n");
    for name in LIBRARIES.iter().map(|library| library.name) {
        let path = work.join("archives").join(versioned(name));
        root += &format!("{name} = {{ path = {path:?} }}\n");
    }
    // Kernels without any optimisation would make the model of the example slow.
    root += "\n[profile.dev]\nopt-level = 1\ndebug = 0\n";
    sh.write_file(outside.join("Cargo.toml"), root)?;
    for library in &LIBRARIES {
        let Packed { name, beside, .. } = library;
        let readme = work.join("archives").join(versioned(name)).join("README.md");
        let example = first_example(&std::fs::read_to_string(readme)?)
            .ok_or_else(|| format!("crates/{name}/README.md has no example in Rust"))?;
        let folder = outside.join(format!("use-{name}"));
        let version = env!("CARGO_PKG_VERSION");
        let mut manifest =
            format!("[package]\nname = \"use-{name}\"\nedition = \"2024\"\n\n[dependencies]\n{name} = \"{version}\"\n");
        for other in *beside {
            manifest += &format!("{other} = \"{version}\"\n");
        }
        sh.create_dir(folder.join("src"))?;
        sh.write_file(folder.join("Cargo.toml"), manifest)?;
        sh.write_file(folder.join("src/main.rs"), example)?;
    }
    Ok(())
}

/// The first block of Rust in a README.
fn first_example(readme: &str) -> Option<String> {
    let (_, rest) = readme.split_once("```rust\n")?;
    let (example, _) = rest.split_once("\n```")?;
    Some(format!("{example}\n"))
}

#[cfg(test)]
mod tests {
    use xshell::cmd;

    use super::{LIBRARIES, argument, first_example, quietly};
    use crate::repo;

    #[test]
    fn a_command_that_fails_says_why() {
        let sh = repo::shell().unwrap();
        let error = quietly(cmd!(sh, "cargo package --no-verify --package no-such-crate")).unwrap_err().to_string();
        assert!(error.contains("cargo package") && error.matches("no-such-crate").count() > 1, "{error}");
        quietly(cmd!(sh, "cargo --version")).unwrap();
    }

    #[test]
    fn every_crate_but_the_binary_is_packed_with_an_example() {
        for entry in std::fs::read_dir(repo::root().join("crates")).unwrap() {
            let folder = entry.unwrap().path();
            let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
            let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
            let is_packed = LIBRARIES.iter().any(|library| library.name == name);
            assert_eq!(is_packed, name != super::BINARY, "{name}");
            assert_eq!(first_example(&readme).is_some_and(|code| code.contains("fn main()")), is_packed, "{name}");
        }
    }

    #[test]
    fn the_example_is_the_first_block_of_rust() {
        let readme = "# x\n```console\n$ x\n```\n\n```rust\nfn main() {}\n```\n```rust\nsecond\n```\n";
        assert_eq!(first_example(readme).as_deref(), Some("fn main() {}\n"));
        assert_eq!(first_example("```console\n$ x\n```\n"), None);
    }

    #[test]
    fn arguments_may_name_fixtures() {
        assert_eq!(argument("x", "w".as_ref()), "x");
        assert!(argument("fixtures/suites", "w".as_ref()).starts_with(repo::root().to_str().unwrap()));
    }
}
