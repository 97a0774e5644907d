//! `cargo xtask fuzz`: the libFuzzer targets below `fuzz/`, each for a fixed number of inputs.
//!
//! They need `cargo-fuzz` and a nightly compiler. Without them this checks that the targets compile and prints one SKIP line:
//! tests of gguf-bitnet, moe-runtime, bitnet-cli and rlm-embed cover the same readers, parser, dialects and frames on the
//! stable compiler, in every `cargo xtask test`.

use xshell::cmd;

use crate::outcome::Outcome;
use crate::repo;

const TARGETS: [&str; 8] = ["gguf", "safetensors", "answers", "frames", "chat", "completions", "responses", "messages"];

/// How many inputs to try.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Inputs that each target is given.
    #[arg(long, default_value_t = 20_000)]
    runs: u32,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let sh = repo::shell()?;
    let quiet = |c: xshell::Cmd<'_>| c.quiet().ignore_stdout().ignore_stderr().run().is_ok();
    if !quiet(cmd!(sh, "cargo fuzz --version")) || !quiet(cmd!(sh, "cargo +nightly --version")) {
        // Targets that are not built could stop compiling without a sign.
        cmd!(sh, "cargo check --quiet --manifest-path fuzz/Cargo.toml --no-default-features").run()?;
        repo::say(
            "SKIP fuzz: cargo-fuzz or a nightly compiler is not installed (cargo install cargo-fuzz); the targets compile",
        );
        return Ok(());
    }
    let runs = format!("-runs={}", args.runs);
    for target in TARGETS {
        let (corpus, seeds) = (format!("fuzz/corpus/{target}"), format!("fuzz/seeds/{target}"));
        sh.create_dir(&corpus)?;
        cmd!(sh, "cargo +nightly fuzz run {target} {corpus} {seeds} -- {runs} -seed=1 -max_len=4096").run()?;
        repo::say(&format!("PASS fuzz {target}: {} inputs", args.runs));
    }
    Ok(())
}
