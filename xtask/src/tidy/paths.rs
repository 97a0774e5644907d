//! Documents and comments name files of this repository by paths that exist.

use super::findings::Findings;

/// Folders of the root with which such a path begins.
const FOLDERS: [&str; 8] = ["crates/", "bindings/", "docs/", "fixtures/", "xtask/", "benches/", "fuzz/", ".ci/"];

/// Checks the paths between backticks; `name` is the file's own path from the root.
pub(super) fn check(name: &str, text: &str, exists: impl Fn(&str) -> bool, findings: &mut Findings) {
    for (line, path) in missing(text, exists) {
        findings.problem(format!("{name}:{line}: names `{path}`, which does not exist"));
    }
}

fn missing(text: &str, exists: impl Fn(&str) -> bool) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        // Text between an odd and the next backtick; a code block has none.
        for path in line.split('`').skip(1).step_by(2) {
            let is_path = FOLDERS.iter().any(|folder| path.starts_with(folder));
            let is_plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./".contains(&b));
            if is_path && is_plain && !exists(path) {
                found.push((at + 1, path));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn named_files_exist() {
        let exists = |path: &str| path == "docs/gates.md";
        for good in ["see `docs/gates.md`", "crates/x", "`crates/*`", "`crates/{a, b}.rs`", "`other/file`"] {
            assert!(missing(good, exists).is_empty(), "{good}");
        }
        // Split, so that this line names no missing file itself.
        let bad = format!("a\nsee `docs{}` and `docs/gates.md`", "/gone.md");
        assert_eq!(missing(&bad, exists), [(2, concat!("docs", "/gone.md"))]);
    }
}
