//! `prove gates`: the gates on the mini teacher itself and on students of it.
//!
//! The teacher's figures on the small suite must equal the figures of transformers (`fixtures/craftsman-mini/FIGURES.md`);
//! threads, kills and resuming must change nothing but the part of the report that is about the run.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::proof::Proof;
use crate::bitnet::{self, arg};
use crate::outcome::Outcome;
use crate::repo;
use crate::report::{list, number};

/// The longest time for the small suite on two cores, teacher and student together.
const WALL: Duration = Duration::from_secs(180);
const KILLS: u32 = 3;

/// One run of `bitnet eval-gates`.
struct Gates {
    wall: Duration,
    /// The report's text up to the part about the run.
    fixed: String,
    report: Value,
}

pub(super) fn prove(proof: &mut Proof<'_>, binary: &Path) -> Outcome {
    proof.need_disk(3_000_000_000)?;
    let teacher = repo::root().join("fixtures/craftsman-mini");
    let teacher = arg(&teacher)?;
    let whole = gates(proof, binary, [teacher, teacher], "suite-200", "whole", &["--perturb", "0.1"])?;
    itself(proof, &whole)?;
    let figure = format!("{:.1} s, {:.3} s per prompt of the student", whole.wall.as_secs_f64(), seconds(&whole)?);
    proof.figure("suite-200 with 10 % perturbation, teacher and student", figure, "under 180 s", whole.wall < WALL);
    let single =
        gates(proof, binary, [teacher, teacher], "suite-200", "single", &["--perturb", "0.1", "--threads", "1"])?;
    same(proof, "report with one thread", &whole, &single);
    killed(proof, binary, teacher, &whole)?;
    let large = gates(proof, binary, [teacher, teacher], "suite-1200", "large", &[])?;
    let routing = number(&large.report, "routing.agreement.value")?;
    let figure = format!("{:.1} s, {:.3} s per prompt of the student", large.wall.as_secs_f64(), seconds(&large)?);
    proof.figure("suite-1200, teacher against itself", figure, "routing exactly 1", routing == 1.0);
    for (name, more) in [("absmean", ["--method", "absmean"]), ("balanced", ["--method", "ls"])] {
        let student = proof.work.join(format!("{name}.gguf"));
        let quantize = ["quantize", "--model", teacher, "--out", arg(&student)?, "--preset", "balanced"];
        bitnet::output(binary, &[&quantize[..], &more].concat())?;
        measured(proof, binary, [teacher, arg(&student)?], name)?;
    }
    Ok(())
}

/// Compares the teacher's figures with the figures of transformers.
fn itself(proof: &mut Proof<'_>, whole: &Gates) -> Outcome {
    let routing = number(&whole.report, "routing.agreement.value")?;
    proof.figure("routing of the teacher against itself", routing.to_string(), "1", routing == 1.0);
    let figures = std::fs::read_to_string(repo::root().join("fixtures/craftsman-mini/FIGURES.md"))?;
    for (gate, words) in [
        ("citation_precision", "citation precision by the validity rule"),
        ("citation_recall", "citation recall on resolved prompts"),
        ("refusal_f1", "refusal F1 over resolved and indeterminate prompts"),
        ("must_refuse", "must-refuse"),
        ("must_answer", "must-answer"),
    ] {
        let want = published(&figures, words).ok_or_else(|| format!("FIGURES.md does not state `{words}`"))?;
        let got = gate_value(&whole.report, gate)?;
        let figure = format!("{got:.4}");
        proof.figure(format!("{gate} of the teacher"), figure, format!("{want:.4}"), (got - want).abs() < 5e-5);
    }
    let verdict = whole.report["verdict"].as_str().unwrap_or_default();
    let misses = whole.report["summary"][0].as_str().unwrap_or_default().starts_with("The teacher itself misses");
    let figure = format!("{verdict}, {}", if misses { "opens with what the teacher misses" } else { "no gate missed" });
    let wanted = "SHIP, or a report that opens with what the teacher misses";
    proof.figure("the teacher against itself", figure, wanted, (verdict == "SHIP") != misses);
    Ok(())
}

/// Kills the run a few times, the teacher's part included, and lets it end.
fn killed(proof: &mut Proof<'_>, binary: &Path, teacher: &str, whole: &Gates) -> Outcome {
    let more = ["--perturb", "0.1"];
    let mut kills = 0;
    for _ in 0..KILLS {
        let mut child = command(proof, binary, [teacher, teacher], "suite-200", "killed", &more)?.spawn()?;
        let start = Instant::now();
        while start.elapsed() < whole.wall.mul_f64(0.22) && child.try_wait()?.is_none() {
            std::thread::sleep(Duration::from_millis(20));
        }
        if child.try_wait()?.is_none() {
            child.kill()?;
            kills += 1;
        }
        child.wait()?;
    }
    proof.figure("kills before the end", kills.to_string(), KILLS.to_string(), kills == KILLS);
    let resumed = gates(proof, binary, [teacher, teacher], "suite-200", "killed", &more)?;
    same(proof, "report after kills", whole, &resumed);
    Ok(())
}

/// The figures of a student, which pass whatever they are, and its stamp.
fn measured(proof: &mut Proof<'_>, binary: &Path, models: [&str; 2], name: &str) -> Outcome {
    let identity = |student: &str| -> Outcome<String> {
        let json = bitnet::json(binary, &["verify", student, "--json"])?;
        Ok(json["identity"].as_str().unwrap_or_default().to_owned())
    };
    let before = identity(models[1])?;
    // The recordings of the first run are used again.
    let run = gates(proof, binary, models, "suite-200", "whole", &["--stamp"])?;
    let verdict = run.report["verdict"].as_str().unwrap_or_default().to_owned();
    let failures = list(&run.report, "failures");
    let named = verdict == "SHIP" || failures.iter().all(|failure| !list(failure, "worst_prompts").is_empty());
    let layer = number(&run.report, "routing.worst_layer")?;
    let gates =
        ["routing_agreement", "citation_precision", "citation_recall", "refusal_f1", "must_refuse", "must_answer"];
    let figures: Result<Vec<String>, _> =
        gates.iter().map(|gate| gate_value(&run.report, gate).map(|value| format!("{gate} {value:.4}"))).collect();
    let figure = format!("{verdict}, worst layer {layer}: {}", figures?.join(", "));
    proof.figure(format!("student {name} on suite-200"), figure, "which gate and where, whatever the verdict", named);
    let shown = bitnet::json(binary, &["inspect", models[1], "--json"])?;
    let stamped = shown["gates"]["verdict"] == verdict;
    let same = identity(models[1])? == before;
    let figure = format!(
        "stamp {}, identity {}",
        if stamped { "shown" } else { "missing" },
        if same { "kept" } else { "changed" }
    );
    proof.figure(format!("stamp of {name}"), figure, "stamp shown, identity kept", stamped && same);
    Ok(())
}

fn same(proof: &mut Proof<'_>, what: &str, whole: &Gates, other: &Gates) {
    let equal = whole.fixed == other.fixed;
    let figure = if equal { "every byte but the part about the run" } else { "differs" };
    proof.figure(what, figure, "equal", equal);
}

/// The command in a folder of its own, with recordings and report there.
fn command(
    proof: &Proof<'_>,
    binary: &Path,
    [teacher, student]: [&str; 2],
    suite: &str,
    folder: &str,
    more: &[&str],
) -> Outcome<Command> {
    let folder = proof.work.join(folder);
    std::fs::create_dir_all(&folder)?;
    let suites = repo::root().join("fixtures/suites");
    let (prompts, corpus) = (suites.join(format!("{suite}.jsonl")), suites.join(format!("{suite}.corpus.jsonl")));
    let mut command = Command::new(binary);
    command.args(["eval-gates", "--teacher", teacher, "--student", student, "--report", "report"]);
    command.args(["--suite", arg(&prompts)?, "--corpus", arg(&corpus)?]).args(more);
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

fn gates(
    proof: &Proof<'_>,
    binary: &Path,
    models: [&str; 2],
    suite: &str,
    folder: &str,
    more: &[&str],
) -> Outcome<Gates> {
    let start = Instant::now();
    let status = command(proof, binary, models, suite, folder, more)?.stderr(Stdio::inherit()).status()?;
    if !matches!(status.code(), Some(0 | 3)) {
        return Err(format!("`bitnet eval-gates` on {suite} ended with {status}").into());
    }
    let wall = start.elapsed();
    let text = std::fs::read_to_string(proof.work.join(folder).join("report/report.json"))?;
    let fixed = text.split_once("\n  \"run\": {").map(|(fixed, _)| fixed.to_owned());
    let fixed = fixed.ok_or("the report has no part about the run")?;
    Ok(Gates { wall, fixed, report: serde_json::from_str(&text)? })
}

fn seconds(gates: &Gates) -> Outcome<f64> {
    Ok(number(&gates.report, "run.seconds_per_prompt")?)
}

/// The figure of a gate of the student.
fn gate_value(report: &Value, gate: &str) -> Outcome<f64> {
    let result = list(report, "student.gates").iter().find(|result| result["gate"] == gate);
    // Without citations there is no precision; it counts as 0.
    result.map(|r| r["figure"]["value"].as_f64().unwrap_or(0.0)).ok_or_else(|| format!("no gate {gate}").into())
}

/// The number after these words in the text.
fn published(figures: &str, words: &str) -> Option<f64> {
    let rest = figures.split_once(words)?.1.trim_start();
    rest.split([' ', ',', ';', ')', '(']).next()?.trim_end_matches('.').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::published;

    #[test]
    fn figures_are_found_after_their_words() {
        let text = "must-answer 0.825 (66 of 80), must-refuse 1.0 (60 of 60). (F1 only: 0.8955; rest)";
        assert_eq!(published(text, "must-answer"), Some(0.825));
        assert_eq!(published(text, "must-refuse"), Some(1.0));
        assert_eq!(published(text, "F1 only:"), Some(0.8955));
        assert_eq!(published(text, "recall"), None);
    }
}
