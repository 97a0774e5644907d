//! The tokenizer as GGUF metadata, both ways.
//!
//! The standard keys (`tokenizer.ggml.*`, `tokenizer.chat_template`) hold everything that other engines know. Three
//! keys of our own hold facts that the standard has no key for, and are written only when they make a difference:
//! `craftsman.tokenizer.ignore_merges` when it is not what the named pre-tokenizer implies,
//! `craftsman.tokenizer.stop_token_ids` for ids that end generation without a role, and
//! `craftsman.tokenizer.pre_tokenizer` (JSON, as in `tokenizer.json`) when GGUF has no name for it.

use gguf_bitnet::{Metadata, Value};
use serde_json::{Value as Json, json};

use super::hf::{padding, split_merge};
use super::pre::PreTokenizer;
use super::vocabulary::{SpecialIds, TokenType, Vocabulary};
use crate::error::{Error, Result};
use crate::guess::Guess;
use crate::models::registry::special_tokens;
use crate::text::error::{TextError, VocabularyDefect};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_SPACE: &str = "tokenizer.ggml.add_space_prefix";
pub(super) const CHAT_TEMPLATE: &str = "tokenizer.chat_template";
const IGNORE_MERGES: &str = "craftsman.tokenizer.ignore_merges";
const STOP_IDS: &str = "craftsman.tokenizer.stop_token_ids";
const PRE_JSON: &str = "craftsman.tokenizer.pre_tokenizer";
const ORIGIN: &str = "the GGUF metadata";

/// The keys of the roles, with the field each fills.
fn role_keys(ids: &mut SpecialIds) -> [(&'static str, &mut Option<u32>); 6] {
    [
        ("tokenizer.ggml.bos_token_id", &mut ids.bos),
        ("tokenizer.ggml.eos_token_id", &mut ids.eos),
        ("tokenizer.ggml.eot_token_id", &mut ids.eot),
        ("tokenizer.ggml.eom_token_id", &mut ids.eom),
        ("tokenizer.ggml.unknown_token_id", &mut ids.unknown),
        ("tokenizer.ggml.padding_token_id", &mut ids.padding),
    ]
}

/// Reads the vocabulary; `None` when the file has none.
///
/// # Errors
/// See [`super::Tokenizer::from_gguf`].
pub(super) fn read(metadata: &Metadata) -> Result<Option<Vocabulary>> {
    let model = metadata.str(MODEL)?;
    let Some(tokens) = metadata.strings(TOKENS)?.filter(|_| !matches!(model, Some("none" | "no_vocab"))) else {
        return Ok(None);
    };
    match model {
        Some("gpt2") => {}
        other => {
            let feature = format!("tokenizer model `{}`", other.unwrap_or("(none named)"));
            return Err(Error::Text(TextError::Unsupported {
                feature,
                remedy: "use a file with a byte-level BPE tokenizer (gpt2)",
            }));
        }
    }
    let mut ids = SpecialIds::default();
    for (key, field) in role_keys(&mut ids) {
        *field = metadata.u32(key)?;
    }
    let pre = read_pre(metadata)?;
    let implied = match &pre {
        PreTokenizer::Gguf(scheme) => scheme.ignore_merges,
        PreTokenizer::Custom { .. } => false,
    };
    let mut guesses = Vec::new();
    if metadata.get(TYPES).is_none() {
        guesses.push(Guess::new(TYPES, "normal", "tokens without a role are pieces of ordinary text"));
    }
    if metadata.get(MERGES).is_none() {
        guesses.push(Guess::new(MERGES, "none", "a text is then cut into the tokens of its bytes"));
    }
    let add_bos = metadata.bool(ADD_BOS)?;
    if add_bos.is_none() && ids.bos.is_some() {
        let reason = "a begin token goes in front of a prompt only where the file says so";
        guesses.push(Guess::new(ADD_BOS, false, reason));
    }
    Ok(Some(Vocabulary {
        origin: ORIGIN.to_owned(),
        tokens: tokens.to_vec(),
        types: read_types(metadata, tokens.len(), ids)?,
        merges: read_merges(metadata)?,
        ignore_merges: metadata.bool(IGNORE_MERGES)?.unwrap_or(implied),
        pre,
        ids,
        stop_ids: read_stops(metadata)?,
        add_bos: add_bos.unwrap_or(false),
        chat_template: metadata.str(CHAT_TEMPLATE)?.map(str::to_owned),
        guesses,
    }))
}

fn defect<T>(defect: VocabularyDefect) -> Result<T> {
    Err(Error::Text(TextError::Vocabulary { origin: ORIGIN.to_owned(), defect }))
}

fn read_pre(metadata: &Metadata) -> Result<PreTokenizer> {
    if let Some(text) = metadata.str(PRE_JSON)? {
        let spelled: Json = serde_json::from_str(text)
            .map_err(|e| Error::Text(TextError::TokenizerFile { path: PRE_JSON.into(), reason: e.to_string() }))?;
        let part = |key: &str| spelled.get(key).cloned().unwrap_or_default();
        return PreTokenizer::from_json(&part("pre_tokenizer"), &part("normalizer"));
    }
    let name = metadata.str(PRE)?;
    name.and_then(PreTokenizer::by_name).ok_or_else(|| {
        Error::Text(TextError::Unsupported {
            feature: format!("pre-tokenizer `{}` of `{PRE}`", name.unwrap_or("(none named)")),
            remedy: "convert the model again from its checkpoint directory",
        })
    })
}

/// The types; without a list all tokens are normal except those with a role.
fn read_types(metadata: &Metadata, n_tokens: usize, mut ids: SpecialIds) -> Result<Vec<TokenType>> {
    let Some(numbers) = metadata.i64s(TYPES)? else {
        let mut types = vec![TokenType::Normal; n_tokens];
        for id in role_keys(&mut ids).into_iter().filter_map(|(_, id)| *id) {
            if let Some(kind) = usize::try_from(id).ok().and_then(|id| types.get_mut(id)) {
                *kind = TokenType::Control;
            }
        }
        return Ok(types);
    };
    let one = |(index, got): (usize, i64)| match TokenType::of(got) {
        Some(kind) => Ok(kind),
        None => defect(VocabularyDefect::TokenType { index, got }),
    };
    numbers.into_iter().enumerate().map(one).collect()
}

fn read_merges(metadata: &Metadata) -> Result<Vec<(String, String)>> {
    let one = |(index, text): (usize, &String)| match split_merge(text) {
        Some(pair) => Ok(pair),
        None => defect(VocabularyDefect::Merge { index, merge: text.clone() }),
    };
    metadata.strings(MERGES)?.unwrap_or_default().iter().enumerate().map(one).collect()
}

fn read_stops(metadata: &Metadata) -> Result<Vec<u32>> {
    let one = |id: i64| match u32::try_from(id) {
        Ok(id) => Ok(id),
        Err(_) => {
            let what = format!("an entry of `{STOP_IDS}`");
            defect(VocabularyDefect::IdOutOfRange { what, id: id as u64, limit: 1 << 32 })
        }
    };
    metadata.i64s(STOP_IDS)?.unwrap_or_default().into_iter().map(one).collect()
}

/// The entries that carry a checked vocabulary in a model with `vocab_size` embedding rows.
///
/// # Errors
/// [`TextError::Vocabulary`] when the vocabulary has more tokens than the model.
pub(super) fn entries(mut vocabulary: Vocabulary, vocab_size: usize) -> Result<Vec<(String, Value)>> {
    let n_tokens = vocabulary.tokens.len();
    if n_tokens > vocab_size {
        let what = "the last token".to_owned();
        let defect = VocabularyDefect::IdOutOfRange { what, id: n_tokens as u64 - 1, limit: vocab_size as u64 };
        return Err(Error::Text(TextError::Vocabulary { origin: vocabulary.origin, defect }));
    }
    vocabulary.tokens.extend((n_tokens..vocab_size).map(padding));
    vocabulary.types.resize(vocab_size, TokenType::Unused);
    let more_stops = stops_without_role(&vocabulary);

    let mut entries: Vec<(String, Value)> = Vec::new();
    let mut put = |key: &str, value: Value| entries.push((key.to_owned(), value));
    put(MODEL, "gpt2".into());
    let implied = match &vocabulary.pre {
        PreTokenizer::Gguf(scheme) => {
            put(PRE, scheme.names[0].into());
            scheme.ignore_merges
        }
        PreTokenizer::Custom { pre_tokenizer, normalizer } => {
            put(PRE, "default".into());
            let spelled = json!({"pre_tokenizer": pre_tokenizer, "normalizer": normalizer});
            put(PRE_JSON, spelled.to_string().into());
            false
        }
    };
    put(TOKENS, vocabulary.tokens.into());
    put(TYPES, vocabulary.types.into_iter().map(|kind| kind.number() as i32).collect::<Vec<i32>>().into());
    put(MERGES, vocabulary.merges.into_iter().map(|(a, b)| format!("{a} {b}")).collect::<Vec<_>>().into());
    for (key, id) in role_keys(&mut vocabulary.ids) {
        if let Some(id) = *id {
            put(key, id.into());
        }
    }
    put(ADD_BOS, vocabulary.add_bos.into());
    put(ADD_SPACE, false.into());
    if vocabulary.ignore_merges != implied {
        put(IGNORE_MERGES, vocabulary.ignore_merges.into());
    }
    if !more_stops.is_empty() {
        put(STOP_IDS, more_stops.into());
    }
    if let Some(template) = vocabulary.chat_template {
        put(CHAT_TEMPLATE, template.into());
    }
    Ok(entries)
}

/// Stop ids that a reader would not find by role or by text.
fn stops_without_role(vocabulary: &Vocabulary) -> Vec<u32> {
    let SpecialIds { eos, eot, eom, .. } = vocabulary.ids;
    let by_text = |id: u32| {
        let text = usize::try_from(id).ok().and_then(|id| vocabulary.tokens.get(id));
        text.is_some_and(|text| special_tokens().any(|tokens| tokens.stops.contains(&text.as_str())))
    };
    let mut stops = vocabulary.stop_ids.clone();
    stops.retain(|&id| ![eos, eot, eom].contains(&Some(id)) && !by_text(id));
    stops.sort_unstable();
    stops.dedup();
    stops
}
