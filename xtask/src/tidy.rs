//! `cargo xtask tidy`: the rules of this repository that the compiler does not check.
//!
//! A problem fails the run; a remark (a soft limit) is printed and does not. **Invariant**: every rule is a function of
//! text, so each has a test with a good and a bad example.

mod edges;
mod files;
mod fixtures;

use std::path::{Path, PathBuf};

use crate::outcome::Outcome;
use crate::repo;

/// What the checks found.
#[derive(Default)]
pub(crate) struct Findings {
    problems: Vec<String>,
    remarks: Vec<String>,
}

impl Findings {
    fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(text.into());
    }

    fn remark(&mut self, text: impl Into<String>) {
        self.remarks.push(text.into());
    }
}

pub(crate) fn run() -> Outcome {
    let mut findings = Findings::default();
    edges::check(&mut findings)?;
    let all = walk(repo::root())?;
    for path in &all {
        let name = path.strip_prefix(repo::root())?.to_string_lossy().replace('\\', "/");
        if let Some(text) = files::read_text(path) {
            files::check(&name, &text, &mut findings);
        }
    }
    fixtures::check(&all, &mut findings)?;
    for remark in &findings.remarks {
        repo::say(&format!("remark: {remark}"));
    }
    for problem in &findings.problems {
        repo::say(&format!("problem: {problem}"));
    }
    let (files, problems) = (all.len(), findings.problems.len());
    if problems > 0 {
        return Err(format!("{problems} problems in {files} files").into());
    }
    repo::say(&format!("tidy: {files} files, no problem, {} remarks", findings.remarks.len()));
    Ok(())
}

/// Every file of the repository that is source: not below `target*`, hidden folders (but `.ci` and `.cargo`) or job folders.
fn walk(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let hidden = name.starts_with('.') && !matches!(name.as_str(), ".ci" | ".cargo");
            let made = name.starts_with("target") || name.ends_with(".partial") || name == "__pycache__";
            match entry.file_type()?.is_dir() {
                true if !hidden && !made => open.push(entry.path()),
                false => files.push(entry.path()),
                true => {}
            }
        }
    }
    files.sort();
    Ok(files)
}
