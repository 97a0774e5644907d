//! `cargo xtask pipeline`: one real model through every stage that exists, and a report a person can read.
//!
//! The input is the mini teacher of `fixtures/`. The exit code says whether every stage ran, not how good the student
//! is: the quality is in the report, as measured.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::json::Json;
use crate::{Outcome, repo};

/// How much to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The cargo profile that `bitnet` is built with.
    #[arg(long, default_value = "release")]
    profile: String,
    /// The student's preset.
    #[arg(long, default_value = "balanced")]
    preset: String,
    /// How it is rounded.
    #[arg(long, default_value = "ls")]
    method: String,
    /// Kilobytes of held-out text to measure on; 0 is all of it.
    #[arg(long, default_value_t = 48)]
    text_kb: usize,
    /// Where the files go; they stay for a look.
    #[arg(long)]
    work: Option<PathBuf>,
}

/// One stage: what it was, how long it took, what came out.
struct Stage {
    title: &'static str,
    seconds: f64,
    lines: Vec<String>,
}

struct Pipeline {
    bitnet: PathBuf,
    stages: Vec<Stage>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let fixtures = repo::root().join("fixtures");
    let work = args.work.clone().unwrap_or_else(|| repo::root().join("target/pipeline"));
    std::fs::create_dir_all(&work)?;
    let teacher = path(fixtures.join("craftsman-mini"))?;
    let student = path(work.join("student.gguf"))?;
    let text = path(held_out(&fixtures, &work, args.text_kb)?)?;
    let (system, user) = question(&fixtures)?;
    let mut line = Pipeline { bitnet: repo::build_bitnet(&args.profile)?, stages: Vec::new() };

    let settings = ["--preset", &args.preset, "--method", &args.method, "--force", "--json"];
    line.stage(
        "quantize: the teacher becomes a ternary student",
        &[&["quantize", "--model", &teacher, "--out", &student][..], &settings].concat(),
        Show::Json,
    )?;
    line.note(format!(
        "{} -> {}",
        repo::bytes(folder_bytes(Path::new(&teacher))?),
        repo::bytes(std::fs::metadata(&student)?.len())
    ));
    line.stage("verify: every byte of the file is read", &["verify", &student, "--json"], Show::Json)?;
    line.stage(
        "fidelity: the student's predictions against the teacher's on held-out text",
        &["eval", "fidelity", "--teacher", &teacher, "--student", &student, "--text", &text, "--json"],
        Show::Json,
    )?;
    for (title, model) in [("answer of the teacher", &teacher), ("answer of the student", &student)] {
        line.stage(
            title,
            &["run", "--model", model, "--system", &system, "-p", &user, "--think", "off", "--temp", "0", "-n", "64"],
            Show::Text,
        )?;
    }
    line.report(&user);
    Ok(())
}

/// How a stage's standard output enters the report.
enum Show {
    Text,
    Json,
}

impl Pipeline {
    fn stage(&mut self, title: &'static str, args: &[&str], show: Show) -> Outcome {
        repo::complain(&format!("==> {title}"));
        let start = Instant::now();
        let done = Command::new(&self.bitnet).args(args).stdin(Stdio::null()).output()?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            return Err(format!("{title}: `bitnet {}` ended with {}: {said}", args.join(" "), done.status).into());
        }
        let text = String::from_utf8_lossy(&done.stdout);
        let lines = match show {
            Show::Text => text.trim().lines().map(str::to_owned).collect(),
            Show::Json => scalars(&Json::parse(&text).map_err(|e| format!("{title}: {e}"))?),
        };
        self.stages.push(Stage { title, seconds: start.elapsed().as_secs_f64(), lines });
        Ok(())
    }

    fn note(&mut self, text: String) {
        if let Some(stage) = self.stages.last_mut() {
            stage.lines.insert(0, text);
        }
    }

    fn report(&self, question: &str) {
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
        repo::say("Every stage ran. Refinement and gates are not part of it yet; see docs/exit-criteria.md.");
    }
}

/// The scalar members of a report as `name  value` lines, one level of nesting deep.
fn scalars(json: &Json) -> Vec<String> {
    let mut rows = Vec::new();
    let Json::Object(members) = json else { return rows };
    for (key, value) in members {
        match value {
            Json::Object(inner) => rows.extend(inner.iter().filter_map(|(k, v)| row(&format!("{key}.{k}"), v))),
            other => rows.extend(row(key, other)),
        }
    }
    rows
}

fn row(name: &str, value: &Json) -> Option<String> {
    let text = match value {
        Json::List(_) | Json::Object(_) | Json::Null => return None,
        Json::Number(n) if n.fract() != 0.0 => significant(*n),
        other => other.to_string(),
    };
    Some(format!("{name:<34} {text}"))
}

/// Five significant digits.
fn significant(n: f64) -> String {
    let digits = (4.0 - n.abs().log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{n:.digits$}")
}

/// The first kilobytes of the held-out text as a file of their own, cut at a line.
fn held_out(fixtures: &Path, work: &Path, kilobytes: usize) -> Outcome<PathBuf> {
    let whole = fixtures.join("texts/heldout.txt");
    if kilobytes == 0 {
        return Ok(whole);
    }
    let text = std::fs::read_to_string(whole)?;
    let mut cut = (kilobytes * 1000).min(text.len());
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    let end = text[..cut].rfind('\n').map_or(cut, |n| n + 1);
    let part = work.join("heldout-part.txt");
    std::fs::write(&part, &text[..end])?;
    Ok(part)
}

/// System and user text of the first prompt of the small suite whose answer is known.
fn question(fixtures: &Path) -> Outcome<(String, String)> {
    let suite = std::fs::read_to_string(fixtures.join("suites/suite-200.jsonl"))?;
    for line in suite.lines() {
        let prompt = Json::parse(line)?;
        let field = |key: &str| prompt.member(key).and_then(Json::text).unwrap_or_default().to_owned();
        if field("label") == "resolved" {
            return Ok((field("system"), field("user")));
        }
    }
    Err("suite-200.jsonl holds no resolved prompt".into())
}

fn folder_bytes(dir: &Path) -> Outcome<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|e| e == "safetensors") {
            total += entry.metadata()?.len();
        }
    }
    Ok(total)
}

fn path(path: PathBuf) -> Outcome<String> {
    path.into_os_string().into_string().map_err(|path| format!("{} is not UTF-8", path.display()).into())
}

#[cfg(test)]
mod tests {
    use super::{question, scalars, significant};
    use crate::json::Json;
    use crate::repo;

    #[test]
    fn reports_show_scalars_and_leave_out_lists() {
        let json = Json::parse(r#"{"a": 1, "b": {"c": 0.123456, "d": [1]}, "e": [1, 2], "f": "x"}"#).expect("valid");
        let rows = scalars(&json);
        assert_eq!(rows.len(), 3, "{rows:?}");
        assert!(rows[1].starts_with("b.c") && rows[1].ends_with("0.12346"));
    }

    #[test]
    fn numbers_keep_five_digits() {
        assert_eq!(significant(10.659_234), "10.659");
        assert_eq!(significant(0.000_123_456), "0.00012346");
    }

    #[test]
    fn the_suite_holds_a_question_with_an_answer() {
        let (system, user) = question(&repo::root().join("fixtures")).expect("there");
        assert!(!system.is_empty() && user.contains("Question: "));
    }
}
