//! `cargo xtask cross`: the kernels, attention and the runtime on processors that this machine emulates.
//!
//! 64-bit ARM is run by qemu, once as a processor without integer dot products and once with; WASM with SIMD128 is run
//! by Node, and the example's page by a browser where there is one. The tests are those that compare a kernel with the
//! oracle or a forward pass with a golden; then the mini student must give its golden tokens.
//!
//! The pinned toolchain has no standard library for these targets. A second one that comes with the library's sources
//! builds it (Debian: rustc-web cargo-web rust-web-src lld-19 gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user,
//! and nodejs, chromium). A missing tool is named in a SKIP line; with `CRAFTSMAN_REQUIRE_CROSS=1` it is an
//! error. Builds go to `target/cross`, so that they do not evict the main ones.

use std::path::{Path, PathBuf};
use std::time::Instant;

use xshell::{Cmd, Shell, cmd};

use crate::outcome::Outcome;
use crate::{bitnet, repo};

const CARGO: &str = "/usr/bin/cargo";
const RUSTC: &str = "/usr/bin/rustc";
const SOURCES: &str = "/usr/lib/rustlib/src/rust/library/Cargo.lock";
const WASM_LINKER: &str = "/usr/bin/wasm-ld-19";
const ARM_LIBRARIES: &str = "/usr/aarch64-linux-gnu";

const ARM: &str = "aarch64-unknown-linux-gnu";
const WASM: &str = "wasm32-unknown-unknown";

/// The tests of kernels that every target runs: they need neither files nor threads.
const KERNEL_TESTS: &[&str] = &["--test", "it"];

/// Packages and test binaries that run on ARM.
const ARM_TESTS: [(&str, &[&str]); 4] = [
    ("tl-kernels", &["--lib"]),
    ("tl-kernels", KERNEL_TESTS),
    ("mla-attention", &["--test", "it", "--", "mla::", "gqa::"]),
    ("rlm-refine", &["--test", "it", "golden_tokens::"]),
];

/// Processors that qemu emulates, each with the level that its kernels must use.
const ARM_PROCESSORS: [(&str, &str); 2] = [("cortex-a53", "neon"), ("max", "neon-dotprod")];

/// How the code under test is built.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The cargo profile of what is built.
    #[arg(long, default_value = "checked")]
    profile: String,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let cross = Cross { sh: repo::shell()?, profile: args.profile.clone(), dir: repo::root().join("target/cross") };
    let required = std::env::var("CRAFTSMAN_REQUIRE_CROSS").is_ok_and(|value| value == "1");
    let mut skipped = Vec::new();
    for (name, needs, run) in [
        (
            "ARM",
            &[CARGO, RUSTC, SOURCES, ARM_LIBRARIES, "aarch64-linux-gnu-gcc", "qemu-aarch64"][..],
            Cross::arm as Step,
        ),
        ("WASM", &[CARGO, RUSTC, SOURCES, WASM_LINKER, "node"], Cross::wasm),
        ("page", &[CARGO, RUSTC, SOURCES, WASM_LINKER, "node", "chromium"], Cross::page),
    ] {
        let missing: Vec<&str> = needs.iter().copied().filter(|tool| !is_there(tool)).collect();
        if missing.is_empty() {
            let start = Instant::now();
            run(&cross).map_err(|error| format!("{name}: {error}"))?;
            repo::say(&format!("PASS {name} in {} s", start.elapsed().as_secs()));
        } else {
            repo::say(&format!("SKIP {name}: not installed: {}", missing.join(", ")));
            skipped.push(name);
        }
    }
    if required && !skipped.is_empty() {
        return Err(format!("CRAFTSMAN_REQUIRE_CROSS=1, and {} could not be tried", skipped.join(", ")).into());
    }
    Ok(())
}

type Step = fn(&Cross) -> Outcome;

/// Whether a path exists, or a program of this name is on the path of programs.
fn is_there(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Path::new(tool).exists() && tool.starts_with('/')
        || std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
}

struct Cross {
    sh: Shell,
    profile: String,
    dir: PathBuf,
}

impl Cross {
    /// The second toolchain's cargo. Variables that name the first toolchain are removed, because they would override it.
    fn cargo(&self, args: &[&str], target: &str, parts_of_std: &str) -> Cmd<'_> {
        let Cross { sh, profile, dir } = self;
        let (subcommand, rest) = args.split_first().map_or(("build", args), |(first, rest)| (*first, rest));
        let command = cmd!(sh, "{CARGO} {subcommand} --quiet --profile {profile} --target-dir {dir} --target {target}");
        let command = command.arg(format!("-Zbuild-std={parts_of_std}")).args(rest);
        ["RUSTUP_TOOLCHAIN", "RUSTDOC", "RUSTFLAGS", "CARGO"]
            .into_iter()
            .fold(command, Cmd::env_remove)
            .env("RUSTC", RUSTC)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc")
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", WASM_LINKER)
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", "-C target-feature=+simd128")
    }

    fn arm(&self) -> Outcome {
        for (processor, level) in ARM_PROCESSORS {
            let runner = format!("qemu-aarch64 -cpu {processor} -L {ARM_LIBRARIES}");
            for (package, tests) in ARM_TESTS {
                let args = [&["test", "-p", package], tests].concat();
                self.cargo(&args, ARM, "std")
                    .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", &runner)
                    .env("TL_ISA", level)
                    .run()?;
            }
            repo::say(&format!("PASS ARM {processor}: kernels, attention and golden tokens on {level}"));
        }
        Ok(())
    }

    fn wasm(&self) -> Outcome {
        let runner = format!("node {}", repo::root().join("xtask/src/cross/run.mjs").display());
        self.cargo(&[&["test", "-p", "tl-kernels"], KERNEL_TESTS].concat(), WASM, "std,panic_abort")
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER", &runner)
            .run()?;
        repo::say("PASS WASM: kernels on simd128");
        let (module, student) = self.example()?;
        let sh = &self.sh;
        cmd!(sh, "node crates/moe-runtime/examples/wasm/golden.mjs {module} {student} {GOLDEN}").run()?;
        Ok(())
    }

    fn page(&self) -> Outcome {
        let (module, student) = self.example()?;
        let sh = &self.sh;
        cmd!(sh, "node crates/moe-runtime/examples/wasm/browser.mjs chromium {module} {student} {GOLDEN}").run()?;
        Ok(())
    }

    /// The example as a module, and the mini student.
    fn example(&self) -> Outcome<(PathBuf, PathBuf)> {
        self.cargo(
            &["build", "-p", "moe-runtime", "--no-default-features", "--example", "wasm"],
            WASM,
            "std,panic_abort",
        )
        .run()?;
        let module = self.dir.join(WASM).join(&self.profile).join("examples/wasm.wasm");
        let student = self.dir.join("student.gguf");
        let (sh, bitnet) = (&self.sh, bitnet::binary(None, &self.profile)?);
        cmd!(sh, "{bitnet} quantize -m fixtures/craftsman-mini -o {student} --preset balanced --method ls --force")
            .quiet()
            .ignore_stderr()
            .run()?;
        Ok((module, student))
    }
}

const GOLDEN: &str = "fixtures/goldens/mini-student/tokens.json";

#[cfg(test)]
mod tests {
    use super::is_there;

    #[test]
    fn programs_are_found_by_name_and_by_path() {
        assert!(is_there("cargo") && !is_there("no-such-program") && !is_there("/no/such/path"));
        assert!(!is_there("src"), "a folder beside us is no program");
    }
}
