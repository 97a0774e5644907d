//! Finding and opening the model that a user names.
//!
//! A model is a file, a directory, or the name of a model in the local Hugging Face cache. Nothing
//! is ever downloaded, and no environment variable is read here: the caller says where the cache is.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::ModelError;
use crate::error::{Error, Locate, Result};
use crate::gguf::{GgufFile, parse_file_name};
use crate::safetensors::{SafetensorsDir, file_names, has_checkpoint, looks_like_safetensors};
use crate::source::SourceError;
use crate::source::TensorSource;

/// An open model file or directory, by container format.
#[derive(Clone, Debug)]
pub enum OpenModel {
    /// A GGUF file or a split set of them: configuration and tokenizer are in its metadata.
    Gguf(Arc<GgufFile>),
    /// A safetensors checkpoint: configuration and tokenizer lie beside it.
    Safetensors(Arc<SafetensorsDir>),
}

impl OpenModel {
    /// Opens a file or a directory that [`resolve_model`] has found.
    ///
    /// # Errors
    /// [`SourceError::NotAModel`] for a file of another kind; the defects of the container.
    pub fn open(path: &Path) -> Result<OpenModel> {
        let path = resolve_path(path)?;
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

/// Finds the file or directory a user means: an existing path, or `organisation/name` of a model in
/// the Hugging Face cache below `hf_home` (`hub/models--organisation--name/snapshots/REVISION`, the
/// revision being that of `refs/main`). A directory of GGUF files gives the file.
///
/// # Errors
/// [`ModelError::NoSuchModel`] or [`ModelError::NotCached`] when there is none, [`SourceError::EmptyDirectory`],
/// [`SourceError::NoModelFiles`], [`SourceError::AmbiguousDirectory`], [`ModelError::BrokenCache`], [`StoreError::Io`](crate::StoreError::Io).
pub fn resolve_model(spec: &str, hf_home: Option<&Path>) -> Result<PathBuf> {
    let no_such = || ModelError::NoSuchModel { spec: spec.to_owned() };
    if spec.is_empty() || spec.contains('\0') {
        return Err(no_such().into());
    }
    match fs::metadata(spec) {
        Ok(_) => resolve_path(Path::new(spec)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            match (hub_name(spec), hf_home) {
                (Some(folder), Some(home)) => resolve_cached(spec, &home.join("hub").join(folder)),
                _ => Err(no_such().into()),
            }
        }
        Err(error) => Err(Error::io("open", spec)(error)),
    }
}

/// An existing file or directory: a checkpoint directory, or the GGUF file it holds.
fn resolve_path(path: &Path) -> Result<PathBuf> {
    let metadata = fs::metadata(path).map_err(Error::io("open", path))?;
    if !metadata.is_dir() {
        return Ok(path.to_owned());
    }
    let names = file_names(path)?;
    if has_checkpoint(&names) {
        return Ok(path.to_owned());
    }
    let files: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| name.to_ascii_lowercase().ends_with(".gguf")).collect();
    // Opening one part opens the set, so a set counts as one file.
    let set = |name: &&str| parse_file_name(name).map_or((String::from(*name), 0), |(set, _, n)| (set.to_owned(), n));
    let error = match files.first() {
        Some(first) if files.iter().all(|name| set(name) == set(first)) => return Ok(path.join(first)),
        Some(_) => SourceError::AmbiguousDirectory { files: files.join(", ") },
        None if names.is_empty() => SourceError::EmptyDirectory,
        None => SourceError::NoModelFiles,
    };
    Err(error.in_file(path))
}

/// The cache folder of a model name, if `spec` is one.
fn hub_name(spec: &str) -> Option<String> {
    let (organisation, name) = spec.split_once('/')?;
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    (plain(organisation) && plain(name)).then(|| format!("models--{organisation}--{name}"))
}

fn resolve_cached(spec: &str, folder: &Path) -> Result<PathBuf> {
    if !folder.is_dir() {
        return Err(ModelError::NotCached { spec: spec.to_owned(), looked: folder.to_owned() }.into());
    }
    let broken = |what| ModelError::BrokenCache { what }.in_file(folder);
    let snapshots = folder.join("snapshots");
    let revision = match fs::read_to_string(folder.join("refs").join("main")) {
        Ok(text) => text.trim().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A model that was fetched by revision has no branch; if it has one snapshot, that is the model.
            match file_names(&snapshots).unwrap_or_default().as_slice() {
                [only] => only.clone(),
                [] => return Err(broken("it holds none")),
                _ => return Err(broken("it holds several and refs/main does not say which")),
            }
        }
        Err(error) => return Err(Error::io("read", folder.join("refs/main"))(error)),
    };
    if revision.is_empty() || !revision.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(broken("refs/main holds no revision"));
    }
    let snapshot = snapshots.join(revision);
    if !snapshot.is_dir() {
        return Err(broken("the revision of refs/main is not there"));
    }
    resolve_path(&snapshot)
}

enum Kind {
    Gguf,
    Safetensors,
}

/// The format of a file by its first bytes, or by its extension where the bytes match no format.
fn kind_of(path: &Path) -> Result<Kind> {
    // A pipe would block the open until another process writes to it.
    if !fs::metadata(path).map_err(Error::io("open", path))?.is_file() {
        return Err(SourceError::NotAModel.in_file(path));
    }
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut prefix = Vec::with_capacity(16);
    file.take(16).read_to_end(&mut prefix).map_err(Error::io("read", path))?;
    let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
    let named = |wanted: &str| extension.as_ref().is_some_and(|extension| extension == wanted);
    if prefix.is_empty() {
        Err(SourceError::EmptyFile.in_file(path))
    } else if prefix.starts_with(b"GGUF") {
        Ok(Kind::Gguf)
    } else if looks_like_safetensors(&prefix) || named("safetensors") {
        Ok(Kind::Safetensors)
    } else if named("gguf") {
        Ok(Kind::Gguf)
    } else {
        Err(SourceError::NotAModel.in_file(path))
    }
}
