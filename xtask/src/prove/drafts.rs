//! `prove drafts`: answers of the mini teacher with n-gram drafts and without, on retrieval prompts and on held-out text. With a
//! folder DIR that `fixtures/generators/train_mtp.py` made, those of the teacher there, and with drafts of its MTP block too.
//!
//! The figures are counts, so they do not depend on the machine: tokens per step, and how many drafted tokens were
//! accepted. The proof fails when an answer with drafts differs from the one without.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::proof::Proof;
use crate::outcome::Outcome;
use crate::repo;

/// Prompts of each kind.
const PROMPTS: usize = 40;
/// Most tokens of an answer.
const TOKENS: &str = "128";
/// Characters of the held-out text that stand before the tokens of the model.
const CONTEXT_CHARS: usize = 1500;

/// The counts of several answers.
#[derive(Default)]
struct Counts {
    answers: usize,
    /// Tokens behind the first one of each answer, which belongs to the prompt's step.
    tokens: u64,
    steps: u64,
    drafted: u64,
    accepted: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { answers, tokens, steps, drafted, accepted } = self;
        let per_step = *tokens as f64 / (*steps).max(1) as f64;
        write!(
            f,
            "{answers} answers, {tokens} tokens in {steps} steps ({per_step:.2} per step), {accepted} of {drafted} drafted accepted"
        )
    }
}

pub(super) fn prove(proof: &mut Proof<'_>, binary: &Path) -> Outcome {
    let retrieval = retrieval()?;
    let held_out = held_out()?;
    let mini = repo::root().join("fixtures/craftsman-mini");
    let (model, sources) = match proof.options.folder.clone() {
        None => (mini, &["ngram"][..]),
        Some(folder) => (folder, &["ngram", "mtp"][..]),
    };
    for (name, prompts) in [("retrieval suite", &retrieval), ("held-out text", &held_out)] {
        for (sampling, options) in [("greedy", ["--temp", "0"]), ("sampled", ["--seed", "1"])] {
            let mut found: Vec<_> = sources.iter().map(|source| (*source, Counts::default(), 0)).collect();
            for prompt in prompts {
                let args: Vec<&str> = prompt.iter().map(String::as_str).chain(options).collect();
                let plain = run(binary, &model, "off", &args)?.0;
                for (source, counts, different) in &mut found {
                    let (text, notes) = run(binary, &model, source, &args)?;
                    *different += usize::from(text != plain);
                    counts.add(&notes)?;
                }
            }
            for (source, counts, different) in found {
                let figure = format!("{counts}, {different} different from those without drafts");
                let name = format!("drafts: {source}, {name}, {sampling}");
                proof.figure(name, figure, "no answer is different", different == 0);
            }
        }
    }
    Ok(())
}

/// The first prompts of the suite that the teacher was trained for.
fn retrieval() -> Outcome<Vec<Vec<String>>> {
    let suite = std::fs::read_to_string(repo::root().join("fixtures/suites/suite-200.jsonl"))?;
    let prompt = |line: &str| -> Outcome<Vec<String>> {
        let prompt: Value = serde_json::from_str(line)?;
        let part = |key: &str| prompt[key].as_str().unwrap_or_default().to_owned();
        Ok(vec!["-p".to_owned(), part("user"), "--system".to_owned(), part("system")])
    };
    suite.lines().take(PROMPTS).map(prompt).collect()
}

/// Pieces of the held-out text, spread over all of it.
fn held_out() -> Outcome<Vec<Vec<String>>> {
    let text: Vec<char> = std::fs::read_to_string(repo::root().join("fixtures/texts/heldout.txt"))?.chars().collect();
    let apart = text.len().saturating_sub(CONTEXT_CHARS) / PROMPTS;
    let piece = |i: usize| text.iter().skip(i * apart).take(CONTEXT_CHARS).collect::<String>();
    Ok((0..PROMPTS).map(|i| vec!["--raw".to_owned(), "-p".to_owned(), piece(i)]).collect())
}

/// The answer of `model` with drafts of `source`, and the notes about it.
fn run(binary: &Path, model: &Path, source: &str, args: &[&str]) -> Outcome<(String, String)> {
    let mut command = Command::new(binary);
    command.arg("run").arg(model).args(["-n", TOKENS, "--draft", source]).args(args);
    let done = command.stdin(Stdio::null()).output()?;
    let notes = String::from_utf8(done.stderr)?;
    if !done.status.success() {
        return Err(format!("`bitnet run` ended with {}: {notes}", done.status).into());
    }
    Ok((String::from_utf8(done.stdout)?, notes))
}

impl Counts {
    /// Adds the counts of one answer, as `bitnet run` notes them.
    fn add(&mut self, notes: &str) -> Outcome {
        let missing = || format!("`bitnet run` noted no counts: {notes}");
        let last_number = |text: &str| text.rsplit(' ').next().and_then(|word| word.parse::<u64>().ok());
        let (_, answer) = notes.split_once(", answer ").ok_or_else(missing)?;
        let generated: u64 = answer.split(' ').next().and_then(|n| n.parse().ok()).ok_or_else(missing)?;
        let tokens = generated.saturating_sub(1);
        self.answers += 1;
        self.tokens += tokens;
        // Without any draft each token has a step, and the notes name none.
        let (steps, drafted, accepted) = match notes.split_once(" drafted ones accepted") {
            None => (tokens, 0, 0),
            Some((head, _)) => {
                let (head, drafted) = head.rsplit_once(" of ").ok_or_else(missing)?;
                let (answer, _) = head.rsplit_once(" steps (").ok_or_else(missing)?;
                let numbers = [last_number(answer), last_number(drafted), last_number(head)];
                let [Some(steps), Some(drafted), Some(accepted)] = numbers else { return Err(missing().into()) };
                (steps, drafted, accepted)
            }
        };
        self.steps += steps;
        self.drafted += drafted;
        self.accepted += accepted;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn the_notes_of_an_answer_are_read() {
        let mut counts = Counts::default();
        let notes = "prompt 9 tokens at 1.0/s, answer 49 tokens at 2.0/s in 30 steps (1.60 tokens per step, 18 of 40 \
                     drafted ones accepted), ended by length, peak memory 9 MB";
        counts.add(notes).unwrap();
        counts.add("prompt 9 tokens at 1.0/s, answer 11 tokens at 2.0/s, ended by stop").unwrap();
        assert_eq!((counts.tokens, counts.steps, counts.drafted, counts.accepted), (58, 40, 40, 18));
        assert!(counts.add("nothing").is_err());
    }
}
