//! Where a model is: a path, or a name in the local Hugging Face cache.

use std::path::PathBuf;

use anyhow::Result;
use moe_runtime::ModelFiles;

/// The path of a model: a directory, a GGUF, or a name in the local Hugging Face cache.
pub(crate) fn locate(spec: &str) -> Result<PathBuf> {
    let cache = std::env::var_os("HF_HOME").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME").or_else(|| std::env::var_os("USERPROFILE"))?;
        Some(PathBuf::from(home).join(".cache").join("huggingface"))
    });
    Ok(gguf_bitnet::resolve_model(spec, cache.as_deref())?)
}

/// Opens a model without reading weights.
pub(crate) fn open(spec: &str) -> Result<ModelFiles> {
    Ok(ModelFiles::open(&locate(spec)?)?)
}
