//! Finding the model that a user names: a path, or a name in the local Hugging Face cache.
//!
//! ```text
//! HUB/models--ORGANISATION--NAME/refs/main              the revision
//! HUB/models--ORGANISATION--NAME/snapshots/REVISION/    links into blobs/
//! ```
//! Nothing is ever downloaded, and no environment variable is read here: the caller says where the cache is.
//!
//! **Invariant:** no name, reference or link of the cache leads out of the folder of its model.
//!
//! Source: the cache layout of `huggingface_hub`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::ModelError;
use super::folder::model_in;
use crate::error::{Error, Locate, Result};
use crate::safetensors::file_names;
use crate::shown::{Shown, listed};
use crate::store::disk::parent;
use crate::store::read_text;

/// Most bytes of a reference: a revision has 40.
const MAX_REF_BYTES: u64 = 4096;

/// Endings of the files that a model is read from.
const MODEL_FILES: [&str; 4] = [".safetensors", ".gguf", ".json", ".jinja"];

/// Finds the file or directory a user means: an existing path, or a name in the Hugging Face cache `hub` (the folder that
/// holds `models--ORGANISATION--NAME`):
///
/// - `organisation/name`, or `name` alone: the snapshot of `refs/main`, or the only one;
/// - `organisation/name:TYPE`: the GGUF file of the snapshot with this type in its name, in any case of letters;
/// - `organisation/name/folder/file.gguf`: a file or folder of the snapshot.
///
/// A directory of GGUF files gives the file; a companion such as a projector is passed over. `DIRECTORY:TYPE` is read
/// like a name.
///
/// # Errors
/// [`ModelError::NoSuchModel`], [`ModelError::NotCached`], [`ModelError::BrokenCache`], [`ModelError::NotInSnapshot`],
/// [`ModelError::StandardInput`]; those of a directory without a model, or with several:
/// [`SourceError`](crate::SourceError); [`StoreError::Io`](crate::StoreError::Io).
pub fn resolve_model(spec: &str, hub: Option<&Path>) -> Result<PathBuf> {
    let no_such = || ModelError::NoSuchModel { spec: spec.to_owned() };
    if spec == "-" {
        return Err(ModelError::StandardInput.into());
    }
    if spec.is_empty() || spec.contains('\0') {
        return Err(no_such().into());
    }
    match fs::metadata(spec) {
        Ok(metadata) if metadata.is_dir() => return model_in(Path::new(spec), None),
        Ok(_) => return Ok(PathBuf::from(spec)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
        Err(error) => return Err(Error::io("open", spec)(error)),
    }
    if fs::symlink_metadata(spec).is_ok() {
        return Err(ModelError::LostLink.in_file(spec));
    }
    if let Some((dir, quant)) = split_quant(spec)
        && Path::new(dir).is_dir()
    {
        return model_in(Path::new(dir), Some(quant));
    }
    let (Some(name), Some(hub)) = (CachedName::parse(spec), hub) else { return Err(no_such().into()) };
    let folder = hub.join(&name.folder);
    if folder.is_dir() {
        return name.resolve(spec, &folder);
    }
    // A single word, or a path of three or more parts, is more likely a path that was mistyped than a model.
    match name.is_plain_pair {
        true => Err(ModelError::NotCached { spec: spec.to_owned(), looked: folder }.into()),
        false => Err(no_such().into()),
    }
}

/// The part before the last colon, and the type behind it.
fn split_quant(spec: &str) -> Option<(&str, &str)> {
    let (rest, quant) = spec.rsplit_once(':')?;
    let plain = quant.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    (!quant.is_empty() && plain).then_some((rest, quant))
}

/// A name in the cache, taken apart.
struct CachedName<'a> {
    /// The name of the model's folder in the cache, `models--ORGANISATION--NAME`.
    folder: String,
    /// The path of a file or folder in the snapshot; empty for the snapshot itself.
    inside: &'a str,
    quant: Option<&'a str>,
    /// Whether it is an organisation and a name, with nothing behind them but a type.
    is_plain_pair: bool,
}

impl<'a> CachedName<'a> {
    fn parse(spec: &'a str) -> Option<CachedName<'a>> {
        let (rest, quant) = split_quant(spec).map_or((spec, None), |(rest, quant)| (rest, Some(quant)));
        let (organisation, rest) = rest.split_once('/').map_or((None, rest), |(first, rest)| (Some(first), rest));
        let (name, inside) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        let stays = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', ':']);
        if !plain(name) || !organisation.is_none_or(plain) || !(inside.is_empty() || inside.split('/').all(stays)) {
            return None;
        }
        let parts: Vec<&str> = organisation.into_iter().chain([name]).collect();
        let is_plain_pair = organisation.is_some() && inside.is_empty();
        Some(CachedName { folder: format!("models--{}", parts.join("--")), inside, quant, is_plain_pair })
    }

    /// The model in the cache folder `folder`, which exists.
    fn resolve(&self, spec: &str, folder: &Path) -> Result<PathBuf> {
        let snapshot = snapshot(folder)?;
        let place = match self.inside {
            "" => snapshot.clone(),
            inside => snapshot.join(inside),
        };
        if fs::symlink_metadata(&place).is_err() {
            let files = listed(&file_names(&snapshot)?);
            return Err(ModelError::NotInSnapshot { spec: spec.to_owned(), files }.in_file(snapshot));
        }
        if !place.is_dir() {
            check_link(folder, &place)?;
            check_entries(folder, parent(&place))?;
            return Ok(place);
        }
        for name in file_names(&place)?.iter().filter(|name| is_model_file(name)) {
            check_link(folder, &place.join(name))?;
        }
        check_entries(folder, &place)?;
        let model = model_in(&place, self.quant)?;
        check_link(folder, &model)?;
        Ok(model)
    }
}

/// The snapshot of `refs/main` below `folder`, or its only one.
fn snapshot(folder: &Path) -> Result<PathBuf> {
    let broken = |what: &str| broken(folder, what);
    let snapshots = folder.join("snapshots");
    let main = folder.join("refs").join("main");
    if fs::symlink_metadata(&main).is_err() {
        // A model that was fetched by revision has no branch; if it has one snapshot, that is the model.
        let mut names = file_names(&snapshots).unwrap_or_default();
        names.retain(|name| snapshots.join(name).is_dir());
        return match names.as_slice() {
            [only] => Ok(snapshots.join(only)),
            [] => Err(broken("it holds none")),
            _ => Err(broken("it holds several and refs/main does not say which")),
        };
    }
    let revision = read_text(&main, MAX_REF_BYTES)?;
    let revision = revision.trim();
    if revision.is_empty() || !revision.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(broken("refs/main holds no revision"));
    }
    let snapshot = snapshots.join(revision);
    if snapshot.is_dir() { Ok(snapshot) } else { Err(broken("the revision of refs/main is not there")) }
}

/// Whether a model is read from files of this name.
fn is_model_file(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    MODEL_FILES.iter().any(|ending| name.ends_with(ending))
}

/// Checks that no entry of a directory, nor of the directories in it, is a link out of the folder of its model.
fn check_entries(folder: &Path, dir: &Path) -> Result<()> {
    for name in file_names(dir)? {
        let entry = dir.join(name);
        check_inside(folder, &entry)?;
        if entry.is_dir() {
            // A directory that cannot be listed holds no model for this user.
            let names = file_names(&entry).unwrap_or_default();
            names.iter().try_for_each(|name| check_inside(folder, &entry.join(name)))?;
        }
    }
    Ok(())
}

/// Checks that a file of a snapshot is there and lies in the folder of its model.
fn check_link(folder: &Path, path: &Path) -> Result<()> {
    if !path.exists() {
        return Err(broken(folder, format!("the content of {} is not there", name_of(path))));
    }
    check_inside(folder, path)
}

/// Checks that a path lies in the folder of its model, where its link may point into `blobs`. A link to nothing does.
fn check_inside(folder: &Path, path: &Path) -> Result<()> {
    let Ok(real) = path.canonicalize() else { return Ok(()) };
    // The folders may be links themselves, to another disk.
    let own = [folder.canonicalize(), folder.join("blobs").canonicalize()];
    if own.iter().flatten().any(|own| real.starts_with(own)) {
        return Ok(());
    }
    Err(broken(folder, format!("{} is a link out of the cache, to {}", name_of(path), real.display())))
}

/// The name of a file for a message.
fn name_of(path: &Path) -> String {
    Shown(&path.file_name().unwrap_or_default().to_string_lossy()).to_string()
}

fn broken(folder: &Path, what: impl Into<String>) -> Error {
    ModelError::BrokenCache { what: what.into() }.in_file(folder)
}
