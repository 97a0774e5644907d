//! The `bitnet` command: quantise, inspect, verify, run and evaluate ternary language models on a CPU.
//!
//! | room | contents |
//! |---|---|
//! | `args/` | the options that several verbs share, and the parsers of their values |
//! | `load/` | from a name on the command line to a loaded model, and texts from files |
//! | `output/` | standard output and standard error: lines, JSON, tables, sizes, progress |
//! | `verbs/` | one file per verb, with its own options |
//! | `exit` | the exit code of every outcome |
//!
//! Imports go one way: `verbs` -> `args` -> `load` -> `output`. `exit` uses `output` alone; `verbs` and `args` use `exit`.
//!
//! A new option is a field of `Args` in the file of its verb, or of a struct in `args/` when several verbs share it. Its
//! parser refuses wrong values, `tests/it/command_lines.rs` gets a line for them, and `tests/it/cmd/` the new help page.

mod args;
mod exit;
mod load;
mod output;
mod verbs;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(name = "bitnet", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Run(verbs::run::Args),
    Quantize(verbs::quantize::Args),
    Inspect(verbs::inspect::Args),
    Doctor(verbs::doctor::Args),
    Verify(verbs::verify::Args),
    Tokenize(verbs::tokenize::Args),
    Dump(verbs::dump::Args),
    Eval(verbs::eval::Args),
    EvalGates(Box<verbs::eval_gates::Args>),
    Synth(verbs::synth::Args),
    Bench(verbs::bench::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Events of the libraries (model loaded, kernel chosen, ...) are silent unless BITNET_LOG asks for them.
    let filter = EnvFilter::try_from_env("BITNET_LOG").unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    exit::code(match cli.verb {
        Verb::Run(args) => verbs::run::execute(args),
        Verb::Quantize(args) => verbs::quantize::execute(args),
        Verb::Inspect(args) => verbs::inspect::execute(args),
        Verb::Doctor(args) => verbs::doctor::execute(args),
        Verb::Verify(args) => verbs::verify::execute(args),
        Verb::Tokenize(args) => verbs::tokenize::execute(args),
        Verb::Dump(args) => verbs::dump::execute(args),
        Verb::Eval(args) => verbs::eval::execute(args),
        Verb::EvalGates(args) => verbs::eval_gates::execute(*args),
        Verb::Synth(args) => verbs::synth::execute(args),
        Verb::Bench(args) => verbs::bench::execute(args),
    })
}
