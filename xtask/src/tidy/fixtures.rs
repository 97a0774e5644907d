//! The fixtures stay small, because every clone of the repository holds them.

use std::path::PathBuf;

use super::findings::Findings;
use crate::outcome::Outcome;
use crate::repo;

/// Largest size of one file and of all of them together.
const FILE_BYTES: u64 = 25_000_000;
const TOTAL_BYTES: u64 = 95_000_000;

pub(super) fn check(files: &[PathBuf], findings: &mut Findings) -> Outcome {
    let dir = repo::root().join("fixtures");
    let readme = std::fs::read_to_string(dir.join("README.md"))?;
    let mut total = 0;
    for path in files.iter().filter(|path| path.starts_with(&dir)) {
        let bytes = std::fs::metadata(path)?.len();
        total += bytes;
        if bytes > FILE_BYTES {
            findings.problem(format!(
                "{} has {}, more than {}",
                path.display(),
                repo::bytes(bytes),
                repo::bytes(FILE_BYTES)
            ));
        }
    }
    if total > TOTAL_BYTES {
        findings.problem(format!("the fixtures have {}, more than {}", repo::bytes(total), repo::bytes(TOTAL_BYTES)));
    }
    for entry in std::fs::read_dir(dir.join("goldens"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !readme.contains(&name) {
            findings.problem(format!("fixtures/README.md says nothing about goldens/{name}"));
        }
    }
    if !dir.join("LICENSES.md").is_file() {
        findings.problem("fixtures/LICENSES.md is missing");
    }
    Ok(())
}
