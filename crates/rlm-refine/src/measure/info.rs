//! The description of a model for the gates, without loading it: its name and its experts.

use std::path::Path;

use behavior_eval::model::SubjectInfo;
use moe_runtime::ModelFiles;

use super::error::{Error, Result};

/// Describes an opened model for the gates. `id` is its [`ModelFiles::identity`].
///
/// # Errors
/// [`Error::NoExperts`] for a model without experts.
pub fn subject_info(files: &ModelFiles, id: String) -> Result<SubjectInfo> {
    let config = &files.config;
    let Some(moe) = &config.moe else {
        return Err(Error::NoExperts { path: files.path().display().to_string() });
    };
    let moe_layers = (0u32..).zip(0..config.n_layers).filter(|&(_, l)| config.is_moe(l)).map(|(id, _)| id).collect();
    Ok(SubjectInfo {
        name: short_name(files.path()),
        id,
        moe_layers,
        n_experts: moe.router.n_experts,
        top_k: moe.router.top_k,
        vocab_size: config.vocab,
        hidden: config.hidden,
    })
}

/// The name of a model in reports: its file without the ending, or its folder.
fn short_name(path: &Path) -> String {
    let absolute = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let named = match absolute.extension().and_then(|e| e.to_str()) {
        Some("safetensors") => absolute.parent().and_then(Path::file_name),
        Some("gguf") => absolute.file_stem(),
        _ => absolute.file_name(),
    };
    named.map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}
