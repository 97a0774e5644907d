//! `cargo xtask pipeline`: one trained model through every stage that exists, and a report of each.
//!
//! The input is the mini teacher of `fixtures/`. The report opens with SHIP or NO-SHIP, the verdict of the gates. The exit
//! code says whether every stage ran, not how good the student is; with `--require-ship` it is 3 when the student does
//! not ship.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::outcome::{EndedWith, Outcome};
use crate::report::{list, number, text};
use crate::{bitnet, repo};

/// Random kicks per block of a calibrated student: few, so that the stage takes seconds.
const KICKS: &str = "5";

/// Tokens to calibrate on: few, for the same reason.
const CALIBRATION_TOKENS: u32 = 16_384;

/// How much to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The cargo profile that `bitnet` is built with.
    #[arg(long, default_value = "release")]
    profile: String,
    /// The preset of tensor types that the student is quantized with.
    #[arg(long, default_value = "balanced")]
    preset: String,
    /// How trits and scales are chosen: `gptq` (on the calibration texts of `fixtures/`), `ls` (least squares) or `absmean`.
    #[arg(long, default_value = "gptq")]
    method: String,
    /// Most tokens to calibrate on with `gptq`: more take longer and make a better student [default: 16384].
    #[arg(long)]
    calibration_tokens: Option<u32>,
    /// Windows of 256 tokens of held-out text to measure on; the text has 250.
    #[arg(long, default_value_t = 50)]
    windows: u32,
    /// End with exit code 3 unless the student passes every gate.
    #[arg(long)]
    require_ship: bool,
    /// Use this binary instead of building one.
    #[arg(long)]
    bitnet: Option<PathBuf>,
    /// The folder for all files; they stay there.
    #[arg(long)]
    work: Option<PathBuf>,
}

/// A stage that ended: its title, its duration and the lines it adds to the report.
struct Stage {
    title: &'static str,
    seconds: f64,
    lines: Vec<String>,
}

struct Pipeline {
    bitnet: PathBuf,
    /// Where the stages run and leave their files.
    work: PathBuf,
    stages: Vec<Stage>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    if args.calibration_tokens.is_some() && args.method != "gptq" {
        return Err("--calibration-tokens needs --method gptq".into());
    }
    let fixtures = repo::root().join("fixtures");
    let work = args.work.clone().unwrap_or_else(|| repo::root().join("target/pipeline"));
    let work = std::path::absolute(work)?;
    std::fs::create_dir_all(&work)?;
    let teacher = path(fixtures.join("craftsman-mini"))?;
    let student = path(work.join("student.gguf"))?;
    let text = path(fixtures.join("texts/heldout.txt"))?;
    let windows = args.windows.to_string();
    let (system, user) = question(&fixtures)?;
    let bitnet = bitnet::binary(args.bitnet.as_deref(), &args.profile)?;
    let mut line = Pipeline { bitnet, work: work.clone(), stages: Vec::new() };

    let settings = ["--preset", &args.preset, "--method", &args.method, "--force", "--json"];
    let [prose, chats] =
        ["texts/calibration.txt", "texts/calibration-chat.jsonl"].map(|name| path(fixtures.join(name)));
    let (prose, chats, tokens) = (prose?, chats?, args.calibration_tokens.unwrap_or(CALIBRATION_TOKENS).to_string());
    let calibration = ["--calibration", &prose, "--calibration", &chats, "--exclude", &text];
    let effort = ["--calibration-tokens", &tokens, "--kicks", KICKS];
    let calibrated = if args.method == "gptq" { [&calibration[..], &effort].concat() } else { Vec::new() };
    line.stage(
        "quantize: the teacher becomes a ternary student",
        &[&["quantize", "--model", &teacher, "--out", &student][..], &settings, &calibrated].concat(),
        &quantized,
    )?;
    line.stage("verify: every byte of the file is read", &["verify", &student, "--json"], &verified)?;
    line.stage(
        "fidelity: the student's predictions against the teacher's on held-out text",
        &[
            &["eval", "fidelity", "--teacher", &teacher, "--student", &student, "--text", &text][..],
            &["--windows", &windows, "--json"],
        ]
        .concat(),
        &fidelity,
    )?;
    let verdict = line.gates(&fixtures, &teacher, &student)?;
    for (title, model) in [("answer of the teacher", &teacher), ("answer of the student", &student)] {
        line.stage(
            title,
            &["run", "--model", model, "--system", &system, "-p", &user, "--think", "off", "--temp", "0", "-n", "64"],
            &answered,
        )?;
    }
    line.report(&verdict, &user);
    if args.require_ship && !verdict.starts_with("SHIP") { Err(EndedWith(3).into()) } else { Ok(()) }
}

/// Turns a stage's standard output into the lines of the report.
type Show<'a> = &'a dyn Fn(&str) -> Result<Vec<String>, String>;

impl Pipeline {
    fn stage(&mut self, title: &'static str, args: &[&str], show: Show<'_>) -> Outcome {
        self.stage_ending(title, args, &[0], show)
    }

    /// A stage that may end with any of these exit codes.
    fn stage_ending(&mut self, title: &'static str, args: &[&str], codes: &[i32], show: Show<'_>) -> Outcome {
        repo::complain(&format!("==> {title}"));
        let start = Instant::now();
        let done = Command::new(&self.bitnet).args(args).current_dir(&self.work).stdin(Stdio::null()).output()?;
        if !done.status.code().is_some_and(|code| codes.contains(&code)) {
            let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            return Err(format!("{title}: `bitnet {}` ended with {}: {said}", args.join(" "), done.status).into());
        }
        let lines = show(&String::from_utf8_lossy(&done.stdout)).map_err(|e| format!("{title}: {e}"))?;
        self.stages.push(Stage { title, seconds: start.elapsed().as_secs_f64(), lines });
        Ok(())
    }

    /// The gates over the small suite; returns the verdict with its sentences. Recordings of the teacher from an earlier
    /// run are removed first, because an older program may have made them.
    fn gates(&mut self, fixtures: &Path, teacher: &str, student: &str) -> Outcome<String> {
        let artifacts = self.work.join("artifacts");
        if artifacts.exists() {
            std::fs::remove_dir_all(&artifacts)?;
        }
        let suite = path(fixtures.join("suites/suite-200.jsonl"))?;
        let corpus = path(fixtures.join("suites/suite-200.corpus.jsonl"))?;
        let (artifacts, report) = (path(artifacts)?, path(self.work.join("gates"))?);
        let models = ["eval-gates", "--teacher", teacher, "--student", student];
        let files = ["--suite", &suite, "--corpus", &corpus, "--artifacts", &artifacts, "--report", &report, "--json"];
        let title = "gates: may the student be called ready?";
        self.stage_ending(title, &[&models[..], &files].concat(), &[0, 3], &gated)?;
        let verdict = self.stages.last().and_then(|stage| stage.lines.first()).cloned();
        Ok(verdict.unwrap_or_default())
    }

    fn report(&self, verdict: &str, question: &str) {
        repo::say("");
        repo::say(verdict);
        repo::say("");
        repo::say("The mini teacher through the pipeline");
        repo::say("=====================================");
        for (n, stage) in self.stages.iter().enumerate() {
            repo::say(&format!("\n{}. {} ({:.1} s)", n + 1, stage.title, stage.seconds));
            for line in &stage.lines {
                repo::say(&format!("     {line}"));
            }
        }
        let asked = question.lines().next_back().unwrap_or_default();
        repo::say(&format!("\nThe question was: {asked}"));
        let html = self.work.join("gates/report.html");
        repo::say(&format!("Every stage ran. The gates in full: {}", html.display()));
        repo::say("Refinement is not part of it yet; see docs/exit-criteria.md.");
    }
}

fn answered(said: &str) -> Result<Vec<String>, String> {
    Ok(said.trim().lines().map(str::to_owned).collect())
}

fn quantized(said: &str) -> Result<Vec<String>, String> {
    let json = parsed(said)?;
    let mut lines = vec![
        row("weights", &count(&json, "report.params")?),
        row("size", &size(&json, "report.output_bytes")?),
        row("memory stated before the start", &size(&json, "memory_bound_bytes")?),
        row("memory used at most", &size(&json, "peak_rss_bytes").unwrap_or_else(|_| "unknown here".to_owned())),
        format!(
            "{:<16} {:<8} {:>7} {:>12} {:>14} {:>8}",
            "class", "type", "tensors", "size", "relative error", "cosine"
        ),
    ];
    for entry in list(&json, "report.types") {
        lines.push(format!(
            "{:<16} {:<8} {:>7} {:>12} {:>14} {:>8}",
            text(entry, "class")?,
            text(entry, "type")?,
            count(entry, "tensors")?,
            size(entry, "bytes")?,
            significant(number(entry, "relative_mse")?),
            significant(number(entry, "cosine")?),
        ));
    }
    Ok(lines)
}

fn verified(said: &str) -> Result<Vec<String>, String> {
    let json = parsed(said)?;
    let types: Result<Vec<String>, String> =
        list(&json, "types").iter().map(|t| Ok(format!("{} x {}", count(t, "tensors")?, text(t, "type")?))).collect();
    Ok(vec![
        row("identity (BLAKE3)", text(&json, "identity")?),
        row("tensors", &types?.join(", ")),
        row("data read", &size(&json, "bytes")?),
        row("defects", &list(&json, "defects").len().to_string()),
    ])
}

fn fidelity(said: &str) -> Result<Vec<String>, String> {
    let json = parsed(said)?;
    let figure = |path: &str| number(&json, path).map(significant);
    let with_error = |path: &str| -> Result<String, String> {
        Ok(format!("{} +- {}", figure(&format!("{path}.value"))?, figure(&format!("{path}.standard_error"))?))
    };
    Ok(vec![
        row("predictions scored", &count(&json, "predictions")?),
        row("perplexity of the teacher", &with_error("teacher.perplexity")?),
        row("perplexity of the student", &with_error("student.perplexity")?),
        row("ln of their ratio", &with_error("ln_ratio")?),
        row("KL divergence, mean", &with_error("kl.mean")?),
        row("KL divergence, median", &figure("kl.median")?),
        row("same most likely token", &format!("{:.1} %", 100.0 * number(&json, "same_top1.value")?)),
    ])
}

/// The verdict with its sentences on the first line, then a line per gate.
fn gated(said: &str) -> Result<Vec<String>, String> {
    let json = parsed(said)?;
    let sentences: Vec<&str> = list(&json, "summary").iter().filter_map(Value::as_str).collect();
    let mut lines = vec![format!("{}: {}", text(&json, "verdict")?, sentences.join(" "))];
    for result in list(&json, "student.gates") {
        let name = text(result, "gate")?;
        let of_teacher = list(&json, "teacher.gates").iter().find(|r| r["gate"] == result["gate"]);
        let figure = |r: &Value| number(r, "figure.value").map_or_else(|_| "none".to_owned(), |x| format!("{x:.4}"));
        lines.push(format!(
            "{name:<20} {:<8} student {}   demanded {}   teacher {}",
            text(result, "outcome")?,
            figure(result),
            number(result, "threshold")?,
            of_teacher.map_or_else(|| "is the reference".to_owned(), figure),
        ));
    }
    lines.push(row("seconds per prompt", &significant(number(&json, "run.seconds_per_prompt")?)));
    Ok(lines)
}

fn row(name: &str, value: &str) -> String {
    format!("{name:<32} {value}")
}

fn parsed(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

fn count(json: &Value, path: &str) -> Result<String, String> {
    number(json, path).map(|n| n.to_string())
}

fn size(json: &Value, path: &str) -> Result<String, String> {
    number(json, path).map(|n| repo::bytes(n as u64))
}

/// A number with five significant digits.
fn significant(n: f64) -> String {
    if n == 0.0 {
        return "0".to_owned();
    }
    let digits = (4.0 - n.abs().log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{n:.digits$}")
}

/// System and user text of the first prompt of the small suite whose answer is known.
fn question(fixtures: &Path) -> Outcome<(String, String)> {
    let suite = std::fs::read_to_string(fixtures.join("suites/suite-200.jsonl"))?;
    for line in suite.lines() {
        let prompt: Value = serde_json::from_str(line)?;
        let field = |key: &str| prompt[key].as_str().unwrap_or_default().to_owned();
        if field("label") == "resolved" {
            return Ok((field("system"), field("user")));
        }
    }
    Err("suite-200.jsonl holds no resolved prompt".into())
}

fn path(path: PathBuf) -> Outcome<String> {
    path.into_os_string().into_string().map_err(|path| format!("{} is not UTF-8", path.display()).into())
}

#[cfg(test)]
mod tests {
    use super::{fidelity, gated, quantized, question, significant, verified};
    use crate::repo;

    #[test]
    fn a_report_without_its_figures_is_an_error() {
        assert!(fidelity(r#"{"predictions": 1}"#).is_err());
        assert!(quantized("no JSON").is_err());
        assert!(gated(r#"{"summary": []}"#).is_err());
    }

    #[test]
    fn gates_open_with_the_verdict() {
        let gates = r#"{"verdict": "NO-SHIP", "summary": ["A.", "B."], "run": {"seconds_per_prompt": 0.1},
            "student": {"gates": [{"gate": "must_answer", "outcome": "fail", "threshold": 0.95, "figure": {"value": 0.5}},
                                  {"gate": "routing_agreement", "outcome": "pass", "threshold": 0.85, "figure": null}]},
            "teacher": {"gates": [{"gate": "must_answer", "outcome": "pass", "threshold": 0.95, "figure": {"value": 1}}]}}"#;
        let lines = gated(gates).expect("complete");
        assert_eq!(lines[0], "NO-SHIP: A. B.");
        assert!(lines[1].contains("student 0.5000   demanded 0.95   teacher 1.0000"), "{lines:?}");
        assert!(lines[2].contains("student none") && lines[2].ends_with("is the reference"), "{lines:?}");
    }

    #[test]
    fn a_verification_reads_as_four_lines() {
        let text = r#"{"identity": "ab", "types": [{"type": "F32", "tensors": 2}], "bytes": 8, "defects": []}"#;
        let lines = verified(text).expect("complete");
        assert_eq!(lines.len(), 4);
        assert!(lines[1].ends_with("2 x F32"), "{lines:?}");
    }

    #[test]
    fn numbers_keep_five_digits() {
        assert_eq!(significant(10.659_234), "10.659");
        assert_eq!(significant(0.0), "0");
        assert_eq!(significant(0.000_123_456), "0.00012346");
    }

    #[test]
    fn the_suite_holds_a_question_with_an_answer() {
        let (system, user) = question(&repo::root().join("fixtures")).expect("there");
        assert!(!system.is_empty() && user.contains("Question: "));
    }
}
