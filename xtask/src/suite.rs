//! `cargo xtask suite`: makes a suite for the behavioural gates from the grammar of the fixture suites.
//!
//! Writes two files, the corpus first, so that a suite file that exists has its corpus. Each is written under another
//! name and then renamed: an interrupted run leaves no half of a file.

mod grammar;
mod lists;
pub(crate) mod mersenne;
mod prompt;

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::outcome::Outcome;
use crate::repo;

use grammar::{Entities, LabelWeights, SuiteSpec};
use prompt::Label;

/// Make a suite of retrieval prompts and its corpus from the grammar of the fixture suites.
///
/// Beside FILE stands its corpus, with the extension `.corpus.jsonl`. The same options give the same bytes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number of prompts in the suite
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    prompts: u32,
    /// Seed of the prompts
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Weights of resolved, contested and indeterminate prompts
    #[arg(long, value_name = "R,C,I", default_value = "4,3,3")]
    labels: LabelWeights,
    /// Ask about entities that training held out, or about those it used
    #[arg(long, value_enum, default_value = "held-out")]
    entities: Entities,
    /// Seed that divides the entities; 7 is the mini teacher's
    #[arg(long, value_name = "S", default_value_t = 7)]
    split_seed: u64,
    /// The suite file to write
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Replace files that exist already
    #[arg(long)]
    force: bool,
    /// Print paths and counts as JSON
    #[arg(long)]
    json: bool,
}

/// Numbers of prompts of each label, and of chunks, that were written.
struct Made {
    labels: [usize; 3],
    chunks: usize,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let out = output_path(&args.out)?;
    let corpus = out.with_extension("corpus.jsonl");
    let made = make(args, &out, &corpus)?;
    let [resolved, contested, indeterminate] = made.labels;
    let prompts: usize = made.labels.iter().sum();
    if args.json {
        let report = json!({
            "suite": out, "corpus": corpus, "prompts": prompts, "chunks": made.chunks,
            "resolved": resolved, "contested": contested, "indeterminate": indeterminate,
        });
        repo::say(&serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    let labels = format!("{resolved} resolved, {contested} contested, {indeterminate} indeterminate");
    repo::say(&format!("{}: {prompts} prompts ({labels})", out.display()));
    repo::say(&format!("{}: {} chunks", corpus.display(), made.chunks));
    Ok(())
}

fn make(args: &Args, out: &Path, corpus: &Path) -> Outcome<Made> {
    let spec = SuiteSpec {
        prompts: usize::try_from(args.prompts)?,
        seed: args.seed,
        labels: args.labels,
        entities: args.entities,
        split_seed: args.split_seed,
    };
    let prompts = spec.generate()?;
    if let Some(path) = [out, corpus].into_iter().find(|path| path.exists() && !args.force) {
        let path = path.display();
        return Err(format!("{path}: already exists: choose another name or pass --force to replace it").into());
    }
    let mut made = Made { labels: [0; 3], chunks: 0 };
    let (mut suite_text, mut corpus_text) = (String::new(), String::new());
    for prompt in prompts {
        suite_text += &format!("{}\n", prompt.suite_line());
        prompt.corpus_lines().for_each(|line| corpus_text += &format!("{line}\n"));
        made.chunks += prompt.chunks.len();
        for (count, label) in made.labels.iter_mut().zip(Label::ALL) {
            *count += usize::from(prompt.label == label);
        }
    }
    write_whole(corpus, &corpus_text)?;
    write_whole(out, &suite_text)?;
    Ok(made)
}

/// The file to write, in an existing folder; the folder is named in full.
fn output_path(path: &Path) -> Outcome<PathBuf> {
    let name = path.file_name().filter(|_| !path.is_dir());
    let name = name.ok_or_else(|| format!("{}: does not end in a file name: add one", path.display()))?;
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder
        .canonicalize()
        .map_err(|e| format!("{}: its directory cannot be used: {e}: create it first", path.display()))?;
    Ok(folder.join(name))
}

/// Writes beside `path` first and then renames, so that `path` never holds a part.
fn write_whole(path: &Path, text: &str) -> Outcome {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|e| {
        let _ = std::fs::remove_file(&temporary);
        format!("{}: cannot write: {e}", path.display()).into()
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::{Args, run};
    use crate::repo;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parsed(words: &[&str]) -> Result<Args, clap::Error> {
        Line::try_parse_from(["suite"].iter().chain(words)).map(|line| line.args)
    }

    /// Runs the verb; the error is its sentence.
    fn suite(out: &Path, more: &[&str]) -> Result<(), String> {
        let out = out.to_str().expect("temporary folders are UTF-8");
        let args = parsed(&[&["-o", out][..], more].concat()).expect("a valid command line");
        run(&args).map_err(|error| error.to_string())
    }

    #[test]
    fn a_suite_and_its_corpus_and_nothing_overwritten() {
        let dir = xshell::Shell::new().unwrap().create_temp_dir().unwrap();
        let (out, corpus) = (dir.path().join("new.jsonl"), dir.path().join("new.corpus.jsonl"));
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        suite(&out, &["--prompts", "50", "--seed", "9"]).unwrap();
        let before = (read(&out), read(&corpus));
        assert_eq!(before.0.lines().count(), 50);

        // Nothing is overwritten, not even when only one of the two is there.
        for gone in [None, Some(&out)] {
            gone.map(std::fs::remove_file).transpose().unwrap();
            assert!(suite(&out, &["--prompts", "50", "--seed", "9"]).unwrap_err().contains("--force"));
            assert_eq!(read(&corpus), before.1);
        }
        std::fs::write(&out, "precious").unwrap();
        suite(&out, &["--prompts", "50", "--seed", "9"]).unwrap_err();
        assert_eq!(read(&out), "precious");

        // The same options give the same bytes, another seed gives others.
        suite(&out, &["--prompts", "50", "--seed", "9", "--force", "--json"]).unwrap();
        assert_eq!((read(&out), read(&corpus)), before);
        suite(&out, &["--prompts", "50", "--seed", "10", "--force"]).unwrap();
        assert_ne!(read(&out), before.0);
        let mut left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["new.corpus.jsonl", "new.jsonl"]);
    }

    /// This verb makes the suites that the tests of behavior-eval read.
    #[test]
    fn the_unseen_suites_of_the_fixtures_are_made_by_this_verb() {
        let dir = xshell::Shell::new().unwrap().create_temp_dir().unwrap();
        let skewed = ["--prompts", "40", "--labels", "42,16,42"];
        for (name, options) in [
            ("unseen-held-out", &["--prompts", "40"][..]),
            ("unseen-training", &[&skewed[..], &["--seed", "6", "--entities", "training"]].concat()),
            ("unseen-split", &[&skewed[..], &["--seed", "99", "--split-seed", "12345"]].concat()),
        ] {
            suite(&dir.path().join(format!("{name}.jsonl")), options).unwrap();
            for file in [format!("{name}.jsonl"), format!("{name}.corpus.jsonl")] {
                let want = std::fs::read_to_string(repo::root().join("fixtures/suites").join(&file)).unwrap();
                assert!(std::fs::read_to_string(dir.path().join(&file)).unwrap() == want, "{file}");
            }
        }
    }

    #[test]
    fn wrong_options_are_refused() {
        let dir = xshell::Shell::new().unwrap().create_temp_dir().unwrap();
        let out = dir.path().join("s");
        suite(&out, &["--prompts", "9", "--labels", "1,0,2"]).unwrap();
        assert!(suite(&out, &["--prompts", "9", "--labels", "0,0,0"]).unwrap_err().contains("empty"));
        assert!(suite(&dir.path().join("no/such/s.jsonl"), &["--prompts", "1"]).unwrap_err().contains("create it"));
        let sentence = parsed(&["-o", "s", "--prompts", "9", "--labels", "1,2"]).err().unwrap().to_string();
        assert!(sentence.contains("three weights"), "{sentence}");
        for wrong in
            [&["--prompts", "0"][..], &["--prompts", "100001"], &["--prompts", "-1"], &["--labels", "a,b,c"], &[]]
        {
            assert!(parsed(&[&["-o", "s"][..], wrong].concat()).is_err(), "{wrong:?}");
        }
    }
}
