//! The project's own commands: `cargo xtask VERB`.
//!
//! Orchestration only. What touches a model runs `bitnet` in its own process, so that an installed binary can do
//! everything this one can. **Invariant**: depends on clap and xshell, on none of our crates.

mod bench;
mod cross;
mod fuzz;
mod json;
mod pipeline;
mod prove;
mod repo;
mod safetensors;
mod targets;
mod tidy;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use xshell::cmd;

/// What every command returns; the error's text is for the person at the terminal.
type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, check and prove this project", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run every test of the workspace.
    Test(Forwarded),
    /// Take the fixture teacher through quantize, verify, fidelity, gates and one generated answer.
    Pipeline(pipeline::Args),
    /// Check what the compiler does not: dependency edges, file sizes, headers, fixtures.
    Tidy,
    /// Check that the product compiles for macOS and Windows, where their standard libraries are installed.
    Targets,
    /// Test the kernels and the golden tokens on emulated ARM and in WASM, where their tools are installed.
    Cross(cross::Args),
    /// Run the fuzz targets a fixed number of times, where the fuzzer is installed.
    Fuzz(fuzz::Args),
    /// Record the speeds of the benchmarks, or draw the cost of a token.
    Bench(bench::Args),
    /// Run one heavy demonstration and record its figures below benches/record.
    Prove(prove::Args),
    /// The same as `bitnet quantize`.
    #[command(disable_help_flag = true)]
    Quantize(Forwarded),
    /// The same as `bitnet synth`.
    #[command(disable_help_flag = true)]
    Synth(Forwarded),
    /// The same as `bitnet eval-gates`, with its exit codes.
    #[command(disable_help_flag = true)]
    EvalGates(Forwarded),
}

/// Arguments that are handed on as they are.
#[derive(Args)]
struct Forwarded {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Test(rest) => test(&rest.args),
        Verb::Pipeline(args) => pipeline::run(&args),
        Verb::Tidy => tidy::run(),
        Verb::Targets => targets::run(),
        Verb::Cross(args) => cross::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Prove(args) => prove::run(&args),
        Verb::Quantize(rest) => bitnet("quantize", &rest.args),
        Verb::Synth(rest) => bitnet("synth", &rest.args),
        Verb::EvalGates(rest) => bitnet("eval-gates", &rest.args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<EndedWith>() {
            // Whoever ended so has said why.
            Some(EndedWith(code)) => ExitCode::from(*code),
            None => {
                repo::complain(&format!("error: {error}"));
                ExitCode::FAILURE
            }
        },
    }
}

fn test(args: &[String]) -> Outcome {
    let sh = repo::shell()?;
    cmd!(sh, "cargo test --workspace --profile checked {args...}").run()?;
    Ok(())
}

/// Ends this program with the exit code of one that it ran, or with one that means the same.
#[derive(Debug)]
struct EndedWith(u8);

impl std::fmt::Display for EndedWith {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ended with exit code {}", self.0)
    }
}

impl std::error::Error for EndedWith {}

/// Runs a model verb through `cargo run`, in the caller's folder so that its paths mean what they say.
fn bitnet(verb: &str, args: &[String]) -> Outcome {
    let sh = xshell::Shell::new()?;
    let manifest = repo::root().join("Cargo.toml");
    let run = cmd!(sh, "cargo run --quiet --release --manifest-path {manifest} -p bitnet-cli -- {verb} {args...}");
    let status = std::process::Command::from(run).status()?;
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(0) => Ok(()),
        Some(code) => Err(EndedWith(code).into()),
        None => Err(format!("`bitnet {verb}` ended with {status}").into()),
    }
}
