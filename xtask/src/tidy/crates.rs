//! Rules about a crate as a whole: its module graph, its doors, its test binaries, its dependencies.

use std::path::{Path, PathBuf};

use super::doors::{SecondPath, second_paths};
use super::findings::Findings;
use super::graph::{Graph, Sources, graph};
use super::public;
use super::tokens::{Kind, tokens};
use crate::outcome::Outcome;
use crate::repo;

/// Test binaries that a crate may have beside `tests/it`: the crate's folder and the name.
const MORE_TESTS: [(&str, &str); 1] = [
    // Its allocator counts the allocations of the whole process.
    ("crates/moe-runtime", "allocation"),
];

/// A crate's folder, its manifest and its Rust files.
pub(super) struct Crate {
    /// From the root, such as `crates/moe-runtime`.
    folder: String,
    manifest: String,
    /// By their path from the folder of the crate.
    sources: Sources,
}

impl Crate {
    /// The crates of the workspace, from all files of the repository.
    pub(super) fn all(files: &[PathBuf]) -> Outcome<Vec<Crate>> {
        let mut crates = Vec::new();
        let manifests = files.iter().filter(|path| path.ends_with("Cargo.toml"));
        for folder in manifests.filter_map(|path| path.parent()).filter(|folder| *folder != repo::root()) {
            let mut sources = Sources::new();
            for path in files.iter().filter(|path| path.starts_with(folder)) {
                if path.extension().is_some_and(|e| e == "rs") {
                    sources.insert(slashed(path.strip_prefix(folder)?), std::fs::read_to_string(path)?);
                }
            }
            let manifest = std::fs::read_to_string(folder.join("Cargo.toml"))?;
            crates.push(Crate { folder: slashed(folder.strip_prefix(repo::root())?), manifest, sources });
        }
        Ok(crates)
    }

    /// Checks the rules of this file.
    pub(super) fn check(&self, findings: &mut Findings) {
        let folder = &self.folder;
        for (root, graph) in self.graphs() {
            for circle in graph.circles() {
                let files = circle.files.join(", ");
                let edges = circle.edges.join("; ");
                findings.problem(format!("{folder}/{root}: {files} import each other: {edges}"));
            }
        }
        for root in self.roots() {
            for SecondPath { file, line, path } in second_paths(&self.sources, root) {
                findings.problem(format!("{folder}/{file}:{line}: `pub use {path}` is a second path to a public item"));
            }
        }
        for name in more_tests(folder, self.sources.keys().map(String::as_str)) {
            findings.problem(format!("{folder}/{name}: a second test binary: make it a module of tests/it"));
        }
        for name in unused(&self.manifest, self.sources.values().map(String::as_str)) {
            findings.problem(format!("{folder}/Cargo.toml: nothing uses {name}: remove it"));
        }
    }

    /// The public items of the library, where it is one for users.
    pub(super) fn public_items(&self) -> Vec<String> {
        let name = self.folder.strip_prefix("crates/");
        name.map_or_else(Vec::new, |name| public::items(name, &self.sources))
    }

    /// Files, largest folder and circles, one line per target.
    pub(super) fn summary(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (root, graph) in self.graphs() {
            let (folder, files) = graph.largest_folder();
            let circles = graph.circles();
            let all = graph.files.len();
            let name = format!("{}/{root}", self.folder);
            lines.push(format!("{name:<38} {all:>4} files, {:>2} circles, most in {folder}: {files}", circles.len()));
            for circle in circles {
                lines.push(format!("  circle of {}: {}", circle.files.len(), circle.files.join(", ")));
                lines.extend(circle.edges.iter().map(|edge| format!("    {edge}")));
            }
        }
        lines
    }

    /// The files with which the library and the binary begin, where they exist.
    fn roots(&self) -> impl Iterator<Item = &'static str> {
        ["src/lib.rs", "src/main.rs"].into_iter().filter(|root| self.sources.contains_key(*root))
    }

    /// The module graphs of the library and of the binary, where they exist.
    fn graphs(&self) -> impl Iterator<Item = (&'static str, Graph)> {
        self.roots().map(|root| (root, graph(&self.sources, root)))
    }
}

fn slashed(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "/")
}

/// Files of tests beside the first that is allowed: `tests/it/main.rs` is one binary, each `tests/*.rs` another.
fn more_tests<'a>(folder: &str, files: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut binaries: Vec<&str> = files
        .filter(|file| {
            let Some(rest) = file.strip_prefix("tests/") else { return false };
            let is_binary = !rest.contains('/') || rest.matches('/').count() == 1 && rest.ends_with("/main.rs");
            let name = rest.trim_end_matches("/main.rs").trim_end_matches(".rs");
            is_binary && !MORE_TESTS.contains(&(folder, name))
        })
        .collect();
    // `tests/it` is the allowed binary where there is one.
    binaries.sort_by_key(|file| *file != "tests/it/main.rs");
    binaries.into_iter().skip(1).collect()
}

/// Dependencies of a manifest whose names do not occur in the code or in the examples of doc comments.
fn unused<'a>(manifest: &str, sources: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
    let mut names = dependencies(manifest);
    names.retain(|name| {
        let name = name.replace('-', "_");
        !sources.clone().any(|text| text.contains(&name) && names_crate(text, &name))
    });
    names
}

fn names_crate(text: &str, name: &str) -> bool {
    tokens(text).iter().any(|token| match token.kind {
        Kind::Name(word) => word == name,
        Kind::Comment(comment) => comment.starts_with("//") && comment.contains(&format!("{name}::")),
        _ => false,
    })
}

/// The names below all `[...dependencies]` of a manifest.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_inside = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            is_inside = table.trim_end_matches(']').ends_with("dependencies");
        } else if is_inside && !line.starts_with('#') && line.contains('=') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            names.push(name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::{dependencies, more_tests, unused};

    #[test]
    fn a_crate_has_one_test_binary() {
        let found = |folder: &str, files: &[&'static str]| more_tests(folder, files.iter().copied());
        assert!(found("crates/a", &["src/lib.rs", "tests/it/main.rs", "tests/it/x.rs"]).is_empty());
        assert!(found("crates/a", &["tests/words.rs"]).is_empty());
        assert!(found("crates/moe-runtime", &["tests/allocation.rs", "tests/it/main.rs"]).is_empty());
        assert_eq!(found("crates/a", &["tests/a.rs", "tests/common/mod.rs", "tests/it/main.rs"]), ["tests/a.rs"]);
    }

    #[test]
    fn a_dependency_is_used() {
        let manifest = "[package]\nname = \"a\"\n[dependencies]\nhalf.workspace = true\ntl-kernels = { path = \"x\" }\n\
                        [dev-dependencies]\n# why\ntempfile = \"3\"\n[lints]\nworkspace = true\n";
        assert_eq!(dependencies(manifest), ["half", "tl-kernels", "tempfile"]);
        let sources = ["use half::f16; // tempfile", "/// tl_kernels::X"];
        assert_eq!(unused(manifest, sources.into_iter()), ["tempfile"]);
    }
}
