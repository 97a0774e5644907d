//! Where a model is: a path, or a name in the local Hugging Face cache.

use std::path::PathBuf;

use anyhow::Result;
use moe_runtime::ModelFiles;

use super::hub::hub;

/// The path of a model: a directory, a GGUF, or a name in the local Hugging Face cache.
pub(crate) fn locate(spec: &str) -> Result<PathBuf> {
    Ok(gguf_bitnet::resolve_model(spec, hub().as_deref())?)
}

/// Opens a model without reading weights.
pub(crate) fn open(spec: &str) -> Result<ModelFiles> {
    Ok(ModelFiles::open(&locate(spec)?)?)
}
