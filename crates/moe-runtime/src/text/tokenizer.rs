//! Text to token ids and back: byte-level BPE from `tokenizer.json` or GGUF metadata, or plain bytes.
//!
//! ```text
//!   text --whole tokens (types 3, 4)--> segments --pre-tokenizer--> words --BPE--> ids
//!   ids  --pieces (bytes)--> UTF-8, split nowhere --> text
//! ```
//!
//! Both sources end in one `Vocabulary`, so they give identical ids. Token types are those of GGUF: 1 normal,
//! 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. Types 3 and 4 are matched whole, leftmost first, the longest
//! at a place, before anything else (type 3 only when special parsing is on); types 1 and 4 are shown when decoding,
//! the others are hidden unless asked for.
//!
//! [`Tokenizer::encode`] adds no token: a prefix such as GLM's `[gMASK]<sop>` belongs to the chat template, and to raw
//! text through [`Tokenizer::raw_prefix`]. Tokens that the files give no role are looked up by the texts that the known
//! architectures list.
//!
//! **Invariant:** every text can be encoded, and the bytes of its tokens are the text without the rare bytes that the
//! vocabulary has no token for: control characters and bytes that hardly any text has. Every other byte has a token.

mod bpe;
mod bytes;
#[cfg_attr(not(feature = "tokenizers"), allow(dead_code, reason = "only the encoder needs all of it"))]
mod expressions;
mod gguf;
mod hf;
#[cfg_attr(not(feature = "tokenizers"), allow(dead_code, reason = "only the encoder needs all of it"))]
mod pre;
mod special;
mod stream;
#[cfg_attr(not(feature = "tokenizers"), allow(dead_code, reason = "only the encoder needs all of it"))]
mod vocabulary;
#[cfg(any(test, not(feature = "tokenizers")))]
mod words;

use std::collections::HashMap;
use std::path::Path;

use gguf_bitnet::{Metadata, Value};

use crate::error::Result;
use crate::guess::Guess;
use crate::models::registry::special_tokens;
use crate::text::prompt::ChatPrompt;
use bpe::Bpe;
use special::{Match, WholeTokens};
use vocabulary::Vocabulary;

pub(crate) use hf::read_json;
pub use stream::{ControlTokens, TextStream};
pub use vocabulary::SpecialIds;
pub(crate) use vocabulary::TokenType;

/// A model's tokenizer.
///
/// ```
/// use moe_runtime::{ControlTokens, Tokenizer};
/// # fn main() -> moe_runtime::Result<()> {
/// let tokenizer = Tokenizer::bytes();
/// let ids = tokenizer.encode("hé", true)?;
/// assert_eq!(ids, [104, 0xc3, 0xa9]);
/// assert_eq!(tokenizer.decode(&ids, ControlTokens::Hide), "hé");
/// # Ok(()) }
/// ```
pub struct Tokenizer {
    /// Text of every token, by id.
    tokens: Vec<String>,
    types: Vec<TokenType>,
    by_text: HashMap<String, u32>,
    /// The bytes of all tokens, one after another; token `i` ends at `piece_ends[i]`.
    pieces: Vec<u8>,
    piece_ends: Vec<usize>,
    /// Whether the output parser needs the token.
    markup: Vec<u32>,
    /// Whole tokens with and without the control tokens.
    with_control: WholeTokens,
    without_control: WholeTokens,
    /// `None`: bytes are ids.
    bpe: Option<Bpe>,
    ids: SpecialIds,
    stop_ids: Vec<u32>,
    add_bos: bool,
    chat_template: Option<String>,
    guesses: Vec<Guess>,
}

/// The names of facts that a tokenizer can do without, in one kind of file.
struct FactNames {
    vocabulary: &'static str,
    end: &'static str,
    chat_template: &'static str,
}

const IN_DIR: FactNames =
    FactNames { vocabulary: "tokenizer.json", end: "eos_token_id", chat_template: "chat_template" };
const IN_GGUF: FactNames = FactNames {
    vocabulary: "tokenizer.ggml.tokens",
    end: "tokenizer.ggml.eos_token_id",
    chat_template: "tokenizer.chat_template",
};

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("byte_fallback", &self.is_byte_fallback())
            .field("ids", &self.ids)
            .field("stop_ids", &self.stop_ids)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// The tokenizer of a checkpoint directory: `tokenizer.json` with `tokenizer_config.json`,
    /// `generation_config.json` and `chat_template.jinja` beside it. Without `tokenizer.json`: bytes.
    ///
    /// # Errors
    /// `TextError::TokenizerFile` for a file that cannot be read or parsed, `TextError::Vocabulary` for one that contradicts
    /// itself, `TextError::Unsupported` for another kind of tokenizer; builds without the `tokenizers` feature know only
    /// the pre-tokenizers that GGUF has a name for.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let mut tokenizer = match hf::read(dir)? {
            hf::Found::Vocabulary(vocabulary) => Self::from_vocabulary(*vocabulary)?,
            hf::Found::Nothing { stop_ids, chat_template } => {
                let mut tokenizer = Self::bytes();
                tokenizer.add_stops(&stop_ids);
                tokenizer.chat_template = chat_template;
                tokenizer
            }
        };
        tokenizer.note_guesses(&IN_DIR);
        Ok(tokenizer)
    }

    /// The tokenizer inside a GGUF file. Without a vocabulary: bytes.
    ///
    /// # Errors
    /// As [`Tokenizer::from_dir`]; wrongly typed metadata is an error too.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self> {
        let mut tokenizer = match gguf::read(metadata)? {
            Some(vocabulary) => Self::from_vocabulary(vocabulary)?,
            None => Self::bytes(),
        };
        tokenizer.note_guesses(&IN_GGUF);
        Ok(tokenizer)
    }

    /// Records the facts that the files do not state, beside those that their reader recorded.
    fn note_guesses(&mut self, names: &FactNames) {
        let mut guess = |key: &str, value: &str, reason: &str| self.guesses.push(Guess::new(key, value, reason));
        if self.bpe.is_none() {
            guess(names.vocabulary, "bytes", "the model has no vocabulary, so each byte of a text is a token");
        } else if self.ids.eos.is_none() && self.stop_ids.is_empty() {
            guess(names.end, "none", "no token ends an answer; it ends at the limit of tokens");
        } else if self.ids.eos.is_none() {
            let texts = self.stop_ids.iter().filter_map(|&id| self.tokens.get(usize::try_from(id).ok()?));
            let texts: Vec<&str> = texts.map(String::as_str).collect();
            guess(
                names.end,
                &texts.join(", "),
                "tokens of these texts end answers in models of the known architectures",
            );
        }
        if self.chat_template.is_none() {
            guess(names.chat_template, "none", "the model has no chat template; the prompt is continued as it stands");
        }
    }

    /// The fallback for files without a vocabulary: ids 0 to 255 are bytes, then `<|bos|>`, `<|eos|>`, `<|pad|>`,
    /// `<|unk|>`. Warn the user when [`Tokenizer::is_byte_fallback`] says so.
    #[must_use]
    pub fn bytes() -> Self {
        let names = ["<|bos|>", "<|eos|>", "<|pad|>", "<|unk|>"];
        let tokens = (0..=255u8).map(|b| format!("<0x{b:02X}>")).chain(names.map(str::to_owned)).collect();
        let types = [vec![TokenType::Byte; 256], vec![TokenType::Control; 4]].concat();
        let ids = SpecialIds {
            bos: Some(256),
            eos: Some(257),
            padding: Some(258),
            unknown: Some(259),
            ..SpecialIds::default()
        };
        Self::assemble(tokens, types, ids, None)
    }

    fn from_vocabulary(vocabulary: Vocabulary) -> Result<Self> {
        let missing = vocabulary.check()?;
        let bpe = Bpe::new(&vocabulary)?;
        let Vocabulary { tokens, types, ids, stop_ids, add_bos, chat_template, mut guesses, .. } = vocabulary;
        if let Some(first) = missing.first() {
            let key = format!("the tokens of {} rare bytes, such as {first:#04x}", missing.len());
            guesses.push(Guess::new(key, "none", "a text is encoded without these bytes"));
        }
        let mut tokenizer = Self::assemble(tokens, types, ids, Some(bpe));
        tokenizer.add_stops(&stop_ids);
        tokenizer.add_bos = add_bos;
        tokenizer.chat_template = chat_template;
        tokenizer.guesses = guesses;
        Ok(tokenizer)
    }

    fn assemble(tokens: Vec<String>, types: Vec<TokenType>, ids: SpecialIds, bpe: Option<Bpe>) -> Self {
        let mut pieces = Vec::new();
        let mut piece_ends = Vec::with_capacity(tokens.len());
        for (text, &kind) in tokens.iter().zip(&types) {
            match kind {
                TokenType::Normal => bytes::decode_into(text, &mut pieces),
                TokenType::Byte => bytes::hex_into(text, &mut pieces),
                _ => pieces.extend_from_slice(text.as_bytes()),
            }
            piece_ends.push(pieces.len());
        }
        let numbered = || (0u32..).zip(tokens.iter().zip(&types));
        // A padding token gives way to a real one of the same text.
        let real = numbered().filter(|(_, (_, kind))| **kind != TokenType::Unused);
        let by_text: HashMap<String, u32> = real.map(|(id, (text, _))| (text.clone(), id)).collect();
        let whole = |control: bool| {
            let wanted = numbered().filter(move |(_, (_, kind))| {
                **kind == TokenType::UserDefined || (control && **kind == TokenType::Control)
            });
            WholeTokens::new(wanted.map(|(id, (text, _))| (text.as_str(), id)))
        };
        let (with_control, without_control) = (whole(true), whole(false));
        let lookup = |text: &&str| by_text.get(*text).copied();
        let markup = special_tokens().flat_map(|tokens| tokens.markup).filter_map(lookup).collect();
        let roles = [ids.eos, ids.eot, ids.eom].into_iter().flatten();
        let mut stop_ids: Vec<u32> =
            roles.chain(special_tokens().flat_map(|tokens| tokens.stops).filter_map(lookup)).collect();
        stop_ids.sort_unstable();
        stop_ids.dedup();
        Self {
            tokens,
            types,
            by_text,
            pieces,
            piece_ends,
            markup,
            with_control,
            without_control,
            bpe,
            ids,
            stop_ids,
            add_bos: false,
            chat_template: None,
            guesses: Vec::new(),
        }
    }

    fn add_stops(&mut self, more: &[u32]) {
        self.stop_ids.extend_from_slice(more);
        self.stop_ids.sort_unstable();
        self.stop_ids.dedup();
    }

    /// The ids of a text; nothing is added to it.
    ///
    /// With `parse_special` the text of a control token becomes that token, which is wrong for text of strangers.
    /// User-defined tokens are always matched.
    ///
    /// # Errors
    /// `TextError::Encode` when the pre-tokenizer gives up (a pathological text).
    pub fn encode(&self, text: &str, parse_special: bool) -> Result<Vec<u32>> {
        let whole = if parse_special { &self.with_control } else { &self.without_control };
        self.encode_by(text, |rest, _| whole.find(rest))
    }

    /// The ids of a text whose whole tokens `find` tells: it gets the rest of the text and its place.
    fn encode_by(&self, text: &str, find: impl Fn(&str, usize) -> Option<Match>) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let found = find(rest, text.len() - rest.len());
            let end = found.map_or(rest.len(), |f| f.start);
            self.encode_segment(&rest[..end], &mut ids)?;
            rest = &rest[end..];
            if let Some(found) = found {
                ids.push(found.id);
                rest = &rest[found.len..];
            }
        }
        Ok(ids)
    }

    fn encode_segment(&self, segment: &str, ids: &mut Vec<u32>) -> Result<()> {
        match &self.bpe {
            Some(bpe) if !segment.is_empty() => bpe.encode(segment, ids),
            Some(_) => Ok(()),
            None => {
                ids.extend(segment.bytes().map(u32::from));
                Ok(())
            }
        }
    }

    /// The ids of a rendered conversation: the template's control tokens and markers are parsed, those that content spells are words,
    /// and the begin token is put in front when the model's files demand it (`add_bos_token`) and the prompt does not
    /// begin with it already.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_prompt(&self, prompt: &ChatPrompt) -> Result<Vec<u32>> {
        let words = prompt.words();
        let mut ids = self.encode_by(prompt.text(), |rest, place| {
            let ahead = &words[words.partition_point(|&word| word < place)..];
            self.with_control.find_beside(rest, ahead.iter().map(|word| word - place), |id| {
                self.token_type(id) == Some(TokenType::UserDefined) && !prompt.is_marker(id)
            })
        })?;
        if let (true, Some(bos)) = (self.add_bos, self.ids.bos)
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// The ids to put before raw text (completion, perplexity): the prefix of the architecture whose prefix the vocabulary
    /// holds (`[gMASK]<sop>` for GLM), else the begin token if the model's files demand it, else none.
    #[must_use]
    pub fn raw_prefix(&self) -> Vec<u32> {
        let prefixes = special_tokens().map(|tokens| tokens.raw_prefix).filter(|prefix| !prefix.is_empty());
        let mut whole = prefixes.filter_map(|prefix| prefix.iter().map(|text| self.token_to_id(text)).collect());
        whole.next().unwrap_or_else(|| self.ids.bos.filter(|_| self.add_bos).into_iter().collect())
    }

    /// The tokens before a text, before the text that follows a gap, and before the text of the gap; `None` where the vocabulary
    /// holds them for no architecture.
    #[must_use]
    pub fn infill(&self) -> Option<[u32; 3]> {
        let ids = |[before, behind, gap]: [&str; 3]| {
            Some([self.token_to_id(before)?, self.token_to_id(behind)?, self.token_to_id(gap)?])
        };
        special_tokens().filter_map(|tokens| tokens.infill).find_map(ids)
    }

    /// The bytes that a token stands for, shown or not; empty outside the vocabulary.
    #[must_use]
    pub fn piece(&self, id: u32) -> &[u8] {
        let Ok(index) = usize::try_from(id) else { return &[] };
        let Some(&end) = self.piece_ends.get(index) else { return &[] };
        let start = if index == 0 { 0 } else { self.piece_ends[index - 1] };
        &self.pieces[start..end]
    }

    /// The id of a token by its text as the vocabulary spells it (`Ġthe` for " the").
    #[must_use]
    pub fn token_to_id(&self, text: &str) -> Option<u32> {
        self.by_text.get(text).copied()
    }

    /// The text of a token as the vocabulary spells it.
    #[must_use]
    pub fn token_text(&self, id: u32) -> Option<&str> {
        self.tokens.get(usize::try_from(id).ok()?).map(String::as_str)
    }

    /// Whether no token stands behind an id: the model has more rows than the vocabulary, or a file only fills a hole there.
    #[must_use]
    pub fn is_unused(&self, id: u32) -> bool {
        let kind = usize::try_from(id).ok().and_then(|id| self.types.get(id));
        kind.is_none_or(|kind| *kind == TokenType::Unused)
    }

    /// The texts of all control tokens.
    pub(crate) fn control_texts(&self) -> impl Iterator<Item = &str> {
        let tokens = self.tokens.iter().zip(&self.types);
        tokens.filter(|(_, kind)| **kind == TokenType::Control).map(|(text, _)| text.as_str())
    }

    /// The user-defined tokens that are markers to the template `source`, ascending: content that spells one is words.
    ///
    /// Such a token has a letter or digit between two other visible characters, as `<think>` has, and stands in the source
    /// or in an architecture's list of markup. All others (runs of white space, emoji, words) are vocabulary, matched in
    /// any text as `tokenizers` does.
    pub(crate) fn markers(&self, source: &str) -> Vec<u32> {
        let is_mark = |c: Option<char>| c.is_some_and(|c| !c.is_alphanumeric() && !c.is_whitespace());
        let is_marker = |id: u32, text: &str| {
            let mut inside = text.chars();
            let is_between_marks = is_mark(inside.next()) && is_mark(inside.next_back());
            is_between_marks && inside.any(char::is_alphanumeric) && (source.contains(text) || self.is_markup(id))
        };
        let tokens = (0u32..).zip(self.tokens.iter().zip(&self.types));
        let user_defined = tokens.filter(|(_, (_, kind))| **kind == TokenType::UserDefined);
        user_defined.filter(|(id, (text, _))| is_marker(*id, text)).map(|(id, _)| id).collect()
    }

    /// The type of a token.
    #[must_use]
    pub(crate) fn token_type(&self, id: u32) -> Option<TokenType> {
        self.types.get(usize::try_from(id).ok()?).copied()
    }

    /// Whether the output parser needs to see the token (`<think>`, `<tool_call>` and their kin).
    #[must_use]
    pub(crate) fn is_markup(&self, id: u32) -> bool {
        self.markup.contains(&id)
    }

    /// Number of tokens, padding included.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    /// The ids that end generation, ascending.
    #[must_use]
    pub fn stop_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// Whether a token ends generation.
    #[must_use]
    pub fn is_stop(&self, id: u32) -> bool {
        self.stop_ids.binary_search(&id).is_ok()
    }

    /// The ids with a role.
    #[must_use]
    pub fn special_ids(&self) -> SpecialIds {
        self.ids
    }

    /// Whether the model had no vocabulary and bytes stand in for it; worth a warning to the user.
    #[must_use]
    pub fn is_byte_fallback(&self) -> bool {
        self.bpe.is_none()
    }

    /// The source of the model's chat template.
    #[must_use]
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// The facts that the model's files do not state, and the values taken in their place.
    #[must_use]
    pub fn guesses(&self) -> &[Guess] {
        &self.guesses
    }

    /// The GGUF metadata that carries the tokenizer of a checkpoint directory, in the order to write it.
    ///
    /// `vocab_size` is the model's number of embedding rows; tokens that the tokenizer lacks are padded as unused. A
    /// pre-tokenizer that GGUF has no name for is written as `default`, which other engines take with a warning, and spelled
    /// out under a key of our own, which this runtime reads instead. A directory without `tokenizer.json` gives at most its
    /// chat template.
    ///
    /// # Errors
    /// As [`Tokenizer::from_dir`], and `TextError::Vocabulary` when there are more tokens than `vocab_size`.
    pub fn gguf_entries(dir: &Path, vocab_size: usize) -> Result<Vec<(String, Value)>> {
        match hf::read(dir)? {
            hf::Found::Vocabulary(vocabulary) => {
                vocabulary.check()?;
                gguf::entries(*vocabulary, vocab_size)
            }
            hf::Found::Nothing { chat_template, .. } => {
                Ok(chat_template.map(|t| (gguf::CHAT_TEMPLATE.to_owned(), Value::String(t))).into_iter().collect())
            }
        }
    }
}
