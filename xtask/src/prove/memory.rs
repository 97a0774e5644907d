//! `prove memory`: the sum that `--memory` is checked against, beside the memory that the process took.
//!
//! The full-size random file of the `8g` preset answers prompts that fill its contexts, some at the same time. The sum is
//! the one that `bitnet batch` names when it refuses a limit; a limit of that size is accepted.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::clock;
use super::proof::Proof;
use crate::bitnet::{self, arg};
use crate::outcome::Outcome;
use crate::repo;

const FILE_BYTES: u64 = 7_800_000_000;
/// Tokens of a context and contexts that are full at the same time; the cheaper ones first.
const CASES: [(usize, usize); 5] = [(4096, 1), (4096, 4), (4096, 8), (16_384, 1), (16_384, 4)];
/// Tokens of an answer.
const ANSWER: usize = 8;
/// Tokens in front of every prompt: `[gMASK]` and `<sop>`.
const PREFIX: usize = 2;
/// Largest distance of the two figures.
const TOLERANCE: f64 = 0.03;

pub(super) fn prove(proof: &mut Proof<'_>, binary: &Path) -> Outcome {
    proof.need_disk(FILE_BYTES)?;
    let model = proof.work.join("8g.gguf");
    let tokenizer = repo::root().join("fixtures/craftsman-mini");
    let shape = ["synth", "--shape", "glm-4.7-flash", "--preset", "8g", "--tokenizer", arg(&tokenizer)?];
    bitnet::output(binary, &[&shape[..], &["--out", arg(&model)?]].concat())?;
    for (context, slots) in CASES {
        let (prompts, answers) = (proof.work.join("prompts.jsonl"), proof.work.join("answers.jsonl"));
        std::fs::write(&prompts, lines(context - ANSWER - PREFIX, slots))?;
        let (tokens, size, most) = (context.to_string(), slots.to_string(), ANSWER.to_string());
        let base = ["batch", "-m", arg(&model)?, "-i", arg(&prompts)?, "-o", arg(&answers)?, "--force"];
        let sizes = ["-c", &tokens, "--slots", &size, "-n", &most, "--memory"];
        let args = [&base[..], &sizes].concat();
        let need = refused_sum(binary, &[&args[..], &["1"]].concat())?;
        let ended = clock::run(binary, &[&args[..], &[&need.to_string()]].concat(), None)?;
        if !ended.status.success() {
            return Err(format!("`bitnet batch` over {slots} contexts of {context} ended with {}", ended.status).into());
        }
        if let Some(tokens) =
            prompt_tokens(&std::fs::read_to_string(&answers)?)?.into_iter().find(|n| n + ANSWER != context)
        {
            return Err(format!("a prompt has {tokens} tokens and does not fill a context of {context}").into());
        }
        let peak = ended.peak_bytes.ok_or("this system has no /proc to read the memory of a process from")?;
        let distance = (peak as f64 - need as f64) / need as f64;
        proof.figure(
            format!("8g: {slots} full contexts of {context}"),
            format!("{} planned, {} taken ({:+.1} %)", repo::bytes(need), repo::bytes(peak), 100.0 * distance),
            format!("within {:.0} %", 100.0 * TOLERANCE),
            distance.abs() <= TOLERANCE,
        );
    }
    Ok(())
}

/// Prompts of so many control characters, which no merge of a tokenizer takes, each prompt in an order of its own.
fn lines(characters: usize, prompts: usize) -> String {
    let mut lines = String::new();
    for prompt in 0..prompts {
        let _ = write!(lines, "{{\"prompt\":\"");
        let mut state = prompt as u64 + 1;
        for _ in 0..characters {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let _ = write!(lines, "\\u{:04x}", 0x0e + (state >> 33) % 16);
        }
        lines.push_str("\"}\n");
    }
    lines
}

/// The tokens of each prompt, in the answers of `bitnet batch`.
fn prompt_tokens(answers: &str) -> Outcome<Vec<usize>> {
    let tokens = |line: &str| -> Outcome<usize> {
        let answer: serde_json::Value = serde_json::from_str(line)?;
        let tokens =
            answer["usage"]["prompt_tokens"].as_u64().ok_or_else(|| format!("an answer without usage: {line}"))?;
        Ok(usize::try_from(tokens)?)
    };
    answers.lines().map(tokens).collect()
}

/// The sum in the sentence with which `bitnet` refuses a limit of one byte.
fn refused_sum(binary: &Path, args: &[&str]) -> Outcome<u64> {
    let refused = Command::new(binary).args(args).stdin(Stdio::null()).output()?;
    let sentence = String::from_utf8_lossy(&refused.stderr).into_owned();
    let sum = sentence.split_once("needs ").and_then(|(_, rest)| rest.split_once(" bytes")?.0.parse().ok());
    sum.ok_or_else(|| format!("`bitnet batch --memory 1` names no sum: {sentence}").into())
}

#[cfg(test)]
mod tests {
    use super::{lines, prompt_tokens};

    #[test]
    fn prompts_differ_and_have_so_many_control_characters() {
        let lines = lines(5, 2);
        let prompts: Vec<String> = lines
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["prompt"].as_str().unwrap().to_owned())
            .collect();
        assert!(prompts.iter().all(|prompt| prompt.len() == 5 && prompt.chars().all(char::is_control)));
        assert_ne!(prompts[0], prompts[1]);
    }

    #[test]
    fn answers_tell_the_tokens_of_their_prompts() {
        let answers = "{\"usage\":{\"prompt_tokens\":56}}\n{\"usage\":{\"prompt_tokens\":57}}\n";
        assert_eq!(prompt_tokens(answers).unwrap(), [56, 57]);
        assert!(prompt_tokens("{\"error\":{}}").is_err());
    }
}
