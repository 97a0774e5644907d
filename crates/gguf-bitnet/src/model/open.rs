//! Opening a model of either format: a file, or the directory of a checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::folder::model_in;
use super::role::Role;
use crate::error::{Locate, Result};
use crate::gguf::GgufFile;
use crate::safetensors::{SafetensorsDir, looks_like_safetensors};
use crate::source::{FileKind, START_BYTES, SourceError, TensorSource};
use crate::store::read_start;

/// An open model file or directory, by container format.
#[derive(Clone, Debug)]
pub enum OpenModel {
    /// A GGUF file or a split set of them: configuration and tokenizer are in its metadata.
    Gguf(Arc<GgufFile>),
    /// A safetensors checkpoint: configuration and tokenizer lie beside it.
    Safetensors(Arc<SafetensorsDir>),
}

impl OpenModel {
    /// Opens a file or a directory that [`resolve_model`](crate::resolve_model) has found.
    ///
    /// # Errors
    /// [`SourceError::OtherFile`] and [`SourceError::NotAModel`] for a file of another kind; the defects of the container.
    pub fn open(path: &Path) -> Result<OpenModel> {
        let path = if path.is_dir() { model_in(path, None)? } else { path.to_owned() };
        if path.is_dir() {
            return Ok(OpenModel::Safetensors(Arc::new(SafetensorsDir::open(&path)?)));
        }
        match kind_of(&path)? {
            Kind::Gguf => Ok(OpenModel::Gguf(Arc::new(GgufFile::open(&path)?))),
            Kind::Safetensors => Ok(OpenModel::Safetensors(Arc::new(SafetensorsDir::open(&path)?))),
        }
    }

    /// The tensors of the model, of either format.
    pub fn source(&self) -> Arc<dyn TensorSource> {
        match self {
            OpenModel::Gguf(file) => Arc::clone(file) as Arc<dyn TensorSource>,
            OpenModel::Safetensors(dir) => Arc::clone(dir) as Arc<dyn TensorSource>,
        }
    }

    /// The purpose of the file: a model, or a companion of one.
    pub fn role(&self) -> Role {
        match self {
            OpenModel::Gguf(file) => Role::of(&**file, Some(file.metadata())),
            OpenModel::Safetensors(dir) => Role::of(&**dir, None),
        }
    }

    /// The directory of the model: where a checkpoint's `config.json` and `tokenizer.json` lie.
    pub fn dir(&self) -> PathBuf {
        let source = self.source();
        let path = source.path();
        if path.is_dir() { path.to_owned() } else { crate::store::disk::parent(path).to_owned() }
    }
}

/// Opens a file or a directory as a source of tensors.
///
/// # Errors
/// As [`OpenModel::open`].
///
/// ```
/// let source = gguf_bitnet::open_source(&fixtures::path("goldens/glm-tiny"))?;
/// assert!(source.index_of("lm_head.weight").is_some());
/// # Ok::<(), gguf_bitnet::Error>(())
/// ```
pub fn open_source(path: &Path) -> Result<Arc<dyn TensorSource>> {
    OpenModel::open(path).map(|model| model.source())
}

enum Kind {
    Gguf,
    Safetensors,
}

/// The format of a file by its first bytes, or by its extension where the bytes match no format.
fn kind_of(path: &Path) -> Result<Kind> {
    let start = read_start(path, START_BYTES)?;
    let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
    let named = |wanted: &str| extension.as_ref().is_some_and(|extension| extension == wanted);
    if start.is_empty() {
        Err(SourceError::EmptyFile.in_file(path))
    } else if start.starts_with(b"GGUF") {
        Ok(Kind::Gguf)
    } else if looks_like_safetensors(&start) {
        Ok(Kind::Safetensors)
    } else if let Some(kind) = FileKind::of(&start) {
        Err(SourceError::OtherFile { kind }.in_file(path))
    } else if named("safetensors") {
        Ok(Kind::Safetensors)
    } else if named("gguf") {
        Ok(Kind::Gguf)
    } else {
        Err(SourceError::NotAModel.in_file(path))
    }
}
