//! Where a model is: a path, or a name in the local Hugging Face cache.

use std::path::PathBuf;

use anyhow::Result;
use moe_runtime::{Guess, ModelFiles};

use crate::output;

/// The path of a model: a directory, a GGUF, or a name in the local Hugging Face cache.
pub(crate) fn locate(spec: &str) -> Result<PathBuf> {
    let hub = gguf_bitnet::hub_folder(&|name| std::env::var(name).ok());
    Ok(gguf_bitnet::resolve_model(spec, hub.as_deref())?)
}

/// Prints the facts that the model's files do not state, and the values taken in their place.
pub(crate) fn note_guesses<'a>(guesses: impl IntoIterator<Item = &'a Guess>) {
    guesses.into_iter().for_each(|guess| output::note(format_args!("note: {guess}")));
}

/// Opens a model without reading weights.
pub(crate) fn open(spec: &str) -> Result<ModelFiles> {
    Ok(ModelFiles::open(&locate(spec)?)?)
}
