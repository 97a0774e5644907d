//! The results of kernel trials, kept in the user's cache directory from one start to the next: one file per model.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use moe_runtime::ModelFiles;
use tl_kernels::TrialMemory;

use super::read_at_most;

/// Most bytes of a file that are read: far more than the results of any model.
const MAX_BYTES: u64 = 64 << 10;

/// The results of earlier trials for this model as it is now; none where there is no file, or no cache directory.
pub(super) fn recall(files: &ModelFiles) -> TrialMemory {
    let model = model_name(files.path());
    let text = file(files.path()).filter(|_| model.is_some()).and_then(|path| read_at_most(&path, MAX_BYTES).ok());
    TrialMemory::new(model.as_deref().unwrap_or_default(), text.as_deref())
}

/// Writes new results to the file of the model. A file that cannot be written is no error, because it only costs another
/// trial at the next start.
pub(super) fn keep(files: &ModelFiles, memory: &TrialMemory) {
    if model_name(files.path()).is_some()
        && let Some(path) = file(files.path())
        && let Some(text) = memory.unsaved()
    {
        let _ = write(&path, &text);
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(gguf_bitnet::write_atomic(path, text.as_bytes())?)
}

/// The file for a model at this path. The name depends on the place alone, so that a model that is made again replaces
/// its own results.
fn file(model: &Path) -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
    let mut hasher = DefaultHasher::new();
    model.canonicalize().ok()?.hash(&mut hasher);
    Some(cache.join("bitnet").join("kernels").join(format!("{:016x}.txt", hasher.finish())))
}

/// The path, size and time of a model file, which tell it from others and from its earlier versions.
fn model_name(model: &Path) -> Option<String> {
    let path = model.canonicalize().ok()?;
    let facts = path.metadata().ok()?;
    let modified = facts.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos();
    Some(format!("{} {} {modified}", path.display(), facts.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bitnet/kernels/model.txt");
        for text in ["first", "second"] {
            write(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error_that_keep_ignores() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("bitnet"), "a file where a directory should be").unwrap();
        assert!(write(&dir.path().join("bitnet/kernels/model.txt"), "text").is_err());
    }
}
