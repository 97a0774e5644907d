//! The files of a directory that make up its checkpoint.
//!
//! **Invariant:** every name returned is a plain file name, so no index can reach out of the
//! directory. (The files themselves may be links: the Hugging Face cache is made of them.)

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::error::SafetensorsError;
use crate::error::{Error, Locate, Result};
use crate::shown::listed;
use crate::source::{FileKind, ShardName, SourceError};
use crate::store::read_text;

const SINGLE: &str = "model.safetensors";
const SUFFIX: &str = ".safetensors";
const INDEX_SUFFIX: &str = ".safetensors.index.json";

/// The files of a checkpoint, and the place of each tensor according to its index.
#[derive(Debug)]
pub(super) struct ShardSet {
    /// Names of the files, ascending.
    pub(super) files: Vec<String>,
    /// Tensor name to file name; empty without an index.
    pub(super) weight_map: BTreeMap<String, String>,
}

/// Most bytes of an index; that of a model with 100,000 tensors has about 10 MB.
const MAX_INDEX_BYTES: u64 = 64 << 20;
/// Files of tensors that lie beside a model and are none: adapters, and the state of an optimiser.
const COMPANIONS: [&str; 2] = ["adapter_model", "optimizer"];

/// Whether a directory with these file names holds a safetensors checkpoint.
pub(crate) fn has_checkpoint(names: &[String]) -> bool {
    names.iter().any(|name| is_checkpoint_file(name))
}

fn is_checkpoint_file(name: &str) -> bool {
    (name.ends_with(SUFFIX) || name.ends_with(INDEX_SUFFIX)) && !COMPANIONS.iter().any(|other| name.starts_with(other))
}

/// Finds the checkpoint of a directory: an index and its shards, else `model.safetensors`, else
/// numbered shards, else the only `.safetensors` file.
pub(super) fn find(dir: &Path) -> Result<ShardSet> {
    choose(dir, &file_names(dir)?).map_err(|error| error.in_file(dir))
}

/// Names of the entries of a directory, ascending. Names that are not UTF-8 are left out, as no model has such files, and
/// names that begin with a dot: systems and programs keep notes of their own under them (`.DS_Store`, `._model.gguf`).
pub(crate) fn file_names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let entry = entry.map_err(Error::io("list", dir))?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn choose(dir: &Path, names: &[String]) -> Result<ShardSet> {
    let ours = || names.iter().filter(|name| is_checkpoint_file(name));
    let indices: Vec<&String> = ours().filter(|name| name.ends_with(INDEX_SUFFIX)).collect();
    let files: Vec<&String> = ours().filter(|name| name.ends_with(SUFFIX)).collect();
    match indices[..] {
        [] => {}
        [index] => {
            let set = read_index(dir, index, names)?;
            // A whole model lies beside an index of other files. Either may be outdated, so neither is chosen.
            let single = files.iter().any(|name| *name == SINGLE);
            if single && !set.files.iter().any(|name| name == SINGLE) {
                return Err(ambiguous(&[index, &SINGLE.to_owned()]));
            }
            return Ok(set);
        }
        _ => return Err(ambiguous(&indices)),
    }
    let plain = |files: Vec<String>| ShardSet { files, weight_map: BTreeMap::new() };
    if files.iter().any(|name| *name == SINGLE) {
        return Ok(plain(vec![SINGLE.to_owned()]));
    }
    let numbered: Vec<ShardName<'_>> = files.iter().filter_map(|name| ShardName::parse(name, SUFFIX)).collect();
    if let Some(first) = numbered.first() {
        if numbered.iter().any(|other| !other.same_set(first)) {
            return Err(ambiguous(&files));
        }
        // Writers keep the digits, so the names of all numbers follow from the first. Where the count is larger than the
        // directory, a few names are enough to tell which are missing.
        let wanted = (1..=first.count).take(names.len() + 8).map(|number| first.sibling(number));
        return Ok(plain(present(wanted, names)?));
    }
    match files[..] {
        [] if names.is_empty() => Err(SourceError::EmptyDirectory.into()),
        [] => Err(SourceError::NoModelFiles.into()),
        [file] => Ok(plain(vec![file.clone()])),
        _ => Err(ambiguous(&files)),
    }
}

/// The shards called `wanted`, which must all be among the `names` of the directory.
fn present(wanted: impl Iterator<Item = String>, names: &[String]) -> Result<Vec<String>> {
    let have: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let (present, missing): (Vec<_>, Vec<_>) = wanted.partition(|name| have.contains(name.as_str()));
    if missing.is_empty() {
        Ok(present)
    } else {
        Err(SafetensorsError::ShardsMissing { files: listed(&missing) }.into())
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn read_index(dir: &Path, index: &str, names: &[String]) -> Result<ShardSet> {
    let path = dir.join(index);
    let text = read_text(&path, MAX_INDEX_BYTES)?;
    let Index { weight_map } = serde_json::from_str(&text).map_err(|source| match FileKind::of_page(&text) {
        Some(kind) => SourceError::OtherFile { kind }.in_file(&path),
        None => SafetensorsError::IndexJson { source }.in_file(&path),
    })?;
    let mut files = BTreeSet::new();
    for (tensor, file) in &weight_map {
        if !is_plain_file_name(file) {
            let error = SafetensorsError::IndexEscape { file: file.clone() };
            return Err(error.in_tensor(tensor).in_file(&path));
        }
        files.insert(file.clone());
    }
    if files.is_empty() {
        return Err(SafetensorsError::IndexEmpty.in_file(&path));
    }
    Ok(ShardSet { files: present(files.into_iter(), names)?, weight_map })
}

/// Whether `name` names no directory on any system, so that joining it to a directory stays inside.
fn is_plain_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', ':', '\0'])
}

fn ambiguous(files: &[&String]) -> Error {
    SourceError::AmbiguousDirectory { files: listed(files) }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_have_no_directory() {
        assert!(is_plain_file_name("model-00001-of-00002.safetensors"));
        for name in ["", ".", "..", "/etc/passwd", "../x", "a/b", "a\\b", "C:x", "a\0b"] {
            assert!(!is_plain_file_name(name), "{name}");
        }
    }
}
