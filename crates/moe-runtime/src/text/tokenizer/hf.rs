//! Reads the tokenizer files of a checkpoint directory.
//!
//! `tokenizer.json` has the tokens, merges and the pre-tokenizer; `tokenizer_config.json` the names of the special
//! tokens and the chat template; `generation_config.json` (or `config.json`) the ids that end generation;
//! `chat_template.jinja`, if there is one, goes before the template in the configuration.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use gguf_bitnet::{FileKind, MAX_CONFIG_BYTES, StoreError};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value as Json;

use super::pre::PreTokenizer;
use super::vocabulary::{SpecialIds, TokenType, Vocabulary};
use crate::error::{Error, Result};
use crate::guess::Guess;
use crate::models::registry::{language_model, special_tokens};
use crate::text::error::{TextError, VocabularyDefect};

/// Most bytes of `tokenizer.json`: that of the largest known vocabulary has about 35 MB.
const MAX_TOKENIZER_BYTES: u64 = 256 << 20;
/// Most ids without a token that a vocabulary may have.
const MAX_HOLES: usize = 65_536;

/// The tokenizer files of a directory.
pub(super) enum Found {
    /// `tokenizer.json`, with the settings of the other files.
    Vocabulary(Box<Vocabulary>),
    /// No `tokenizer.json`; the other files may still have settings.
    Nothing {
        /// Ids that end generation.
        stop_ids: Vec<u32>,
        /// Source of the chat template.
        chat_template: Option<String>,
    },
}

/// Reads a directory.
///
/// # Errors
/// See [`super::Tokenizer::from_dir`].
pub(super) fn read(dir: &Path) -> Result<Found> {
    let config = read_json(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
    let generation = read_json(&dir.join("generation_config.json"))?.unwrap_or_default();
    let model = read_json(&dir.join("config.json"))?.unwrap_or_default();
    let chat_template = match read_text(&dir.join("chat_template.jinja"), MAX_CONFIG_BYTES)? {
        Some(template) => Some(template),
        None => chat_template(&config),
    };
    let generation = Generation::of(&generation, &model, dir)?;

    let path = dir.join("tokenizer.json");
    let Some(text) = read_text(&path, MAX_TOKENIZER_BYTES)? else {
        return Ok(Found::Nothing { stop_ids: generation.eos, chat_template });
    };
    let mut vocabulary = parse(&text, &path)?;
    set_roles(&mut vocabulary, &config, &generation);
    vocabulary.stop_ids = generation.eos;
    vocabulary.add_bos = match config.get("add_bos_token") {
        Some(Json::Bool(add)) => *add,
        None | Some(Json::Null) => {
            if vocabulary.ids.bos.is_some() {
                let reason = "a begin token goes in front of a prompt only where the files say so";
                vocabulary.guesses.push(Guess::new("add_bos_token", false, reason));
            }
            false
        }
        Some(other) => {
            let reason = format_args!("`add_bos_token` is {other}, and must be true or false");
            return Err(file_error(&dir.join("tokenizer_config.json"), reason));
        }
    };
    vocabulary.chat_template = chat_template;
    Ok(Found::Vocabulary(Box::new(vocabulary)))
}

fn file_error(path: &Path, reason: impl fmt::Display) -> Error {
    Error::Text(TextError::TokenizerFile { path: path.to_owned(), reason: reason.to_string() })
}

/// The error about a text that is no JSON, or another JSON than its reader needs.
fn not_json(path: &Path, text: &str, error: serde_json::Error) -> Error {
    match FileKind::of_page(text) {
        Some(kind) => file_error(path, kind),
        None => file_error(path, error),
    }
}

/// The text of a file, if it exists.
fn read_text(path: &Path, limit: u64) -> Result<Option<String>> {
    gguf_bitnet::read_text_if_any(path, limit).map_err(|error| match error.root() {
        // The system's reason alone: the sentence around it names the file.
        gguf_bitnet::Error::Store(StoreError::Io { source, .. }) => file_error(path, source),
        root => file_error(path, root),
    })
}

pub(crate) fn read_json(path: &Path) -> Result<Option<Json>> {
    let Some(text) = read_text(path, MAX_CONFIG_BYTES)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|e| not_json(path, &text, e))
}

/// The ids that generation begins and ends with.
struct Generation {
    bos: Option<u32>,
    eos: Vec<u32>,
}

impl Generation {
    /// From `generation_config.json`; what it lacks comes from `config.json`.
    fn of(generation: &Json, model: &Json, dir: &Path) -> Result<Self> {
        let model = model.as_object().map(language_model);
        let list = |key: &str| -> Result<Vec<u32>> {
            let (value, file) = match generation.get(key) {
                None | Some(Json::Null) => (model.as_ref().and_then(|model| model.get(key)), "config.json"),
                found => (found, "generation_config.json"),
            };
            let id = |v: &Json| {
                let id = v.as_u64().and_then(|id| u32::try_from(id).ok());
                id.ok_or_else(|| file_error(&dir.join(file), format_args!("`{key}` is {v}, which is no token id")))
            };
            match value {
                None | Some(Json::Null) => Ok(Vec::new()),
                Some(Json::Array(ids)) => ids.iter().map(id).collect(),
                Some(one) => Ok(vec![id(one)?]),
            }
        };
        Ok(Self { bos: list("bos_token_id")?.first().copied(), eos: list("eos_token_id")? })
    }
}

/// `chat_template`: a text, or a list of named ones, of which `default` counts, else the first.
fn chat_template(config: &Json) -> Option<String> {
    let text = |entry: &Json| entry.get("template").and_then(Json::as_str).map(str::to_owned);
    match config.get("chat_template")? {
        Json::String(template) => Some(template.clone()),
        Json::Array(list) => {
            let default = list.iter().find(|e| e.get("name").and_then(Json::as_str) == Some("default"));
            default.or(list.first()).and_then(text)
        }
        _ => None,
    }
}

fn set_roles(vocabulary: &mut Vocabulary, config: &Json, generation: &Generation) {
    let by_text: HashMap<&str, u32> = (0u32..).zip(&vocabulary.tokens).map(|(id, t)| (t.as_str(), id)).collect();
    let named = |key: &str| {
        let entry = config.get(key)?;
        let text = entry.as_str().or_else(|| entry.get("content")?.as_str())?;
        by_text.get(text).copied()
    };
    let id = |text: &str| by_text.get(text).copied();
    let ids = SpecialIds {
        bos: named("bos_token").or(generation.bos),
        eos: named("eos_token").or(generation.eos.first().copied()),
        eot: special_tokens().filter_map(|tokens| tokens.end_of_turn).find_map(id),
        eom: special_tokens().filter_map(|tokens| tokens.end_of_message).find_map(id),
        unknown: named("unk_token"),
        padding: named("pad_token"),
    };
    vocabulary.ids = ids;
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Json,
    #[serde(default)]
    pre_tokenizer: Json,
    model: Model,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: Entries,
    #[serde(default)]
    merges: Vec<Merge>,
    #[serde(default)]
    ignore_merges: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    dropout: Option<f32>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
}

/// A merge as a pair, or as one text with a space between.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Text(String),
}

/// The entries of `vocab` in file order, so that a repeated key is seen.
struct Entries(Vec<(String, u32)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from token to id")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

/// Parses `tokenizer.json`.
///
/// # Errors
/// See [`super::Tokenizer::from_dir`].
pub(super) fn parse(text: &str, path: &Path) -> Result<Vocabulary> {
    let file: File = serde_json::from_str(text).map_err(|e| not_json(path, text, e))?;
    let origin = path.display().to_string();
    refuse_other_kinds(&file)?;
    let pre = PreTokenizer::from_json(&file.pre_tokenizer, &file.normalizer)?;
    let (tokens, types) = place(&file, &origin)?;
    let mut merges = Vec::with_capacity(file.model.merges.len());
    for (index, merge) in file.model.merges.into_iter().enumerate() {
        merges.push(match merge {
            Merge::Pair(a, b) => (a, b),
            Merge::Text(text) => split_merge(&text).ok_or_else(|| {
                Error::Text(TextError::Vocabulary {
                    origin: origin.clone(),
                    defect: VocabularyDefect::Merge { index, merge: text.clone() },
                })
            })?,
        });
    }
    Ok(Vocabulary {
        origin,
        tokens,
        types,
        merges,
        ignore_merges: file.model.ignore_merges,
        pre,
        ids: SpecialIds::default(),
        stop_ids: Vec::new(),
        add_bos: false,
        chat_template: None,
        guesses: Vec::new(),
    })
}

/// The two sides of a merge in one text; the first side has at least one character.
pub(super) fn split_merge(text: &str) -> Option<(String, String)> {
    let first = text.chars().next()?.len_utf8();
    let (a, b) = text[first..].split_once(' ')?;
    Some((text[..first].to_owned() + a, b.to_owned()))
}

fn refuse_other_kinds(file: &File) -> Result<()> {
    let model = &file.model;
    let feature = if model.kind.as_deref().is_some_and(|kind| kind != "BPE") {
        format!("a `{}` tokenizer", model.kind.as_deref().unwrap_or_default())
    } else if model.byte_fallback {
        "BPE with `byte_fallback`".to_owned()
    } else if model.dropout.is_some_and(|d| d != 0.0) {
        "BPE with `dropout`".to_owned()
    } else if [&model.continuing_subword_prefix, &model.end_of_word_suffix]
        .into_iter()
        .any(|affix| affix.as_deref().is_some_and(|a| !a.is_empty()))
    {
        "BPE with word affixes".to_owned()
    } else if let Some(token) = file.added_tokens.iter().find(|t| t.single_word || t.lstrip || t.rstrip) {
        format!("added token `{}` with `single_word`, `lstrip` or `rstrip`", token.content)
    } else {
        return Ok(());
    };
    Err(Error::Text(TextError::Unsupported { feature, remedy: "use a checkpoint with a byte-level BPE tokenizer" }))
}

/// Puts every token at its id; ids without a token become unused padding.
fn place(file: &File, origin: &str) -> Result<(Vec<String>, Vec<TokenType>)> {
    let fail = |defect| Error::Text(TextError::Vocabulary { origin: origin.to_owned(), defect });
    let entries = &file.model.vocab.0;
    let limit = entries.len() + file.added_tokens.len() + MAX_HOLES;
    let mut slots: Vec<Option<(&str, TokenType)>> = Vec::new();
    let mut put = |text, id: u32, kind| {
        let index = usize::try_from(id).unwrap_or(usize::MAX);
        if index >= limit {
            let what = format!("token {text:?}");
            return Err(fail(VocabularyDefect::IdOutOfRange { what, id: id.into(), limit: limit as u64 }));
        }
        if index >= slots.len() {
            slots.resize(index + 1, None);
        }
        match &slots[index] {
            // An added token may be listed among the ordinary ones too.
            Some((there, _)) if *there != text => {
                let (first, second) = ((*there).to_owned(), String::from(text));
                return Err(fail(VocabularyDefect::DuplicateId { id, first, second }));
            }
            Some((_, TokenType::Normal)) | None => slots[index] = Some((text, kind)),
            Some(_) => {}
        }
        Ok(())
    };
    let mut seen: HashMap<&str, u32> = HashMap::with_capacity(entries.len());
    for (text, id) in entries {
        if let Some(first) = seen.insert(text, *id) {
            return Err(fail(VocabularyDefect::DuplicateToken { token: text.clone(), first, second: *id }));
        }
        put(text.as_str(), *id, TokenType::Normal)?;
    }
    for token in &file.added_tokens {
        let kind = if token.special { TokenType::Control } else { TokenType::UserDefined };
        put(token.content.as_str(), token.id, kind)?;
    }
    let filled = slots.into_iter().enumerate().map(|(id, slot)| match slot {
        Some((text, kind)) => (text.to_owned(), kind),
        None => (padding(id), TokenType::Unused),
    });
    Ok(filled.unzip())
}

/// The name of an id without a token.
pub(super) fn padding(id: usize) -> String {
    format!("[PAD{id}]")
}
