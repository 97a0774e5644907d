//! `cargo xtask tidy`: the rules of this repository that the compiler does not check.
//!
//! A problem fails the run; a remark (a soft limit) is printed and does not. **Invariant**: every rule is a function of
//! text, so each has a test with a good and a bad example. The whole is also a test, so that `cargo test` runs it.

mod crates;
mod doors;
mod edges;
mod files;
mod findings;
mod fixtures;
mod graph;
mod licences;
mod outline;
mod paths;
mod prose;
mod public;
mod tokens;

use std::path::{Path, PathBuf};

use crate::outcome::Outcome;
use crate::repo;

use crates::Crate;
use findings::Findings;

/// Which part of the findings to print.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only print the module graph of each crate: files, circles and the fullest folder
    #[arg(long)]
    graph: bool,
    /// Write the list of public items, docs/public-items.txt, in place of checking it
    #[arg(long)]
    list_public: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let files = walk(repo::root())?;
    if args.graph {
        for line in Crate::all(&files)?.iter().flat_map(Crate::summary) {
            repo::say(&line);
        }
        return Ok(());
    }
    if args.list_public {
        let list = repo::root().join(public::FILE);
        std::fs::write(&list, public::listing(&public_items(&Crate::all(&files)?)))?;
        repo::say(&format!("{} is written", list.display()));
        return Ok(());
    }
    let findings = check(&files)?;
    for remark in &findings.remarks {
        repo::say(&format!("remark: {remark}"));
    }
    for problem in &findings.problems {
        repo::say(&format!("problem: {problem}"));
    }
    match findings.problems.len() {
        0 => repo::say(&format!("tidy: {} files, no problem, {} remarks", files.len(), findings.remarks.len())),
        problems => return Err(format!("{problems} problems in {} files", files.len()).into()),
    }
    Ok(())
}

/// Applies every rule to `all`, the files of the repository.
fn check(all: &[PathBuf]) -> Outcome<Findings> {
    let mut findings = Findings::default();
    edges::check(&mut findings)?;
    licences::check(&mut findings)?;
    for path in all {
        let name = path.strip_prefix(repo::root())?.to_string_lossy().replace('\\', "/");
        if let Some(text) = files::read_text(path) {
            files::check(&name, &text, &mut findings);
            if name.ends_with(".rs") || name.ends_with(".md") {
                paths::check(&name, &text, |path| repo::root().join(path).exists(), &mut findings);
            }
            if name.ends_with(".rs") {
                prose::check(&name, &text, &mut findings);
            }
        }
    }
    let crates = Crate::all(all)?;
    for one in &crates {
        one.check(&mut findings);
    }
    let listed = std::fs::read_to_string(repo::root().join(public::FILE)).unwrap_or_default();
    for difference in public::differences(&listed, &public_items(&crates)) {
        findings.problem(difference);
    }
    fixtures::check(all, &mut findings)?;
    Ok(findings)
}

fn public_items(crates: &[Crate]) -> Vec<String> {
    let mut items: Vec<String> = crates.iter().flat_map(Crate::public_items).collect();
    items.sort();
    items
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
            let made = name.starts_with("target")
                || name.ends_with(".partial")
                || ["__pycache__", "node_modules"].contains(&name.as_str());
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

#[cfg(test)]
mod tests {
    use super::{check, walk};
    use crate::repo;

    #[test]
    fn the_repository_keeps_its_rules() {
        let findings = check(&walk(repo::root()).unwrap()).unwrap();
        assert!(findings.problems.is_empty(), "{:#?}", findings.problems);
    }
}
