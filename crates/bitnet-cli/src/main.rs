//! The `bitnet` command: quantise, inspect, verify, run and evaluate ternary language models on a CPU.
//!
//! | room | contents |
//! |---|---|
//! | `args/` | the options that several verbs share, and the parsers of their values |
//! | `load/` | from a name on the command line to a loaded model, and texts from files |
//! | `output/` | standard output and standard error: lines, JSON, tables, sizes, progress |
//! | `terminal/` | chats: keys, the edited line, modes of the terminal, signals |
//! | `http/` | the server behind `bitnet serve` |
//! | `verbs/` | one file per verb, with its own options |
//! | `exit` | the exit code of every outcome |
//!
//! Imports go one way: `verbs` -> `args` -> `load` -> `output`, and `verbs` -> `terminal` -> `exit` -> `output`. `args` uses
//! `exit` too.
//!
//! A new option is a field of `Args` in the file of its verb, or of a struct in `args/` when several verbs share it. Its
//! parser refuses wrong values, `tests/it/command_lines.rs` gets a line for them, and `tests/it/cmd/` the new help page.

mod args;
mod exit;
#[cfg(feature = "serve")]
mod http;
mod load;
mod output;
mod terminal;
mod verbs;

use std::process::ExitCode;

use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(name = "bitnet", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Run(Box<verbs::run::Args>),
    #[cfg(feature = "serve")]
    Serve(Box<verbs::serve::Args>),
    Quantize(verbs::quantize::Args),
    Refine(Box<verbs::refine::Args>),
    Distill(Box<verbs::distill::Args>),
    Adapt(verbs::adapt::Args),
    Export(verbs::export::Args),
    Convert(verbs::convert::Args),
    Inspect(verbs::inspect::Args),
    Doctor(verbs::doctor::Args),
    Verify(verbs::verify::Args),
    Tokenize(verbs::tokenize::Args),
    Dump(verbs::dump::Args),
    Eval(verbs::eval::Args),
    EvalGates(Box<verbs::eval_gates::Args>),
    Synth(verbs::synth::Args),
    Bench(verbs::bench::Args),
    Tune(verbs::tune::Args),
    Embed(verbs::embed::Args),
    Index(verbs::index::Args),
}

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    gguf_bitnet::end_on_lost_pages();
    let cli =
        Cli::from_arg_matches(&negative_values(Cli::command()).get_matches()).unwrap_or_else(|error| error.exit());
    // Events of the libraries (model loaded, kernel chosen, ...) are silent unless BITNET_LOG asks for them.
    let filter = EnvFilter::try_from_env("BITNET_LOG").unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    exit::code(match cli.verb {
        Verb::Run(args) => verbs::run::execute(*args),
        #[cfg(feature = "serve")]
        Verb::Serve(args) => verbs::serve::execute(*args),
        Verb::Quantize(args) => verbs::quantize::execute(args),
        Verb::Refine(args) => verbs::refine::execute(&args),
        Verb::Distill(args) => verbs::distill::execute(&args),
        Verb::Adapt(args) => verbs::adapt::execute(args),
        Verb::Export(args) => verbs::export::execute(args),
        Verb::Convert(args) => verbs::convert::execute(args),
        Verb::Inspect(args) => verbs::inspect::execute(args),
        Verb::Doctor(args) => verbs::doctor::execute(args),
        Verb::Verify(args) => verbs::verify::execute(args),
        Verb::Tokenize(args) => verbs::tokenize::execute(args),
        Verb::Dump(args) => verbs::dump::execute(args),
        Verb::Eval(args) => verbs::eval::execute(args),
        Verb::EvalGates(args) => verbs::eval_gates::execute(*args),
        Verb::Synth(args) => verbs::synth::execute(args),
        Verb::Bench(args) => verbs::bench::execute(args),
        Verb::Tune(args) => verbs::tune::execute(&args),
        Verb::Embed(args) => verbs::embed::execute(args),
        Verb::Index(args) => verbs::index::execute(args),
    })
}

/// The command with options whose values may begin with a minus. Their parsers then refuse `-1` with a sentence about the
/// numbers that are allowed, where it would be taken for an option that does not exist.
fn negative_values(command: Command) -> Command {
    let command = command.mut_args(|arg| match arg.get_action().takes_values() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    });
    let verbs: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    verbs.into_iter().fold(command, |command, verb| command.mut_subcommand(verb, negative_values))
}
