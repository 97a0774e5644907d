//! The run of one proof: its options, its folder, its disk, its figures.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use xshell::cmd;

use crate::outcome::Outcome;
use crate::record::{Figure, Record};
use crate::repo;

/// Options that only some proofs read; each names its proofs.
#[derive(clap::Args)]
pub(super) struct Options {
    /// drafts: a folder that `fixtures/generators/train_mtp.py` made; embed: the checkpoint folder of all-MiniLM-L6-v2; templates:
    /// one of chat templates and tokenizer_config.json files; rivals: one with llama-quantize and llama-imatrix.
    #[arg(value_name = "DIR")]
    pub(super) folder: Option<PathBuf>,
    /// goldens: a folder of reference checkpoints instead of `fixtures/goldens`; page: a folder for screenshots.
    #[arg(long)]
    pub(super) dir: Option<PathBuf>,
    /// p95: the model that is served; without one the proof is skipped.
    #[arg(long)]
    pub(super) model: Option<PathBuf>,
    /// p95: tokens of the prompt that arrives.
    #[arg(long, default_value_t = 3000)]
    pub(super) prompt_tokens: usize,
    /// interop, ternary-forward, speed, real: a Python with the packages of `fixtures/interop/requirements.txt`; bindings, cluster,
    /// templates: one that makes virtual environments; embed: one with onnx, onnxruntime, safetensors and tokenizers, to compare speeds.
    #[arg(long, default_value = "python3")]
    pub(super) python: PathBuf,
    /// quantize: layers of the full-width checkpoint, 4 in the target.
    #[arg(long, default_value_t = 4)]
    pub(super) layers: u32,
    /// speed: only the file of this preset: phase2, balanced or 8g.
    #[arg(long)]
    pub(super) preset: Option<String>,
}

/// Whether a proof could measure.
pub(super) enum Judged {
    Measured,
    /// A SKIP line has said what was missing.
    Skipped,
}

/// A running proof: it measures, prints and counts figures.
pub(super) struct Proof<'a> {
    pub(super) options: &'a Options,
    /// An empty folder of its own.
    pub(super) work: PathBuf,
    record: Option<Record>,
    figures: usize,
    missed: usize,
}

impl<'a> Proof<'a> {
    pub(super) fn new(options: &'a Options, work: &Work, record: Option<Record>) -> Self {
        Self { options, work: work.folder.clone(), record, figures: 0, missed: 0 }
    }

    /// Prints the PASS or MISS line of a figure and records it at once, so that a proof that is cut off keeps its figures.
    pub(super) fn figure(
        &mut self,
        name: impl Into<String>,
        value: impl Into<String>,
        target: impl Into<String>,
        pass: bool,
    ) {
        let figure = Figure { name: name.into(), value: value.into(), target: target.into(), pass };
        let verdict = if pass { "PASS" } else { "MISS" };
        repo::say(&format!("{verdict} {}: {} (target: {})", figure.name, figure.value, figure.target));
        if let Some(Err(error)) = self.record.as_ref().map(|record| record.append(&figure)) {
            repo::complain(&format!("this figure could not be recorded: {error}"));
        }
        self.figures += 1;
        self.missed += usize::from(!pass);
    }

    /// Takes the figures that a script printed as `PASS name: value` or `MISS name: value`, and shows its SKIP lines.
    pub(super) fn take(&mut self, script: &str, status: ExitStatus, text: &str) {
        let (mut figures, mut missed, mut skipped) = (0, 0, 0);
        for line in text.lines() {
            if let Some((pass, name, value)) = stated(line) {
                self.figure(name, value, format!("see {script}"), pass);
                figures += 1;
                missed += usize::from(!pass);
            } else if line.starts_with("SKIP ") {
                repo::say(line);
                skipped += 1;
            }
        }
        if !ran_to_its_end(status.code(), figures + skipped, missed) {
            self.figure(script, format!("ended with {status} after {figures} figures"), "runs to its end", false);
        }
    }

    /// Fails unless the disk under the work folder has `bytes` to spare.
    pub(super) fn need_disk(&self, bytes: u64) -> Outcome {
        let sh = xshell::Shell::new()?;
        let work = &self.work;
        let table = cmd!(sh, "df -Pk {work}").quiet().read()?;
        let free =
            table.lines().nth(1).and_then(|row| row.split_whitespace().nth(3)).and_then(|kib| kib.parse::<u64>().ok());
        let free = free.ok_or("`df -Pk` did not say how much disk is free")?.saturating_mul(1024);
        if free >= bytes {
            return Ok(());
        }
        let (free, bytes, work) = (repo::bytes(free), repo::bytes(bytes), work.display());
        Err(format!("{work} has {free} free and this needs {bytes}: name a larger disk with --work").into())
    }

    /// Says where the figures are recorded; an error when one missed its target or none was measured.
    pub(super) fn judge(&self) -> Outcome {
        if let Some(record) = &self.record {
            record.say()?;
        }
        match self.missed {
            0 if self.figures == 0 => Err("the proof measured nothing".into()),
            0 => Ok(()),
            missed => Err(format!("{missed} of {} figures missed their target", self.figures).into()),
        }
    }
}

/// A line of a script that states a figure: whether it passed, its name and its value. A name holds no colon with a space
/// behind it, a value may.
fn stated(line: &str) -> Option<(bool, &str, &str)> {
    let (verdict, rest) = line.split_once(' ')?;
    let pass = match verdict {
        "PASS" => true,
        "MISS" => false,
        _ => return None,
    };
    rest.split_once(": ").map(|(name, value)| (pass, name, value))
}

/// Whether a script that ended with `code` has stated what it measures, in figures and SKIP lines. Code 1 says that a figure missed
/// its target; an exception of Python that nothing catches ends with 1 as well.
fn ran_to_its_end(code: Option<i32>, stated: usize, missed: usize) -> bool {
    match code {
        Some(0) => stated > 0,
        Some(1) => missed > 0,
        _ => false,
    }
}

/// A folder for one run, removed when this value goes out of scope, however the proof ends.
pub(super) struct Work {
    folder: PathBuf,
    keep: bool,
}

impl Work {
    /// An empty folder below `parent`, named after the proof and this process.
    pub(super) fn create(parent: &Path, name: &str, keep: bool) -> Outcome<Self> {
        let folder = parent.join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder, keep })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = std::fs::remove_dir_all(&self.folder)
        {
            repo::complain(&format!("could not remove {}: {error}", self.folder.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ran_to_its_end, stated};

    #[test]
    fn a_stated_figure_has_a_name_and_a_value() {
        let line = "PASS from Ctrl-C to the end, at most 50 ms: median 10.3 ms: of 5";
        assert_eq!(stated(line), Some((true, "from Ctrl-C to the end, at most 50 ms", "median 10.3 ms: of 5")));
        assert_eq!(stated("MISS a: 1"), Some((false, "a", "1")));
        assert_eq!(stated("a word: 1"), None);
        assert_eq!(stated("PASS without a value"), None);
    }

    #[test]
    fn an_exception_behind_the_first_figures_is_no_end() {
        assert!(ran_to_its_end(Some(0), 3, 0));
        assert!(ran_to_its_end(Some(1), 3, 1));
        assert!(!ran_to_its_end(Some(1), 3, 0));
        assert!(!ran_to_its_end(Some(0), 0, 0));
        assert!(!ran_to_its_end(Some(2), 3, 1));
        assert!(!ran_to_its_end(None, 3, 1));
    }
}
