//! The hash of a model under which its computed prompts are kept.

use anyhow::Result;
use gguf_bitnet::local_state;
use moe_runtime::ModelFiles;

use crate::output::Progress;

/// A hash that changes when the weights do. A local GGUF has one that reads no weights; other models are read, with a bar, unless
/// that was done before.
pub(crate) fn state(files: &ModelFiles) -> Result<[u8; 32]> {
    if let Some(state) = files.gguf().and_then(local_state) {
        return Ok(*state.as_bytes());
    }
    let progress = Progress::bytes("identifying the model");
    Ok(files.identity_bytes(&mut |done, total| progress.show(done, total))?)
}
