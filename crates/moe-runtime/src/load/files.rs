//! From a path to a configuration and canonical tensors, for every kind of model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gguf_bitnet::{
    Catalog, DiscoveryReport, FileKind, GgufFile, MAX_CONFIG_BYTES, ModelError, OpenModel, Role, SourceError,
    TensorSource, read_text,
};

use crate::error::{Error, Result};
use crate::load::error::LoadError;
use crate::models::config::ModelConfig;
use crate::models::table::Presence;
use crate::models::tensors::{expected_tensors, mapper};
use crate::sessions::sampler::SamplerConfig;
use crate::text::tokenizer::Tokenizer;

/// An opened model: its configuration and its list of tensors have been read, its weights have not.
#[derive(Debug)]
pub struct ModelFiles {
    /// Shapes and rules of the model.
    pub config: ModelConfig,
    /// The tensors under canonical names.
    pub catalog: Catalog,
    gguf: Option<Arc<GgufFile>>,
    path: PathBuf,
    dir: PathBuf,
}

impl ModelFiles {
    /// Opens a checkpoint directory, a safetensors file beside its `config.json`, or a GGUF.
    ///
    /// ```
    /// let files = moe_runtime::ModelFiles::open(&fixtures::path("goldens/glm-tiny"))?;
    /// assert_eq!(files.catalog.tensors()[0].name, "token_embd.weight");
    /// # Ok::<(), moe_runtime::Error>(())
    /// ```
    ///
    /// # Errors
    /// A file that the reader of its format refuses; an adapter, a projector or another companion of a model; a
    /// configuration that [`ModelConfig`] refuses.
    pub fn open(path: &Path) -> Result<ModelFiles> {
        let model = OpenModel::open(path)?;
        if model.role() != Role::Model {
            let error: gguf_bitnet::Error = ModelError::NoLanguageModel { role: model.role() }.into();
            return Err(Error::from(error.in_file(model.source().path())));
        }
        let dir = model.dir();
        match model {
            OpenModel::Gguf(file) => {
                let files = ModelFiles::from_gguf(file).map_err(|error| error.in_model(path))?;
                Ok(ModelFiles { dir, ..files })
            }
            OpenModel::Safetensors(checkpoint) => {
                let file = dir.join("config.json");
                let text = read_text(&file, MAX_CONFIG_BYTES)
                    .map_err(|source| Error::Load(LoadError::ConfigFile { source }))?;
                let config = ModelConfig::from_hf_str(&text)
                    .map_err(|error| page(&text, &file).unwrap_or(error.in_model(&file)))?;
                let path = checkpoint.path().to_owned();
                let mut catalog = mapper(&config).map(checkpoint)?;
                if config.head == Presence::Absent {
                    // Some tied checkpoints store the embedding a second time as the head; transformers ignores it too.
                    catalog.skip("output.weight");
                }
                Ok(ModelFiles { config, catalog, path, dir, gguf: None })
            }
        }
    }

    /// A GGUF that is open already, or lies in memory; it has no directory.
    ///
    /// # Errors
    /// As [`ModelFiles::open`].
    pub fn from_gguf(file: Arc<GgufFile>) -> Result<ModelFiles> {
        let rows = file.index_of("token_embd.weight").map(|i| file.tensors()[i].rows());
        let config = ModelConfig::from_gguf_sized(file.metadata(), rows)?;
        let catalog = mapper(&config).map(file.clone())?;
        Ok(ModelFiles { config, catalog, path: file.path().to_owned(), dir: PathBuf::new(), gguf: Some(file) })
    }

    /// The GGUF, when the model is one.
    #[must_use]
    pub fn gguf(&self) -> Option<&GgufFile> {
        self.gguf.as_deref()
    }

    /// The file or directory that was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that the model lies in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Compares the tensors of the file with those that its configuration requires. Reads no weights.
    #[must_use]
    pub fn report(&self) -> DiscoveryReport {
        gguf_bitnet::validate(&self.catalog, &expected_tensors(&self.config))
    }

    /// The sampling that the model recommends.
    ///
    /// # Errors
    /// A value of the wrong type or out of range, and as [`SamplerConfig::from_dir`].
    pub fn sampling(&self) -> Result<SamplerConfig> {
        match &self.gguf {
            Some(file) => SamplerConfig::recommended(file.metadata()),
            None => SamplerConfig::from_dir(&self.dir),
        }
    }

    /// The tokenizer that came with the model.
    ///
    /// # Errors
    /// As [`Tokenizer::from_gguf`] and [`Tokenizer::from_dir`].
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let tokenizer = match &self.gguf {
            Some(file) => Tokenizer::from_gguf(file.metadata()),
            None => Tokenizer::from_dir(&self.dir),
        };
        tokenizer.map_err(|error| error.in_model(&self.path))
    }
}

/// The error about a web page that was saved under the name of a JSON file.
fn page(text: &str, path: &Path) -> Option<Error> {
    let kind = FileKind::of_page(text)?;
    Some(gguf_bitnet::Error::from(SourceError::OtherFile { kind }).in_file(path).into())
}
