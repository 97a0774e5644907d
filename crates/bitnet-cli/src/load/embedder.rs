//! From a name on the command line to an embedder of texts.

use std::path::Path;
#[cfg(feature = "serve")]
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use mla_attention::CacheType;
use moe_runtime::{CraftsmanBackend, Session};
use rlm_embed::encoder::{BaseEmbedder, BertEncoder, HashEmbedder, LanguageModelEmbedder, Precision};
use tl_kernels::Pool;

use super::{files, model};
use crate::output::Progress;

/// The name of the encoder of hashed words.
pub(crate) const HASH: &str = "hash";
/// Longest text that a language model embeds, in tokens.
const CONTEXT: usize = 2048;

/// Loads the sentence encoder that `spec` names; returns its folder, too.
///
/// # Errors
/// A folder that holds none.
#[cfg(feature = "serve")]
pub(crate) fn encoder(spec: &str, precision: Precision, pool: Arc<Pool>) -> Result<(BertEncoder, PathBuf)> {
    let path = if spec == HASH { PathBuf::from(spec) } else { files::locate(spec)? };
    if !BertEncoder::is_at(&path) {
        bail!("{spec}: is no sentence encoder: name a folder with a BERT checkpoint");
    }
    Ok((BertEncoder::load(&path, precision, pool)?, path))
}

/// Loads the embedder that `spec` names; without a `precision`, matrices as the checkpoint has them.
///
/// # Errors
/// A model that cannot be loaded, or a precision for one that is no sentence encoder.
pub(crate) fn embedder(spec: &str, precision: Option<Precision>, pool: Arc<Pool>) -> Result<Box<dyn BaseEmbedder>> {
    if spec == HASH {
        return Ok(Box::new(HashEmbedder::new(HashEmbedder::DEFAULT_DIMS)));
    }
    let path = files::locate(spec)?;
    if BertEncoder::is_at(Path::new(&path)) {
        return Ok(Box::new(BertEncoder::load(Path::new(&path), precision.unwrap_or_default(), pool)?));
    }
    if precision.is_some() {
        bail!(
            "{spec}: is no sentence encoder, and a precision can be chosen for these alone; `bitnet quantize` makes smaller language models"
        );
    }
    let files = files::open(spec)?;
    let options = model::options(&files, None, None, false, pool);
    let model = Arc::new(model::load(&files, &options)?);
    let n_ctx = CONTEXT.min(files.config.n_ctx);
    let tokenizer = files.tokenizer()?;
    let progress = Progress::bytes("identifying the model");
    let identity = files.identity_bytes(&mut |done, total| progress.show(done, total))?;
    drop(progress);
    let backend = CraftsmanBackend::new(Session::new(model, n_ctx, CacheType::F16)?, tokenizer);
    Ok(Box::new(LanguageModelEmbedder::new(backend, identity)?))
}
