//! `prove bindings`: builds the packages for Python and Node without a C compiler, installs each into a clean environment
//! and runs its tests there.
//!
//! A package whose language is not on this machine, or whose tools cannot be fetched, is skipped by name.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use super::environment::{done, environment};
use super::proof::{Judged, Proof};
use crate::bitnet::arg;
use crate::outcome::Outcome;
use crate::repo;

/// The package of pip that makes a wheel from a Rust crate.
const BUILDER: &str = "maturin>=1.9,<2";
/// Packages of pip for the tests and the check of types.
const TESTERS: [&str; 3] = ["pytest>=8", "mypy>=1.11", "typing_extensions>=4.6"];
/// Largest artefact that passes, in bytes.
const MAX_BYTES: u64 = 20_000_000;

pub(super) fn prove(proof: &mut Proof<'_>, binary: impl FnOnce() -> Outcome<PathBuf>) -> Outcome<Judged> {
    proof.need_disk(3_000_000_000)?;
    let (builder, node) = (builder(proof)?, node());
    if builder.is_none() {
        let named = proof.options.python.display();
        repo::say(&format!("SKIP Python: pip of {named} cannot fetch {BUILDER}"));
    }
    if node.is_none() {
        repo::say("SKIP Node: there is no `node` of version 18 or newer, or no `npm`");
    }
    if builder.is_none() && node.is_none() {
        return Ok(Judged::Skipped);
    }
    let bitnet = binary()?;
    if let Some(builder) = builder {
        python(proof, &builder, &bitnet)?;
    }
    if node.is_some() {
        node_package(proof, &bitnet)?;
    }
    Ok(Judged::Measured)
}

/// A Python with maturin; `None` where it cannot be had.
fn builder(proof: &Proof<'_>) -> Outcome<Option<PathBuf>> {
    environment(proof, "builder", &[BUILDER])
}

/// The wheel: built, installed alone, tested, typed, measured.
fn python(proof: &mut Proof<'_>, builder: &Path, bitnet: &Path) -> Outcome {
    let package = repo::root().join("bindings/python");
    let wheels = proof.work.join("wheels");
    let mut build = Command::new(builder);
    build.args(["-m", "maturin", "build", "--release", "--locked", "--out", arg(&wheels)?]).current_dir(&package);
    // maturin is a program beside its Python.
    build.env("PATH", search_path(builder)?);
    if !built(proof, "Python wheel", &mut build)? {
        return Ok(());
    }
    let wheel = only_file(&wheels, "whl")?;
    size(proof, "Python wheel", &wheel)?;
    let name = wheel.file_name().unwrap_or_default().to_string_lossy().into_owned();
    proof.figure("Python wheel: one for all versions", &name, "cp310-abi3", name.contains("cp310-abi3"));

    let clean = environment(proof, "clean", &["--no-index", arg(&wheel)?])?;
    proof.figure("Python wheel: installs alone", yes(clean.is_some()), "no other package is fetched", clean.is_some());
    let Some(python) = clean else { return Ok(()) };
    if !done(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(TESTERS)) {
        repo::say(&format!("SKIP Python tests: pip cannot fetch {}", TESTERS.join(", ")));
        return Ok(());
    }
    let mut tests = Command::new(&python);
    tests.args(["-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", arg(&package.join("tests"))?]);
    tests.current_dir(&proof.work).env("BITNET", bitnet);
    let (passed, text) = output(&mut tests)?;
    proof.figure("Python tests", last_line(&text), "all pass", passed.success());
    let mut types = Command::new(&python);
    types.args(["-m", "mypy", "--strict", "--cache-dir", arg(&proof.work.join("mypy"))?]);
    types.args(["-p", "craftsman_ultra"]).current_dir(&proof.work);
    let (library, _) = output(&mut types)?;
    let example = package.join("examples/answer.py");
    let mut types = Command::new(&python);
    types.args(["-m", "mypy", "--strict", "--cache-dir", arg(&proof.work.join("mypy"))?, arg(&example)?]);
    let (user, text) = output(types.current_dir(&proof.work))?;
    proof.figure(
        "Python types: mypy --strict",
        last_line(&text),
        "package and example clean",
        library.success() && user.success(),
    );
    let mut measure = Command::new(&python);
    measure.args(["-B", arg(&package.join("tests/measure.py"))?]).current_dir(&proof.work);
    take(proof, "measure.py", &mut measure)
}

/// Whether Node and npm are here, and new enough.
fn node() -> Option<()> {
    let (is_there, version) = output(Command::new("node").arg("--version")).ok()?;
    let major: u32 = version.trim().strip_prefix('v')?.split('.').next()?.parse().ok()?;
    (is_there.success() && major >= 18 && done(Command::new("npm").arg("--version"))).then_some(())
}

/// The tarball: built, installed alone, tested, measured.
fn node_package(proof: &mut Proof<'_>, bitnet: &Path) -> Outcome {
    let package = repo::root().join("bindings/node");
    if !done(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&package)) {
        repo::say("SKIP Node: npm cannot fetch the TypeScript compiler");
        return Ok(());
    }
    if !built(proof, "Node package", Command::new("npm").args(["run", "build"]).current_dir(&package))? {
        return Ok(());
    }
    size(proof, "Node library", &package.join("craftsman.node"))?;
    let (packed, user) = (proof.work.join("packed"), proof.work.join("user"));
    std::fs::create_dir_all(&packed)?;
    std::fs::create_dir_all(&user)?;
    let is_packed = done(Command::new("npm").args(["pack", "--pack-destination", arg(&packed)?]).current_dir(&package));
    let tarball = if is_packed { Some(only_file(&packed, "tgz")?) } else { None };
    let installed = match &tarball {
        None => false,
        Some(tarball) => {
            size(proof, "Node package", tarball)?;
            std::fs::write(user.join("package.json"), r#"{"type":"module"}"#)?;
            let install = ["install", "--offline", "--no-audit", "--no-fund", arg(tarball)?];
            done(Command::new("npm").args(install).current_dir(&user))
        }
    };
    proof.figure("Node package: installs alone", yes(installed), "no other package is fetched", installed);
    let user_types = user.join("node_modules/craftsman-ultra/dist/index.d.ts");
    proof.figure("Node types", yes(user_types.is_file()), "generated", user_types.is_file());
    let run = |args: &[&str], file: &str| -> Outcome<Command> {
        let mut node = Command::new("node");
        node.args(args).arg(package.join("test").join(file)).current_dir(&user);
        node.env("CRAFTSMAN_PACKAGE", user.join("node_modules/craftsman-ultra/dist/index.js"));
        node.env("CRAFTSMAN_ROOT", repo::root()).env("BITNET", bitnet);
        Ok(node)
    };
    let (passed, text) = output(&mut run(&["--test", "--test-reporter=tap"], "package.test.mjs")?)?;
    let count = |word: &str| text.lines().find_map(|line| line.strip_prefix(word)).unwrap_or(" none").to_owned();
    let counts = format!("{} passed, {} failed", count("# pass").trim(), count("# fail").trim());
    proof.figure("Node tests", counts, "all pass", passed.success());
    take(proof, "measure.mjs", &mut run(&[], "measure.mjs")?)
}

/// Runs a build without a C compiler; whether it ended well, which is a figure.
fn built(proof: &mut Proof<'_>, what: &str, build: &mut Command) -> Outcome<bool> {
    for variable in ["CC", "CXX", "HOST_CC", "TARGET_CC"] {
        build.env(variable, "/bin/false");
    }
    build.env("CARGO_TARGET_DIR", repo::root().join("bindings/target"));
    let status = build.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    proof.figure(format!("{what}: built with CC=/bin/false"), status.to_string(), "ends well", status.success());
    Ok(status.success())
}

fn size(proof: &mut Proof<'_>, what: &str, path: &Path) -> Outcome {
    let bytes = std::fs::metadata(path)?.len();
    let target = format!("at most {}", repo::bytes(MAX_BYTES));
    proof.figure(format!("{what}: size"), repo::bytes(bytes), target, bytes <= MAX_BYTES);
    Ok(())
}

/// Runs a script and takes the figures that it prints.
fn take(proof: &mut Proof<'_>, script: &str, run: &mut Command) -> Outcome {
    let (status, text) = output(run)?;
    proof.take(script, status, &text);
    Ok(())
}

/// The only file of a folder with this ending.
fn only_file(folder: &Path, ending: &str) -> Outcome<PathBuf> {
    let files = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let mut files =
        files.into_iter().map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == ending));
    match (files.next(), files.next()) {
        (Some(file), None) => Ok(file),
        _ => Err(format!("{} does not hold one .{ending} file", folder.display()).into()),
    }
}

/// The search path with the folder of `program` in front.
fn search_path(program: &Path) -> Outcome<std::ffi::OsString> {
    let own = program.parent().map(Path::to_owned);
    let rest = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths(own.into_iter().chain(std::env::split_paths(&rest)))?)
}

/// Runs a program; its standard output, which is also shown where it did not end well.
fn output(command: &mut Command) -> Outcome<(ExitStatus, String)> {
    let done = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        repo::say(text.trim_end());
    }
    Ok((done.status, text))
}

fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or("no output").trim_matches(['=', ' ']).to_owned()
}

fn yes(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

#[cfg(test)]
mod tests {
    use super::{last_line, search_path};

    #[test]
    fn the_last_line_is_the_summary() {
        assert_eq!(last_line("....\n==== 15 passed in 3.1s ====\n"), "15 passed in 3.1s");
        assert_eq!(last_line(""), "no output");
    }

    #[test]
    fn programs_beside_the_python_are_found_first() {
        let path = search_path(std::path::Path::new("/x/bin/python")).expect("a path");
        assert_eq!(std::env::split_paths(&path).next(), Some("/x/bin".into()));
    }
}
