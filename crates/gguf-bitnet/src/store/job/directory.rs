//! The directory of a job: the files in it, and the checks that keep other files safe.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;

use crate::error::{Error, Locate, Result};
use crate::store::StoreError;

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const JOURNAL: &str = "journal.jsonl";
pub(super) const DATA: &str = "data";
/// Every file a job's directory may hold.
const OWN_FILES: [&str; 4] = [MANIFEST, "manifest.json.tmp", JOURNAL, DATA];
/// How the names of the files begin that a caller keeps there to continue from.
pub(super) const STATE: &str = "state.";

/// Whether a file of this name belongs to a job.
fn is_own(name: &OsStr) -> bool {
    OWN_FILES.iter().any(|own| name == *own) || name.to_str().is_some_and(|name| name.starts_with(STATE))
}

/// Checks that the directory does not exist or holds only a job's files. A link is none: a folder that came from elsewhere
/// could lead the job's bytes into any file of the user.
pub(super) fn check_own(dir: &Path) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("list", dir)(error)),
    };
    if dir.is_symlink() {
        return Err(StoreError::BadOutput { why: "it is a link where a job keeps its files: remove it" }.in_file(dir));
    }
    for entry in entries {
        let entry = entry.map_err(Error::io("list", dir))?;
        let name = entry.file_name();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || !is_own(&name) {
            let file = name.to_string_lossy().into_owned();
            return Err(StoreError::JobForeignFile { file }.in_file(dir));
        }
    }
    Ok(())
}

/// Removes the states that a caller has kept. Failures are ignored: the caller checks the states that it reads.
pub(super) fn remove_states(dir: &Path) {
    remove_files(dir, |name| name.to_str().is_some_and(|name| name.starts_with(STATE)));
}

fn remove_files(dir: &Path, wanted: impl Fn(&OsStr) -> bool) {
    let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    for name in names.filter(|name| wanted(name)) {
        let _ = fs::remove_file(dir.join(name));
    }
}

/// Removes a job's files and then the directory if it is empty. Failures are ignored: the next open of the job tries
/// again.
pub(super) fn remove_own_files(dir: &Path) {
    remove_files(dir, is_own);
    let _ = fs::remove_dir(dir);
}
