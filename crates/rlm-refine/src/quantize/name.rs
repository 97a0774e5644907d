//! The name of a model that has none in its metadata.

use std::ffi::OsStr;
use std::path::Path;

/// The name of the model at `path`: of a file its name without the ending, of a directory its name in full
/// (`GLM-4.7-Flash` has no ending), of a snapshot in the Hugging Face cache the name of its repository.
pub(super) fn model_name(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let text = |part: Option<&OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let snapshots = path.parent().filter(|parent| parent.file_name() == Some("snapshots".as_ref()));
    let repository = text(snapshots.and_then(Path::parent).and_then(Path::file_name));
    let cached = repository.as_deref().and_then(|name| name.strip_prefix("models--")?.rsplit("--").next());
    let own = if path.is_dir() { path.file_name() } else { path.file_stem() };
    cached.map(str::to_owned).or_else(|| text(own)).unwrap_or_else(|| "model".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_named_after_their_path() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = dir.path().join("hub/models--zai-org--GLM-4.7-Flash/snapshots/0123abcd");
        std::fs::create_dir_all(&snapshot).unwrap();
        assert_eq!(model_name(&snapshot), "GLM-4.7-Flash");
        let plain = dir.path().join("GLM-4.7-Flash");
        std::fs::create_dir(&plain).unwrap();
        assert_eq!(model_name(&plain), "GLM-4.7-Flash");
        assert_eq!(model_name(&dir.path().join("Craftsman-v1.0-TQ2_0.gguf")), "Craftsman-v1.0-TQ2_0");
    }
}
