//! From a path to a configuration and canonical tensors, for every kind of model.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use gguf_bitnet::{
    Catalog, DiscoveryReport, FileKind, GgufFile, MAX_CONFIG_BYTES, ModelError, OpenModel, Role, SourceError,
    TensorSource, Weightless, read_text,
};

use crate::error::{Error, Result};
use crate::guess::Guess;
use crate::load::error::LoadError;
use crate::models::config::ModelConfig;
use crate::models::table::Presence;
use crate::models::tensors::{expected_tensors, mapper};
use crate::sessions::sampler::SamplerConfig;
use crate::text::chat::{ChatRequest, ChatTemplate};
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
    /// The identity, once it was computed.
    identity: OnceLock<[u8; 32]>,
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
        ModelFiles::of(OpenModel::open(path)?, path)
    }

    /// The model at `path`, whose container is open already.
    ///
    /// # Errors
    /// As [`ModelFiles::open`].
    pub fn of(model: OpenModel, path: &Path) -> Result<ModelFiles> {
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
                let catalog = catalog(&config, checkpoint)?;
                Ok(ModelFiles { config, catalog, path, dir, gguf: None, identity: OnceLock::new() })
            }
        }
    }

    /// A GGUF that is open already, or lies in memory; it has no directory.
    ///
    /// # Errors
    /// As [`ModelFiles::open`].
    pub fn from_gguf(file: Arc<GgufFile>) -> Result<ModelFiles> {
        let config = ModelConfig::from_gguf_with(file.metadata(), file.tensors())?;
        let catalog = catalog(&config, file.clone())?;
        let (path, dir) = (file.path().to_owned(), PathBuf::new());
        Ok(ModelFiles { config, catalog, path, dir, gguf: Some(file), identity: OnceLock::new() })
    }

    /// The same model with its MTP block (multi-token prediction), which guesses the token behind the next one.
    ///
    /// # Errors
    /// [`LoadError::NoMtp`] for a model without such a block, or of an architecture whose block is not known here.
    pub fn with_mtp(&self) -> Result<ModelFiles> {
        let absent = || Error::Load(LoadError::NoMtp).in_model(&self.path);
        if !self.config.has_mtp() {
            return Err(absent());
        }
        let config = ModelConfig { reads_mtp: true, ..self.config.clone() };
        let catalog = catalog(&config, self.catalog.source().clone())?;
        let is_projection = |name: &str| config.is_of_mtp(name) && name.ends_with(MTP_PROJECTION);
        if !catalog.tensors().iter().any(|tensor| is_projection(&tensor.name)) {
            return Err(absent());
        }
        let (gguf, path, dir) = (self.gguf.clone(), self.path.clone(), self.dir.clone());
        Ok(ModelFiles { config, catalog, gguf, path, dir, identity: self.identity.clone() })
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

    /// Whether `out` exists and is a file of the model, so that writing it would destroy the model: its weights, another
    /// shard, or any file of a checkpoint directory that is no GGUF.
    #[must_use]
    pub fn holds(&self, out: &Path) -> bool {
        let real = |path: &Path| path.canonicalize().ok();
        let Some(target) = real(out) else { return false };
        if let Some(file) = &self.gguf {
            return file.paths().any(|part| real(part).as_ref() == Some(&target));
        }
        let is_part = |place: &Path| {
            let is_gguf = place.extension().is_some_and(|ending| ending == "gguf");
            !is_gguf && place.parent().and_then(real) == real(&self.dir)
        };
        // In the Hugging Face cache a part of the model is a link, and the target lies elsewhere.
        let named = std::path::absolute(out).unwrap_or_else(|_| out.to_owned());
        real(&self.path).as_ref() == Some(&target) || is_part(&target) || is_part(&named)
    }

    /// Compares the tensors of the file with those that its configuration requires. Reads no weights.
    #[must_use]
    pub fn report(&self) -> DiscoveryReport {
        gguf_bitnet::validate(&self.catalog, &expected_tensors(&self.config))
    }

    /// The reasons why the model cannot be run, as [`CraftsmanModel::load`](crate::CraftsmanModel::load) and its chat
    /// template would give them. Of the weights only the end of each file is read, so that matrices of zeros and invalid
    /// codes are not among them; nor is the reason why the model has no `tokenizer`.
    #[must_use]
    pub fn obstacles(&self, tokenizer: Option<&Tokenizer>) -> Vec<Error> {
        let located = |error: Error| error.in_model(&self.path);
        let mut obstacles: Vec<Error> = self.config.attention_parts().err().map(located).into_iter().collect();
        obstacles.extend(self.report().deviations().into_iter().map(Error::Source));
        let tails = Weightless { tails: self.catalog.source().zero_tails(), ..Weightless::default() };
        obstacles.extend(tails.refuse(&self.path).err().map(Error::Source));
        obstacles.extend(self.sampling().err());
        obstacles.extend(tokenizer.and_then(|tokenizer| first_message(tokenizer).err()));
        obstacles
    }

    /// The weights that the model lacks: whole matrices and the ends of files. Reads little.
    ///
    /// # Errors
    /// As [`Weightless::find`].
    pub fn weightless(&self) -> Result<Weightless> {
        Ok(Weightless::find(&self.catalog)?)
    }

    /// The identity of the model as hexadecimal BLAKE3; `progress` gets the bytes done and their total. The first call reads all
    /// of the model, and later ones give the same identity at once.
    ///
    /// # Errors
    /// As [`gguf_bitnet::identity_of`].
    pub fn identity(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<String> {
        Ok(blake3::Hash::from_bytes(self.identity_bytes(progress)?).to_string())
    }

    /// As [`ModelFiles::identity`], the hash itself.
    ///
    /// # Errors
    /// As [`ModelFiles::identity`].
    pub fn identity_bytes(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<[u8; 32]> {
        if let Some(identity) = self.identity.get() {
            return Ok(*identity);
        }
        let metadata = self.gguf().map(GgufFile::metadata);
        let identity = *gguf_bitnet::identity_of(&**self.catalog.source(), metadata, progress)?.as_bytes();
        Ok(*self.identity.get_or_init(|| identity))
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

    /// The facts that the model's files do not state and that change its results, with the values taken in their place;
    /// those about text where the model has a `tokenizer`.
    #[must_use]
    pub fn guesses(&self, tokenizer: Option<&Tokenizer>) -> Vec<Guess> {
        let mut guesses = self.config.guesses.clone();
        let Some(tokenizer) = tokenizer else { return guesses };
        guesses.extend_from_slice(tokenizer.guesses());
        let (tokens, rows) = (tokenizer.vocab_size(), self.config.vocab);
        if tokens < rows && !tokenizer.is_byte_fallback() {
            let reason =
                format!("the model has {rows} rows of embedding and {tokens} tokens; the others stand for no text");
            guesses.push(Guess::new(format!("token {tokens}"), format!("{} tokens of padding", rows - tokens), reason));
        }
        guesses
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

/// The tensor that every MTP block has.
const MTP_PROJECTION: &str = ".nextn.eh_proj.weight";

/// The tensors of `source` under the names that `config` lists.
fn catalog(config: &ModelConfig, source: Arc<dyn TensorSource>) -> Result<Catalog> {
    let mut catalog = mapper(config).map(source)?;
    if config.head == Presence::Absent {
        // Some tied checkpoints store the embedding a second time as the head; transformers ignores it too.
        catalog.skip("output.weight");
    }
    Ok(catalog)
}

/// Makes a first message into tokens, as a conversation does.
fn first_message(tokenizer: &Tokenizer) -> Result<()> {
    if let Some(template) = ChatTemplate::of_model(tokenizer)? {
        tokenizer.encode_prompt(&template.prompt(&ChatRequest::user(None, "hi"))?)?;
    }
    Ok(())
}

/// The error about a web page that was saved under the name of a JSON file.
fn page(text: &str, path: &Path) -> Option<Error> {
    let kind = FileKind::of_page(text)?;
    Some(gguf_bitnet::Error::from(SourceError::OtherFile { kind }).in_file(path).into())
}
