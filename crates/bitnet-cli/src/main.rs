//! The `bitnet` command: quantise, inspect, verify, run and evaluate ternary language models on a CPU.
//!
//! One file per verb under `verbs/`, each with its argument struct. Results go to standard output, progress and
//! statistics to standard error. Exit codes: 0 done, 1 could not be done (one sentence says why), 2 wrong command line,
//! 3 done, and a gate failed.

mod engine;
mod layout;
mod model;
mod output;
mod progress;
mod size;
mod subject;
mod utc;
mod verbs;

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use output::{GateFailed, Usage};
use verbs::{bench, dump, eval, eval_gates, inspect, quantize, run, synth, tokenize, verify};

#[derive(Parser)]
#[command(name = "bitnet", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Run(run::Args),
    Quantize(quantize::Args),
    Inspect(inspect::Args),
    Doctor(verbs::doctor::Args),
    Verify(verify::Args),
    Tokenize(tokenize::Args),
    Dump(dump::Args),
    Eval(eval::Args),
    EvalGates(Box<eval_gates::Args>),
    Synth(synth::Args),
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Events of the libraries (model loaded, kernel chosen, ...) are silent unless BITNET_LOG asks for them.
    let filter = EnvFilter::try_from_env("BITNET_LOG").unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let done = match cli.verb {
        Verb::Run(args) => run::execute(args),
        Verb::Quantize(args) => quantize::execute(args),
        Verb::Inspect(args) => inspect::execute(args),
        Verb::Doctor(args) => verbs::doctor::execute(args),
        Verb::Verify(args) => verify::execute(args),
        Verb::Tokenize(args) => tokenize::execute(args),
        Verb::Dump(args) => dump::execute(args),
        Verb::Eval(args) => eval::execute(args),
        Verb::EvalGates(args) => eval_gates::execute(*args),
        Verb::Synth(args) => synth::execute(args),
        Verb::Bench(args) => bench::execute(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if reader_left(&error) => ExitCode::SUCCESS,
        // The report has been printed and says which one.
        Err(error) if error.is::<GateFailed>() => ExitCode::from(3),
        Err(error) => {
            output::complain(&error);
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

/// Whether whoever read our standard output closed it, as `head` does.
fn reader_left(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}
