//! Texts to vectors of unit length: a sentence encoder, hashed words, or a language model.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use mla_attention::CacheType;
use moe_runtime::{CraftsmanBackend, CraftsmanModel, LoadOptions, ModelFiles, Session};
use pyo3::prelude::*;
use rlm_embed::encoder::{BaseEmbedder, BertEncoder, HashEmbedder, LanguageModelEmbedder, Precision};

use crate::errors::{closed, locked, sentence, usage};
use crate::options::{locate, pool, unknown};
use crate::worker::run_or_leave;

/// Longest text that a language model embeds, in tokens.
const CONTEXT: usize = 2048;

type Encoder = Box<dyn BaseEmbedder + Send>;

/// An encoder of texts; see `Embedder` in Python.
#[pyclass(frozen, module = "craftsman_ultra._native")]
pub(crate) struct NativeEmbedder {
    encoder: Arc<Mutex<Option<Encoder>>>,
    dims: usize,
    identity: [u8; 32],
}

#[pymethods]
impl NativeEmbedder {
    #[new]
    fn open(
        py: Python<'_>,
        model: PathBuf,
        precision: Option<String>,
        threads: Option<usize>,
    ) -> PyResult<NativeEmbedder> {
        let precision = match precision.as_deref() {
            None => None,
            Some("f32") => Some(Precision::F32),
            Some("q8_0") => Some(Precision::Q8_0),
            Some("q8_0-a8") => Some(Precision::Q8_0A8),
            Some("q2_0") => Some(Precision::Q2_0),
            Some(other) => return Err(unknown("precision", other, "f32, q8_0, q8_0-a8 or q2_0")),
        };
        let encoder: Encoder = if model == Path::new("hash") {
            if precision.is_some() {
                return Err(usage("precision is for sentence encoders; `hash` has no matrices"));
            }
            Box::new(HashEmbedder::new(HashEmbedder::DEFAULT_DIMS))
        } else {
            let (path, pool) = (locate(&model)?, pool(threads)?);
            if BertEncoder::is_at(&path) {
                let load = move || BertEncoder::load(&path, precision.unwrap_or_default(), pool);
                Box::new(run_or_leave(py, load)?.map_err(sentence)?)
            } else if precision.is_some() {
                return Err(usage(format!(
                    "{} is no sentence encoder, and a precision is for these alone",
                    path.display()
                )));
            } else {
                let options = LoadOptions { pool, ..LoadOptions::default() };
                Box::new(run_or_leave(py, move || language_model(&path, &options))?.map_err(sentence)?)
            }
        };
        let (dims, identity) = (encoder.dims(), encoder.identity());
        Ok(NativeEmbedder { encoder: Arc::new(Mutex::new(Some(encoder))), dims, identity })
    }

    #[getter]
    fn dims(&self) -> usize {
        self.dims
    }

    /// The hash of everything that decides the vectors, in hexadecimal.
    #[getter]
    fn identity(&self) -> String {
        self.identity.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The vectors of all texts one after another, `[texts, dims]`.
    fn embed(&self, py: Python<'_>, texts: Vec<String>) -> PyResult<Vec<f32>> {
        let encoder = self.encoder.clone();
        let embed = move || {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            locked(&encoder).as_mut().map(|encoder| encoder.embed(&texts))
        };
        run_or_leave(py, embed)?.ok_or_else(|| closed("embedder"))?.map_err(sentence)
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| drop(locked(&self.encoder).take()));
    }
}

fn language_model(
    path: &Path,
    options: &LoadOptions,
) -> Result<LanguageModelEmbedder<CraftsmanBackend>, rlm_embed::Error> {
    let files = ModelFiles::open(path)?;
    let identity = files.identity_bytes(&mut |_, _| {})?;
    let model = Arc::new(CraftsmanModel::from_files(&files, options)?);
    let session = Session::new(model, CONTEXT.min(files.config.n_ctx), CacheType::F16)?;
    LanguageModelEmbedder::new(CraftsmanBackend::new(session, files.tokenizer()?), identity)
}
