//! Choosing the model of a directory: a checkpoint, or one GGUF among the files that lie beside it.
//!
//! A checkpoint goes before GGUF files, which are as a rule made of it; without its `config.json` it is none.
//!
//! **Invariant:** a companion (a projector, an importance matrix, an adapter) never hides a model, and of two GGUF models
//! none is chosen silently.

use std::path::{Path, PathBuf};

use super::error::ModelError;
use super::role::Role;
use crate::error::{Error, Locate, Result};
use crate::gguf::{ENDING, GgufFile};
use crate::safetensors::{file_names, has_checkpoint};
use crate::shown::listed;
use crate::source::{FileKind, START_BYTES, ShardName, SourceError};
use crate::store::read_start;

/// Most GGUF files that are opened to tell models from companions.
const MAX_OPENED: usize = 64;

/// Endings of the files that hold models in a form that is not read here.
const OTHER_FORMS: [&str; 14] =
    ["bin", "pt", "pth", "ckpt", "pkl", "onnx", "h5", "npz", "tflite", "zip", "tar", "gz", "zst", "7z"];

/// The model in the directory `dir`: the directory itself where it holds a checkpoint, or else its GGUF file. With
/// `quant`, the GGUF file that has this type in its name or in that of its folder.
///
/// # Errors
/// [`SourceError::EmptyDirectory`], [`SourceError::NoModelFiles`], [`SourceError::AmbiguousDirectory`],
/// [`SourceError::OtherFile`] where the files are models of another kind, [`ModelError::NoSuchQuant`].
pub(super) fn model_in(dir: &Path, quant: Option<&str>) -> Result<PathBuf> {
    let names = file_names(dir)?;
    let mut found = candidates(dir, "", &names);
    let is_whole = found.is_empty() || names.iter().any(|name| name == "config.json");
    if quant.is_none() && has_checkpoint(&names) && is_whole {
        return Ok(dir.to_owned());
    }
    if found.is_empty() || quant.is_some() {
        for folder in names.iter().filter(|name| dir.join(name).is_dir()) {
            // A folder that cannot be listed holds no model for this user.
            found.extend(candidates(dir, folder, &file_names(&dir.join(folder)).unwrap_or_default()));
        }
    }
    if let Some(quant) = quant {
        let files = if found.is_empty() { "no GGUF file".to_owned() } else { listed(&found) };
        found = matching(found, quant);
        if found.is_empty() {
            return Err(ModelError::NoSuchQuant { quant: quant.to_owned(), files }.in_file(dir));
        }
    }
    match models_of(dir, &found)[..] {
        [only] => Ok(dir.join(only)),
        [] => Err(no_model(dir, &names)),
        ref several => Err(SourceError::AmbiguousDirectory { files: listed(several) }.in_file(dir)),
    }
}

/// The GGUF files among `names`, the entries of `folder` in `dir`, as paths from `dir` with forward slashes; of a split set the
/// first file.
fn candidates(dir: &Path, folder: &str, names: &[String]) -> Vec<String> {
    let mut first_of_sets: Vec<ShardName<'_>> = Vec::new();
    let mut found = Vec::new();
    for name in names {
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if !name.to_ascii_lowercase().ends_with(ENDING) || dir.join(&path).is_dir() {
            continue;
        }
        // Opening one part opens the set, so a set counts as one file.
        if let Some(shard) = ShardName::parse(name, ENDING) {
            if first_of_sets.iter().any(|first| first.same_set(&shard)) {
                continue;
            }
            first_of_sets.push(shard);
        }
        found.push(path);
    }
    found
}

/// The candidates whose names have the type `quant`, as a word where there are such, or else as a part of a word.
fn matching(found: Vec<String>, quant: &str) -> Vec<String> {
    let wanted = quant.to_ascii_lowercase();
    let is_word = |name: &str| {
        let joins = |c: char| c.is_ascii_alphanumeric() || c == '_';
        name.match_indices(&wanted)
            .any(|(at, _)| !name[..at].ends_with(joins) && !name[at + wanted.len()..].starts_with(joins))
    };
    let (words, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|name| is_word(&name.to_ascii_lowercase()));
    if !words.is_empty() {
        return words;
    }
    others.into_iter().filter(|name| name.to_ascii_lowercase().contains(&wanted)).collect()
}

/// The candidates that are models; a single candidate counts as one, so that opening it tells what it is.
fn models_of<'a>(dir: &Path, found: &'a [String]) -> Vec<&'a String> {
    let all: Vec<&String> = found.iter().collect();
    if all.len() < 2 || all.len() > MAX_OPENED {
        return all;
    }
    let is_model = |name: &&&String| {
        match GgufFile::open(dir.join(name)) {
            Ok(file) => Role::of(&file, Some(file.metadata())) == Role::Model,
            // A pointer stands for a file that was not fetched. Any other fault may be that of the wanted model.
            Err(error) => !matches!(error.root(), Error::Source(SourceError::OtherFile { .. })),
        }
    };
    let models: Vec<&String> = all.iter().filter(is_model).copied().collect();
    // Companions alone: the first one is opened, and its error says what it is.
    if models.is_empty() { all[..1].to_vec() } else { models }
}

/// The error about a directory without a model.
fn no_model(dir: &Path, names: &[String]) -> Error {
    let ending = |name: &str| name.rsplit_once('.').map_or_else(String::new, |(_, end)| end.to_ascii_lowercase());
    for name in names {
        if name.starts_with("adapter_model") {
            return ModelError::NoLanguageModel { role: Role::Adapter }.in_file(dir.join(name));
        }
    }
    for name in names.iter().filter(|name| OTHER_FORMS.contains(&&*ending(name))) {
        let path = dir.join(name);
        if let Ok(start) = read_start(&path, START_BYTES)
            && let Some(kind) = FileKind::of(&start)
        {
            return SourceError::OtherFile { kind }.in_file(path);
        }
    }
    if names.is_empty() { SourceError::EmptyDirectory.in_file(dir) } else { SourceError::NoModelFiles.in_file(dir) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], quant: &str) -> Vec<String> {
        matching(names.iter().map(|name| (*name).to_owned()).collect(), quant)
    }

    #[test]
    fn a_type_is_a_word_of_the_name_before_it_is_a_part_of_one() {
        let names = ["m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-q8_0.gguf", "BF16/m-00001-of-00002.gguf", "m.i1-IQ2_XS.gguf"];
        for (quant, expected) in [
            ("q4_k_m", vec!["m-Q4_K_M.gguf"]),
            ("Q8_0", vec!["m-q8_0.gguf"]),
            ("bf16", vec!["BF16/m-00001-of-00002.gguf"]),
            ("IQ2_XS", vec!["m.i1-IQ2_XS.gguf"]),
            ("Q4_K", vec!["m-Q4_K_M.gguf", "m-Q4_K_S.gguf"]),
            ("Q5_0", vec![]),
        ] {
            assert_eq!(chosen(&names, quant), expected, "{quant}");
        }
        assert_eq!(chosen(&["a-Q4_K.gguf", "a-Q4_K_M.gguf"], "Q4_K"), ["a-Q4_K.gguf"]);
    }
}
