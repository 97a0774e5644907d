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
//! | `settings/` | options from the environment and from a file |
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
mod settings;
mod terminal;
mod verbs;

use std::process::ExitCode;

use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// The end of the help page.
const SETTINGS: &str = "\
An option --max-tokens may also be set as the variable BITNET_MAX_TOKENS, or as a line \"max-tokens = 64\" in the file that
BITNET_CONFIG names (else ~/.config/bitnet/config.toml), at its top or below a verb such as [serve].";

#[derive(Parser)]
#[command(name = "bitnet", version, about, arg_required_else_help = true, after_help = SETTINGS)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Run(Box<verbs::run::Args>),
    Batch(Box<verbs::batch::Args>),
    Merge(verbs::merge::Args),
    #[cfg(feature = "serve")]
    Serve(Box<verbs::serve::Args>),
    Quantize(verbs::quantize::Args),
    Refine(Box<verbs::refine::Args>),
    Distill(Box<verbs::distill::Args>),
    Adapt(verbs::adapt::Args),
    Export(verbs::export::Args),
    Lessons(verbs::lessons::Args),
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
    #[cfg(unix)]
    Offload(verbs::offload::Args),
    Completions(verbs::completions::Args),
    Man(verbs::man::Args),
}

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    gguf_bitnet::end_on_lost_pages();
    let command = negative_values(Cli::command());
    let completed = match settings::complete(&command, std::env::args_os().collect(), |name| std::env::var_os(name)) {
        Ok(completed) => completed,
        Err(error) => return exit::code(Err(exit::UsageError::new(error.to_string()).into())),
    };
    let matches = command.clone().try_get_matches_from(completed.words);
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return exit::wrong_command_line(&error, &completed.added),
    };
    // Events of the libraries (model loaded, kernel chosen, ...) are silent unless BITNET_LOG asks for them.
    let filter = EnvFilter::try_from_env("BITNET_LOG").unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    exit::code(match cli.verb {
        Verb::Run(args) => verbs::run::execute(*args),
        Verb::Batch(args) => verbs::batch::execute(*args),
        Verb::Merge(args) => verbs::merge::execute(&args),
        #[cfg(feature = "serve")]
        Verb::Serve(args) => verbs::serve::execute(*args),
        Verb::Quantize(args) => verbs::quantize::execute(args),
        Verb::Refine(args) => verbs::refine::execute(&args),
        Verb::Distill(args) => verbs::distill::execute(&args),
        Verb::Adapt(args) => verbs::adapt::execute(args),
        Verb::Export(args) => verbs::export::execute(args),
        Verb::Lessons(args) => verbs::lessons::execute(&args),
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
        #[cfg(unix)]
        Verb::Offload(args) => verbs::offload::execute(args),
        Verb::Completions(args) => verbs::completions::execute(args, command),
        Verb::Man(args) => verbs::man::execute(args, command),
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
