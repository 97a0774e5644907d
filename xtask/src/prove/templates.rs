//! `prove templates DIR`: every chat template of a folder, rendered here and by Jinja2 as transformers sets it up.
//!
//! `fixtures/generators/render_templates.py` renders ten conversations with each template, in a virtual environment below
//! `target/` that has Jinja2; the example `render_chat` of `moe-runtime` renders the same. Both give a text or refuse. The
//! proof fails when two texts differ, and when one side alone gives a text.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use xshell::cmd;

use super::proof::{Judged, Proof};
use crate::outcome::Outcome;
use crate::repo;

const JINJA2: &str = "jinja2==3.1.6";
/// Characters of each text that are shown where two begin to differ.
const SHOWN: usize = 60;

pub(super) fn prove(proof: &mut Proof<'_>) -> Outcome<Judged> {
    let Some(folder) = proof.options.folder.clone() else {
        return Err("name a folder of templates: cargo xtask prove templates DIR".into());
    };
    let Some(python) = python_with_jinja2(&proof.options.python) else { return Ok(Judged::Skipped) };
    let (cases, answers) = (proof.work.join("cases.jsonl"), proof.work.join("answers.jsonl"));
    let script = repo::root().join("fixtures/generators/render_templates.py");
    let mut theirs = Command::new(python);
    theirs.arg("-B").arg(script).arg(folder);
    succeed("render_templates.py", theirs.stdin(Stdio::null()).stdout(File::create(&cases)?))?;
    let mut ours = Command::new("cargo");
    ours.args(["run", "--quiet", "--profile", "checked", "-p", "moe-runtime", "--example", "render_chat"]);
    succeed("render_chat", ours.current_dir(repo::root()).stdin(File::open(&cases)?).stdout(File::create(&answers)?))?;

    let mut table: BTreeMap<String, Counts> = BTreeMap::new();
    let mut all = Counts::default();
    for (theirs, ours) in lines(&cases)?.iter().zip(&lines(&answers)?) {
        let name = |key: &str| theirs[key].as_str().unwrap_or_default();
        let verdict = judge(theirs, ours);
        table.entry(name("file").to_owned()).or_default().add(&verdict);
        all.add(&verdict);
        if let Verdict::Differ(what) | Verdict::OneSided(_, what) = verdict {
            repo::say(&format!("{}, {}: {what}", name("file"), name("conversation")));
        }
    }
    let width = table.keys().map(|name| name.chars().count()).max().unwrap_or(0);
    for (name, counts) in &table {
        repo::say(&format!("{name:width$}  {counts}"));
    }
    if all.total() == 0 {
        return Err("the folder holds no template (*.jinja, *.jinja2, *.txt, tokenizer_config.json)".into());
    }
    let figure = format!("{} templates: {all}", table.len());
    proof.figure("renderings of chat templates", figure, "none different, none by one side alone", all.agree());
    Ok(Judged::Measured)
}

/// A Python of our own that has Jinja2; `None` after a SKIP line where there is no way to it.
fn python_with_jinja2(python: &Path) -> Option<PathBuf> {
    let folder = repo::root().join("target/jinja2");
    let ours = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let made = || -> Outcome {
        let sh = xshell::Shell::new()?;
        if cmd!(sh, "{ours} -c 'import jinja2'").quiet().ignore_stderr().run().is_err() {
            cmd!(sh, "{python} -m venv {folder}").quiet().run()?;
            cmd!(sh, "{ours} -m pip install --quiet {JINJA2}").quiet().run()?;
        }
        Ok(())
    };
    match made() {
        Ok(()) => Some(ours),
        Err(error) => {
            repo::say(&format!("SKIP templates: no Python with Jinja2 ({error}); name a Python with --python"));
            None
        }
    }
}

fn succeed(name: &str, command: &mut Command) -> Outcome {
    let status = command.status().map_err(|e| format!("cannot start {name}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name} ended with {status}").into()) }
}

fn lines(path: &Path) -> Outcome<Vec<Value>> {
    std::fs::read_to_string(path)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// How our rendering of a conversation compares with Jinja2's.
#[derive(Debug, PartialEq)]
enum Verdict {
    Equal,
    BothRefuse,
    /// Where they begin to differ.
    Differ(String),
    /// `true` where this side alone gives a text, and the reason of the other.
    OneSided(bool, String),
}

fn judge(theirs: &Value, ours: &Value) -> Verdict {
    let reason = |side: &Value| side["refused"].as_str().unwrap_or("no reason").to_owned();
    match (theirs["rendered"].as_str(), ours["rendered"].as_str()) {
        (Some(want), Some(got)) if want == got => Verdict::Equal,
        (Some(want), Some(got)) => {
            let same = want.chars().zip(got.chars()).take_while(|(a, b)| a == b).count();
            let part = |text: &str| text.chars().skip(same.saturating_sub(SHOWN / 2)).take(SHOWN).collect::<String>();
            Verdict::Differ(format!("here {:?}, there {:?}", part(got), part(want)))
        }
        (None, Some(_)) => Verdict::OneSided(true, format!("here alone; Jinja2: {}", reason(theirs))),
        (Some(_), None) => Verdict::OneSided(false, format!("there alone; here: {}", reason(ours))),
        (None, None) => Verdict::BothRefuse,
    }
}

#[derive(Default)]
struct Counts {
    equal: usize,
    refused: usize,
    different: usize,
    here_alone: usize,
    there_alone: usize,
}

impl Counts {
    fn add(&mut self, verdict: &Verdict) {
        *match verdict {
            Verdict::Equal => &mut self.equal,
            Verdict::BothRefuse => &mut self.refused,
            Verdict::Differ(_) => &mut self.different,
            Verdict::OneSided(true, _) => &mut self.here_alone,
            Verdict::OneSided(false, _) => &mut self.there_alone,
        } += 1;
    }

    fn total(&self) -> usize {
        self.equal + self.refused + self.different + self.here_alone + self.there_alone
    }

    fn agree(&self) -> bool {
        self.equal + self.refused == self.total()
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { equal, refused, different, here_alone, there_alone } = self;
        write!(f, "{equal} equal, {refused} refused by both, {different} different, ")?;
        write!(f, "{here_alone} here alone, {there_alone} there alone")
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, Verdict, judge};
    use serde_json::json;

    #[test]
    fn only_equal_texts_and_two_refusals_agree() {
        let (a, b, refused) = (json!({"rendered": "a"}), json!({"rendered": "ab"}), json!({"refused": "no"}));
        for (theirs, ours, agree) in
            [(&a, &a, true), (&refused, &refused, true), (&a, &b, false), (&a, &refused, false), (&refused, &a, false)]
        {
            let mut counts = Counts::default();
            counts.add(&judge(theirs, ours));
            assert_eq!((counts.total(), counts.agree()), (1, agree), "{theirs} {ours}");
        }
        assert_eq!(judge(&b, &a), Verdict::Differ("here \"a\", there \"ab\"".to_owned()));
    }
}
