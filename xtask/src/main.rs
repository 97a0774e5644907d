//! The project's own commands: `cargo xtask VERB`.
//!
//! Orchestration only. Every verb that touches a model runs `bitnet` in a process of its own, so that an installed
//! binary can do everything this one can. **Invariant**: depends on clap, xshell, serde_json and safetensors, on none of our crates.

mod ablate;
mod bench;
mod bitnet;
mod cross;
mod fuzz;
mod outcome;
mod package;
mod pipeline;
mod prove;
mod record;
mod repo;
mod report;
mod suite;
mod targets;
mod tensors;
mod tidy;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use xshell::cmd;

use outcome::{EndedWith, Outcome};

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
    Tidy(tidy::Args),
    /// Check that the product compiles for macOS and Windows, where their standard libraries are installed.
    Targets,
    /// Test the kernels and the golden tokens on emulated ARM and in WASM; missing tools are installed where that is possible.
    Cross(cross::Args),
    /// Run the fuzz targets a fixed number of times, where the fuzzer is installed.
    Fuzz(fuzz::Args),
    /// Measure what each step of the calibrated quantiser buys, and write the table into docs/ablations.md.
    Ablate(ablate::Args),
    /// Record the speeds of the benchmarks, or draw the cost of a token.
    Bench(bench::Args),
    /// Run one heavy demonstration and record its figures below benches/record.
    Prove(prove::Args),
    Suite(suite::Args),
    /// Pack the crates, and build and run the examples of their READMEs on the archives, outside of this repository.
    Package(package::Args),
    /// The same as `bitnet quantize`.
    #[command(disable_help_flag = true)]
    Quantize(Forwarded),
    /// The same as `bitnet refine`.
    #[command(disable_help_flag = true)]
    Refine(Forwarded),
    /// The same as `bitnet distill`.
    #[command(disable_help_flag = true)]
    Distill(Forwarded),
    /// The same as `bitnet export`.
    #[command(disable_help_flag = true)]
    Export(Forwarded),
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
        Verb::Tidy(args) => tidy::run(&args),
        Verb::Targets => targets::run(),
        Verb::Cross(args) => cross::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Ablate(args) => ablate::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Prove(args) => prove::run(&args),
        Verb::Suite(args) => suite::run(&args),
        Verb::Package(args) => package::run(&args),
        Verb::Quantize(rest) => bitnet::forward("quantize", &rest.args),
        Verb::Refine(rest) => bitnet::forward("refine", &rest.args),
        Verb::Distill(rest) => bitnet::forward("distill", &rest.args),
        Verb::Export(rest) => bitnet::forward("export", &rest.args),
        Verb::Synth(rest) => bitnet::forward("synth", &rest.args),
        Verb::EvalGates(rest) => bitnet::forward("eval-gates", &rest.args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<EndedWith>() {
            // The program that ended with this code has printed the reason.
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
