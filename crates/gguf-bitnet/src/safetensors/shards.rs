//! The files of a directory that make up its checkpoint.
//!
//! **Invariant:** every name returned is a plain file name, so no index can reach out of the
//! directory. (The files themselves may be links: the Hugging Face cache is made of them.)

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::error::SafetensorsError;
use crate::error::{Error, Locate, Result};
use crate::source::SourceError;

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

/// Whether a directory with these file names holds a safetensors checkpoint.
pub(crate) fn has_checkpoint(names: &[String]) -> bool {
    names.iter().any(|name| name.ends_with(SUFFIX) || name.ends_with(INDEX_SUFFIX))
}

/// Finds the checkpoint of a directory: an index and its shards, else `model.safetensors`, else
/// numbered shards, else the only `.safetensors` file.
pub(super) fn find(dir: &Path) -> Result<ShardSet> {
    choose(dir, &file_names(dir)?).map_err(|error| error.in_file(dir))
}

/// Names of the entries of a directory, ascending; names that are not UTF-8 are left out, as no checkpoint has such files.
pub(crate) fn file_names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let entry = entry.map_err(Error::io("list", dir))?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn choose(dir: &Path, names: &[String]) -> Result<ShardSet> {
    let indices: Vec<&String> = names.iter().filter(|name| name.ends_with(INDEX_SUFFIX)).collect();
    let files: Vec<&String> = names.iter().filter(|name| name.ends_with(SUFFIX)).collect();
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
    let numbered: Vec<(&str, u32, u32)> = files.iter().filter_map(|name| shard_number(name)).collect();
    if let Some(&(base, _, count)) = numbered.first() {
        if numbered.iter().any(|&(other, _, n)| (other, n) != (base, count)) {
            return Err(ambiguous(&files));
        }
        return complete_set(base, count, &numbered).map(plain);
    }
    match files[..] {
        [] if names.is_empty() => Err(SourceError::EmptyDirectory.into()),
        [] => Err(SourceError::NoModelFiles.into()),
        [file] => Ok(plain(vec![file.clone()])),
        _ => Err(ambiguous(&files)),
    }
}

/// All names of a set of numbered shards, which must all be there.
fn complete_set(base: &str, count: u32, present: &[(&str, u32, u32)]) -> Result<Vec<String>> {
    let have: BTreeSet<u32> = present.iter().map(|&(_, number, _)| number).collect();
    let name = |number: u32| format!("{base}-{number:05}-of-{count:05}{SUFFIX}");
    // The numbers present bound the loop: the first gap ends it.
    for number in 1..=count {
        if !have.contains(&number) {
            return Err(SafetensorsError::ShardMissing { file: name(number) }.into());
        }
    }
    Ok((1..=count).map(name).collect())
}

/// Splits `NAME-00002-of-00007.safetensors` into name, number and count.
fn shard_number(file: &str) -> Option<(&str, u32, u32)> {
    let stem = file.strip_suffix(SUFFIX)?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (base, number) = rest.rsplit_once('-')?;
    let parse = |digits: &str| {
        let plain = digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    };
    let (number, count) = (parse(number)?, parse(count)?);
    (1..=count).contains(&number).then_some((base, number, count))
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn read_index(dir: &Path, index: &str, names: &[String]) -> Result<ShardSet> {
    let path = dir.join(index);
    let text = std::fs::read(&path).map_err(Error::io("read", &path))?;
    let Index { weight_map } =
        serde_json::from_slice(&text).map_err(|source| SafetensorsError::IndexJson { source }.in_file(&path))?;
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
    match files.iter().find(|file| !names.contains(file)) {
        Some(file) => Err(SafetensorsError::ShardMissing { file: file.clone() }.into()),
        None => Ok(ShardSet { files: files.into_iter().collect(), weight_map }),
    }
}

/// Whether `name` names no directory on any system, so that joining it to a directory stays inside.
fn is_plain_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', ':', '\0'])
}

fn ambiguous(files: &[&String]) -> Error {
    let mut listed: Vec<&str> = files.iter().take(4).map(|name| name.as_str()).collect();
    if files.len() > listed.len() {
        listed.push("...");
    }
    SourceError::AmbiguousDirectory { files: listed.join(", ") }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_numbers() {
        assert_eq!(shard_number("m-00002-of-00007.safetensors"), Some(("m", 2, 7)));
        assert_eq!(shard_number("a-b-00001-of-00001.safetensors"), Some(("a-b", 1, 1)));
        for name in [
            "m-00008-of-00007.safetensors",
            "m-00000-of-00007.safetensors",
            "m-1-of-7.safetensors",
            "m-+0001-of-00007.safetensors",
            "m-00001-of-00007.gguf",
            "model.safetensors",
        ] {
            assert_eq!(shard_number(name), None, "{name}");
        }
    }

    #[test]
    fn plain_names_have_no_directory() {
        assert!(is_plain_file_name("model-00001-of-00002.safetensors"));
        for name in ["", ".", "..", "/etc/passwd", "../x", "a/b", "a\\b", "C:x", "a\0b"] {
            assert!(!is_plain_file_name(name), "{name}");
        }
    }
}
