//! Where the timed trial of kernels is remembered: one file per model in the user's cache directory.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use moe_runtime::ModelFiles;
use tl_kernels::TrialCache;

/// The file that remembers the trials of this model as it is now, or `None` where there is no cache directory.
pub(super) fn trial_cache(files: &ModelFiles) -> Option<TrialCache> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
    let path = files.path().canonicalize().ok()?;
    let facts = path.metadata().ok()?;
    let modified = facts.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos();
    let model = format!("{} {} {modified}", path.display(), facts.len());
    // The name depends on the place alone, so that a model that is made again replaces its own results.
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    let name = format!("{:016x}.txt", hasher.finish());
    Some(TrialCache { path: cache.join("bitnet").join("kernels").join(name), model })
}
