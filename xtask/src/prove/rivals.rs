//! `prove rivals DIR`: what a user would pick instead, scored by `bitnet eval fidelity`.
//!
//! DIR holds `llama-quantize` and `llama-imatrix` of llama.cpp. They quantise the routed experts of the mini teacher to IQ2_XXS,
//! IQ1_M and Q2_K with an importance matrix, and all else to Q8_0. `bitnet quantize` makes ternary students that are Q8_0 in
//! the same places. Both sides calibrate on the texts of `fixtures/texts`, and one command measures all files on the held-out
//! text, with the BF16 checkpoint as the teacher.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::proof::{Judged, Proof};
use crate::bitnet::{self, arg};
use crate::outcome::Outcome;
use crate::repo;
use crate::report::number;

const RIVALS: [&str; 3] = ["IQ2_XXS", "IQ1_M", "Q2_K"];
const METHODS: [&str; 2] = ["ls", "gptq"];
/// The matrices that the `quality` preset makes ternary beside the routed experts.
const EXCEPT: &str = r".*(shexp|blk\.0\.ffn).*=Q8_0";
/// Largest difference in size between the `gptq` student and the IQ2_XXS file, which has as many bits per weight.
const SIZE_TOLERANCE: f64 = 0.01;
/// Tokens per window of the importance matrix: the teacher was trained on this many positions.
const WINDOW: &str = "256";
/// Windows of each calibration text: 131,072 tokens of both, as many as `--method gptq` reads.
const WINDOWS: &str = "256";

pub(super) fn prove(proof: &mut Proof<'_>, binary: impl FnOnce() -> Outcome<PathBuf>) -> Outcome<Judged> {
    let Some(programs) = proof.options.folder.clone() else {
        repo::say("SKIP rivals: name a folder with llama-quantize and llama-imatrix: cargo xtask prove rivals DIR");
        return Ok(Judged::Skipped);
    };
    proof.need_disk(200_000_000)?;
    let fixtures = repo::root().join("fixtures");
    let (teacher, texts) = (fixtures.join("craftsman-mini"), fixtures.join("texts"));
    let run = Run { binary: binary()?, programs, work: proof.work.clone(), teacher, texts };
    let mut scores = run.rivals()?;
    scores.extend(run.students()?);
    for score in &scores {
        proof.figure(&score.name, score.to_string(), "read and measured", score.kl.is_finite());
    }
    repo::say(&table(&scores));
    let [iq2_xxs, iq1_m, _, ls, gptq] = &scores[..] else { return Err("a file was not measured".into()) };
    let larger = gptq.bytes as f64 / iq2_xxs.bytes as f64 - 1.0;
    let figure = format!("{:+.2} %", 100.0 * larger);
    proof.figure("bytes of gptq over those of IQ2_XXS", figure, "within 1 %", larger.abs() <= SIZE_TOLERANCE);
    for (name, other) in [("ls", ls), ("IQ1_M", iq1_m)] {
        let figure = format!("{:.4} against {:.4}", gptq.kl, other.kl);
        proof.figure(format!("mean KL of gptq against {name}"), figure, "below", gptq.kl < other.kl);
    }
    Ok(Judged::Measured)
}

/// The programs and folders of one run.
struct Run {
    binary: PathBuf,
    programs: PathBuf,
    work: PathBuf,
    teacher: PathBuf,
    texts: PathBuf,
}

impl Run {
    fn text(&self, name: &str) -> PathBuf {
        self.texts.join(name)
    }

    /// The files of llama.cpp, in the order of [`RIVALS`].
    fn rivals(&self) -> Outcome<Vec<Score>> {
        let dense = self.work.join("dense.gguf");
        let source = ["quantize", "--model", arg(&self.teacher)?, "--out", arg(&dense)?];
        bitnet::output(&self.binary, &[&source[..], &["--preset", "phase1", "--ternary", "none"]].concat())?;
        let matrix = self.matrix(&dense)?;
        let mut scores = Vec::new();
        for kind in RIVALS {
            let file = self.work.join(format!("{kind}.gguf"));
            let experts = format!("ffn_(gate|up|down)_exps={kind}");
            let options = ["--imatrix", arg(&matrix)?, "--tensor-type", &experts];
            self.llama("llama-quantize", &[&options[..], &[arg(&dense)?, arg(&file)?, "Q8_0"]].concat())?;
            scores.push(self.score(&format!("{kind} by llama.cpp"), &file)?);
        }
        Ok(scores)
    }

    /// The importance matrix of both calibration texts, half of the windows from each.
    fn matrix(&self, dense: &Path) -> Outcome<PathBuf> {
        let (text, chats) = (self.text("calibration.txt"), self.work.join("chats.txt"));
        std::fs::write(&chats, self.chats()?)?;
        let (half, whole) = (self.work.join("half.gguf"), self.work.join("imatrix.gguf"));
        let common = ["-m", arg(dense)?, "-c", WINDOW, "--chunks", WINDOWS, "--parse-special", "--no-ppl", "-t", "1"];
        self.llama("llama-imatrix", &[&common[..], &["-f", arg(&text)?, "-o", arg(&half)?]].concat())?;
        let files = ["--in-file", arg(&half)?, "-f", arg(&chats)?, "-o", arg(&whole)?];
        self.llama("llama-imatrix", &[&common[..], &files].concat())?;
        Ok(whole)
    }

    /// The students of `bitnet quantize`, in the order of [`METHODS`].
    fn students(&self) -> Outcome<Vec<Score>> {
        let texts = ["calibration.txt", "calibration-chat.jsonl", "heldout.txt"].map(|name| self.text(name));
        let mut scores = Vec::new();
        for method in METHODS {
            let file = self.work.join(format!("{method}.gguf"));
            let job = ["quantize", "--model", arg(&self.teacher)?, "--out", arg(&file)?, "--method", method];
            let types = ["--preset", "quality", "--tensor-type", EXCEPT];
            let [text, chat, heldout] = &texts;
            let reads = ["--calibration", arg(text)?, "--calibration", arg(chat)?, "--exclude", arg(heldout)?];
            let reads: &[&str] = if method == "gptq" { &reads } else { &[] };
            bitnet::output(&self.binary, &[&job[..], &types, reads].concat())?;
            scores.push(self.score(&format!("ternary by {method}"), &file)?);
        }
        Ok(scores)
    }

    /// The calibration conversations as the teacher's chat template renders them.
    fn chats(&self) -> Outcome<String> {
        let settings = std::fs::read_to_string(self.teacher.join("tokenizer_config.json"))?;
        let settings: Value = serde_json::from_str(&settings)?;
        let mut cases = String::new();
        for line in std::fs::read_to_string(self.text("calibration-chat.jsonl"))?.lines() {
            let conversation = serde_json::from_str(line)?;
            cases += &format!("{}\n", case(&settings["chat_template"], conversation));
        }
        let path = self.work.join("cases.jsonl");
        std::fs::write(&path, cases)?;
        let mut render = Command::new("cargo");
        render.args(["run", "--quiet", "--profile", "checked", "-p", "moe-runtime", "--example", "render_chat"]);
        let answers = succeed("render_chat", render.current_dir(repo::root()).stdin(std::fs::File::open(&path)?))?;
        let mut text = String::new();
        for answer in answers.lines() {
            let answer: Value = serde_json::from_str(answer)?;
            let rendered = answer["rendered"].as_str();
            text += rendered.ok_or_else(|| format!("the chat template refuses a conversation: {answer}"))?;
        }
        Ok(text)
    }

    fn llama(&self, program: &str, args: &[&str]) -> Outcome {
        let path = self.programs.join(format!("{program}{}", std::env::consts::EXE_SUFFIX));
        succeed(program, Command::new(path).args(args).stdin(Stdio::null())).map(drop)
    }

    fn score(&self, name: &str, file: &Path) -> Outcome<Score> {
        let text = self.text("heldout.txt");
        let models = ["eval", "fidelity", "--teacher", arg(&self.teacher)?, "--student", arg(file)?];
        let report = bitnet::json(&self.binary, &[&models[..], &["--text", arg(&text)?, "--json"]].concat())?;
        Ok(Score::new(name, std::fs::metadata(file)?.len(), &report)?)
    }
}

/// A conversation as `render_chat` reads it, answers included.
fn case(template: &Value, conversation: Value) -> Value {
    let mut input = conversation;
    input["add_generation_prompt"] = Value::Bool(false);
    json!({"template": template, "input": input})
}

/// Runs a program to its end and returns its standard output; on failure the error holds the end of its messages.
fn succeed(name: &str, command: &mut Command) -> Outcome<String> {
    let done = command.output().map_err(|e| format!("cannot start {name}: {e}"))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let messages = String::from_utf8_lossy(&done.stderr);
    let lines: Vec<&str> = messages.lines().collect();
    Err(format!("{name} ended with {}: {}", done.status, lines[lines.len().saturating_sub(5)..].join("\n")).into())
}

/// One file and how it follows the teacher.
struct Score {
    name: String,
    bytes: u64,
    kl: f64,
    error: f64,
    same_top1: f64,
    perplexity: f64,
}

impl Score {
    /// Reads the figures out of a report of `bitnet eval fidelity`.
    fn new(name: &str, bytes: u64, report: &Value) -> Result<Self, String> {
        let [kl, error, same_top1, perplexity] =
            ["kl.mean.value", "kl.mean.standard_error", "same_top1.value", "student.perplexity.value"]
                .map(|path| number(report, path));
        let name = name.to_owned();
        Ok(Self { name, bytes, kl: kl?, error: error?, same_top1: same_top1?, perplexity: perplexity? })
    }
}

impl std::fmt::Display for Score {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bytes, kl, error, perplexity, .. } = self;
        let same = 100.0 * self.same_top1;
        write!(f, "{bytes} bytes, mean KL {kl:.5} ± {error:.5}, same top-1 {same:.2} %, perplexity {perplexity:.3}")
    }
}

/// The scores as a Markdown table.
fn table(scores: &[Score]) -> String {
    let mut table =
        "| routed experts | bytes | mean KL divergence | same top-1 | perplexity |\n|---|---|---|---|---|".to_owned();
    for Score { name, bytes, kl, same_top1, perplexity, .. } in scores {
        table += &format!("\n| {name} | {bytes} | {kl:.4} | {:.1} % | {perplexity:.3} |", 100.0 * same_top1);
    }
    table
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use serde_json::json;

    use super::{Score, case, succeed, table};

    #[test]
    fn a_report_becomes_a_row_of_the_table() {
        let report = json!({
            "kl": {"mean": {"value": 0.02449, "standard_error": 0.0002}},
            "same_top1": {"value": 0.908},
            "student": {"perplexity": {"value": 9.3941}},
        });
        let score = Score::new("IQ2_XXS by llama.cpp", 6_625_792, &report).unwrap();
        assert!(table(&[score]).ends_with("\n| IQ2_XXS by llama.cpp | 6625792 | 0.0245 | 90.8 % | 9.394 |"));
        assert!(Score::new("x", 1, &json!({"kl": 1})).is_err_and(|e| e.contains("kl.mean.value")));
    }

    #[test]
    fn a_conversation_is_rendered_without_a_prompt_for_another_answer() {
        let got = case(&json!("{{ messages }}"), json!({"messages": [{"role": "user", "content": "a"}]}));
        assert_eq!(got["input"]["add_generation_prompt"], false);
        assert_eq!(got["input"]["messages"][0]["content"], "a");
        assert_eq!(got["template"], "{{ messages }}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = succeed("llama-imatrix", &mut Command::new("no-such-program-of-llama-cpp")).unwrap_err();
        assert!(error.to_string().contains("cannot start llama-imatrix"), "{error}");
    }
}
