//! `cargo xtask pipeline`: one trained model through every stage that exists, and a report of each.
//!
//! ```text
//! teacher ── quantize ──► student ── refine ──► refined student      each verified, measured on held-out text and by the gates
//! ```
//! The input is the mini teacher of `fixtures/`. The report opens with SHIP or NO-SHIP, the verdict of the gates about the refined
//! student, and a table of both students. The exit code says whether every stage ran, not how good the student is; with
//! `--require-ship` it is 3 when the refined student does not ship.

mod show;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::outcome::{EndedWith, Outcome};
use crate::{bitnet, repo};
use show::{Figures, answered, fidelity, gated, quantized, refined, verified};

/// Random kicks per block of a calibrated student: few, so that the stage takes seconds.
const KICKS: &str = "5";

/// The effort of the stages: few tokens, so that all take minutes, and fewer with `--quick`.
struct Effort {
    calibration_tokens: u32,
    refinement_tokens: u32,
    windows: u32,
}

const USUAL: Effort = Effort { calibration_tokens: 16_384, refinement_tokens: 65_536, windows: 50 };
const QUICK: Effort = Effort { calibration_tokens: 8_192, refinement_tokens: 12_288, windows: 20 };

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
    /// Fewer tokens and windows, for a check that every stage works.
    #[arg(long)]
    quick: bool,
    /// Most tokens to calibrate on with `gptq`: more take longer and make a better student [default: 16384, quick 8192].
    #[arg(long)]
    calibration_tokens: Option<u32>,
    /// Tokens to refine on [default: 65536, quick 12288].
    #[arg(long)]
    refinement_tokens: Option<u32>,
    /// Windows of 256 tokens of held-out text to measure on; the text has 250 [default: 50, quick 20].
    #[arg(long)]
    windows: Option<u32>,
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
    title: String,
    seconds: f64,
    lines: Vec<String>,
}

struct Pipeline {
    bitnet: PathBuf,
    /// Where the stages run and leave their files.
    work: PathBuf,
    fixtures: PathBuf,
    teacher: String,
    /// The text that students are measured on, and the number of its windows.
    held_out: String,
    windows: String,
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
    let [student, refined_student] = ["student.gguf", "refined.gguf"].map(|name| path(work.join(name)));
    let (student, refined_student) = (student?, refined_student?);
    let [held_out, prose, chats] = ["heldout.txt", "calibration.txt", "calibration-chat.jsonl"]
        .map(|name| path(fixtures.join("texts").join(name)));
    let (held_out, prose, chats) = (held_out?, prose?, chats?);
    let texts = ["--calibration", &prose, "--calibration", &chats, "--exclude", &held_out];
    let (system, user) = question(&fixtures)?;
    let effort = if args.quick { QUICK } else { USUAL };
    let calibration_tokens = args.calibration_tokens.unwrap_or(effort.calibration_tokens).to_string();
    let refinement_tokens = args.refinement_tokens.unwrap_or(effort.refinement_tokens).to_string();
    let bitnet = bitnet::binary(args.bitnet.as_deref(), &args.profile)?;
    let windows = args.windows.unwrap_or(effort.windows).to_string();
    let mut line = Pipeline {
        bitnet,
        work,
        fixtures,
        teacher: teacher.clone(),
        held_out: held_out.clone(),
        windows,
        stages: Vec::new(),
    };
    line.remove_recordings()?;

    let settings = ["--preset", &args.preset, "--method", &args.method, "--force", "--json"];
    let limits = ["--calibration-tokens", &calibration_tokens, "--kicks", KICKS];
    let calibrated = if args.method == "gptq" { [&texts[..], &limits].concat() } else { Vec::new() };
    line.stage(
        "quantize: the teacher becomes a ternary student",
        &[&["quantize", "--model", &teacher, "--out", &student][..], &settings, &calibrated].concat(),
        &quantized,
    )?;
    let (before, _) = line.measure(&student, "the calibrated student")?;
    line.stage(
        "refine: scales, norms and shared experts learn from the teacher, and the refined student is written",
        &[
            &["refine", "-m", &student, "--teacher", &teacher, "--out", &refined_student][..],
            &["--tokens", &refinement_tokens, "--log", "refine.jsonl", "--force", "--json"],
            &texts,
        ]
        .concat(),
        &refined,
    )?;
    let (after, verdict) = line.measure(&refined_student, "the refined student")?;
    for (title, model) in [("answer of the teacher", &teacher), ("answer of the refined student", &refined_student)] {
        line.stage(
            title,
            &["run", "--model", model, "--system", &system, "-p", &user, "--think", "off", "--temp", "0", "-n", "64"],
            &answered,
        )?;
    }
    line.report(&verdict, &Figures::table(&before, &after), &user);
    if args.require_ship && !verdict.starts_with("SHIP") { Err(EndedWith(3).into()) } else { Ok(()) }
}

/// Turns a stage's standard output into the lines of the report.
type Show<'a> = &'a dyn Fn(&str) -> Result<Vec<String>, String>;

impl Pipeline {
    /// Recordings of the teacher from an earlier run, which an older program may have made.
    fn remove_recordings(&self) -> Outcome {
        let artifacts = self.work.join("artifacts");
        if artifacts.exists() {
            std::fs::remove_dir_all(&artifacts)?;
        }
        Ok(())
    }

    fn stage(&mut self, title: &str, args: &[&str], show: Show<'_>) -> Outcome<String> {
        self.stage_ending(title, args, &[0], show)
    }

    /// A stage that may end with any of these exit codes; returns its standard output.
    fn stage_ending(&mut self, title: &str, args: &[&str], codes: &[i32], show: Show<'_>) -> Outcome<String> {
        repo::complain(&format!("==> {title}"));
        let start = Instant::now();
        let done = Command::new(&self.bitnet).args(args).current_dir(&self.work).stdin(Stdio::null()).output()?;
        if !done.status.code().is_some_and(|code| codes.contains(&code)) {
            let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            return Err(format!("{title}: `bitnet {}` ended with {}: {said}", args.join(" "), done.status).into());
        }
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        let lines = show(&said).map_err(|e| format!("{title}: {e}"))?;
        self.stages.push(Stage { title: title.to_owned(), seconds: start.elapsed().as_secs_f64(), lines });
        Ok(said)
    }

    /// Reads every byte of a student, compares its predictions with the teacher's and runs the gates over the small suite;
    /// returns its figures, and the verdict with its sentences.
    fn measure(&mut self, student: &str, name: &str) -> Outcome<(Figures, String)> {
        let (teacher, held_out, windows) = (self.teacher.clone(), self.held_out.clone(), self.windows.clone());
        self.stage(&format!("verify: every byte of {name} is read"), &["verify", student, "--json"], &verified)?;
        let fidelity = self.stage(
            &format!("fidelity: the predictions of {name} against the teacher's on held-out text"),
            &[
                &["eval", "fidelity", "--teacher", &teacher, "--student", student, "--text", &held_out][..],
                &["--windows", &windows, "--json"],
            ]
            .concat(),
            &fidelity,
        )?;
        let suite = path(self.fixtures.join("suites/suite-200.jsonl"))?;
        let corpus = path(self.fixtures.join("suites/suite-200.corpus.jsonl"))?;
        let (artifacts, report) = (path(self.work.join("artifacts"))?, path(self.reports(student))?);
        let models = ["eval-gates", "--teacher", &teacher, "--student", student];
        let files = ["--suite", &suite, "--corpus", &corpus, "--artifacts", &artifacts, "--report", &report, "--json"];
        let title = format!("gates: may {name} be called ready?");
        let gates = self.stage_ending(&title, &[&models[..], &files].concat(), &[0, 3], &gated)?;
        let verdict = self.stages.last().and_then(|stage| stage.lines.first()).cloned();
        Ok((Figures::new(&fidelity, &gates)?, verdict.unwrap_or_default()))
    }

    /// The folder of the gates' report about a student.
    fn reports(&self, student: &str) -> PathBuf {
        let stem = Path::new(student).file_stem().unwrap_or_default();
        self.work.join("gates").join(stem)
    }

    fn report(&self, verdict: &str, table: &[String], question: &str) {
        repo::say("");
        repo::say(verdict);
        repo::say("");
        table.iter().for_each(|line| repo::say(line));
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
        let html = self.reports("refined.gguf").join("report.html");
        repo::say(&format!("Every stage ran. The gates in full: {}", html.display()));
    }
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
    use super::question;
    use crate::repo;

    #[test]
    fn the_suite_holds_a_question_with_an_answer() {
        let (system, user) = question(&repo::root().join("fixtures")).expect("there");
        assert!(!system.is_empty() && user.contains("Question: "));
    }
}
