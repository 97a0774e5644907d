//! `bitnet suite`: makes a suite for the behavioural gates.
//!
//! Writes two files, the corpus first: a suite file that exists has its corpus.

use std::path::{Path, PathBuf};

use anyhow::Result;
use behavior_eval::grammar::{Entities, LabelWeights, SuiteSpec, write};
use behavior_eval::{Label, Suite};
use clap::ValueEnum;
use serde_json::json;

use crate::output::{self, Usage};

/// Make a suite of retrieval prompts and its corpus from the grammar of the fixture suites.
///
/// Beside FILE stands its corpus, with the extension `.corpus.jsonl`. The same options give the same bytes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number of prompts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    prompts: u32,
    /// Seed of the prompts
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Weights of resolved, contested and indeterminate prompts
    #[arg(long, value_name = "R,C,I", value_delimiter = ',', num_args = 1, default_value = "4,3,3")]
    labels: Vec<u32>,
    /// Ask about entities that training held out, or about those it used
    #[arg(long, value_enum, default_value = "held-out")]
    entities: EntitiesArg,
    /// Seed that divides the entities; 7 is the mini teacher's
    #[arg(long, value_name = "S", default_value_t = 7)]
    split_seed: u64,
    /// The suite file to write
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Replace existing files
    #[arg(long)]
    force: bool,
    /// Counts and identity as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum EntitiesArg {
    /// Entities never seen in training
    HeldOut,
    /// The others
    Training,
}

/// Runs the verb.
pub(crate) fn execute(args: Args) -> Result<()> {
    let [resolved, contested, indeterminate] = <[u32; 3]>::try_from(args.labels)
        .map_err(|_| Usage("--labels takes three weights, for example 4,3,3".into()))?;
    let spec = SuiteSpec {
        prompts: usize::try_from(args.prompts)?,
        seed: args.seed,
        labels: LabelWeights { resolved, contested, indeterminate },
        entities: match args.entities {
            EntitiesArg::HeldOut => Entities::HeldOut,
            EntitiesArg::Training => Entities::Training,
        },
        split_seed: args.split_seed,
    };
    let prompts = spec.generate()?;
    let out = gguf_bitnet::output_path(&args.out)?;
    let corpus_path = gguf_bitnet::output_path(&corpus_beside(&out))?;
    for path in [&out, &corpus_path] {
        if path.exists() && !args.force {
            return Err(gguf_bitnet::Error::OutputExists.in_file(path).into());
        }
    }
    let (mut suite, mut corpus) = (Vec::new(), Vec::new());
    for prompt in prompts {
        write(&prompt, &mut suite, &mut corpus)?;
    }
    gguf_bitnet::write_atomic(&corpus_path, &corpus)?;
    gguf_bitnet::write_atomic(&out, &suite)?;
    report(&Suite::open(&out, &corpus_path)?, &out, &corpus_path, args.json)
}

/// `suite.jsonl` has its chunks in `suite.corpus.jsonl`.
fn corpus_beside(suite: &Path) -> PathBuf {
    suite.with_extension("corpus.jsonl")
}

fn report(suite: &Suite, out: &Path, corpus_path: &Path, as_json: bool) -> Result<()> {
    let count = |label| suite.prompts().iter().filter(|prompt| prompt.label == Some(label)).count();
    let chunks: usize = suite.prompts().iter().map(|prompt| prompt.chunks.len()).sum();
    let [resolved, contested, indeterminate] = Label::ALL.map(count);
    if as_json {
        return output::json(&json!({
            "suite": out, "corpus": corpus_path, "identity": suite.identity(), "prompts": suite.prompts().len(),
            "chunks": chunks, "resolved": resolved, "contested": contested, "indeterminate": indeterminate,
        }));
    }
    output::line(format_args!(
        "{}: {} prompts ({resolved} resolved, {contested} contested, {indeterminate} indeterminate)",
        out.display(),
        suite.prompts().len()
    ))?;
    output::line(format_args!("{}: {chunks} chunks", corpus_path.display()))
}
