//! WordPiece without the crate `tokenizers`, for builds that leave it out: the same ids, from the same `tokenizer.json`.
//!
//! ```text
//! text     [SEP] and the like, where a text spells them out, are tokens; the rest goes on
//! clean    control characters go, blanks become spaces, each Chinese character stands alone
//! plain    decomposed without accents, in lower case                          as the file says
//! words    between blanks; each punctuation mark is a word
//! pieces   the longest beginning of the rest that the vocabulary has, with ## inside of a word; else [UNK] for the word
//! ```
//! Source: Devlin et al. 2018, and the description of `tokenizer.json` by its keys.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::UnicodeNormalization;

use super::error::EncoderError;
use super::tokens::{Tokens, check_length, check_word_chars};

/// Most characters of a word that is cut into pieces, where the file does not say it.
const DEFAULT_WORD_CHARS: usize = 100;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    normalizer: Normalizer,
    pre_tokenizer: Kind,
    post_processor: Option<PostProcessor>,
    model: Model,
}

#[derive(Deserialize)]
struct Kind {
    r#type: String,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct Normalizer {
    r#type: String,
    clean_text: bool,
    handle_chinese_chars: bool,
    strip_accents: Option<bool>,
    lowercase: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum PostProcessor {
    BertProcessing { cls: (String, u32), sep: (String, u32) },
    TemplateProcessing { single: Vec<Part>, special_tokens: HashMap<String, Special> },
}

#[derive(Deserialize)]
enum Part {
    SpecialToken { id: String },
    Sequence {},
}

#[derive(Deserialize)]
struct Special {
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Model {
    r#type: String,
    unk_token: String,
    continuing_subword_prefix: String,
    max_input_chars_per_word: Option<usize>,
    vocab: HashMap<String, u32>,
}

/// The tokenizer of an encoder.
#[derive(Debug)]
pub(super) struct Pieces {
    /// Tokens that a text may spell out.
    added: Vec<(String, u32)>,
    normalizer: Normalizer,
    vocabulary: HashMap<String, u32>,
    inside: String,
    unknown: u32,
    max_word: usize,
    /// The tokens around every text: [CLS] before it, [SEP] behind it.
    ends: [u32; 2],
}

impl Pieces {
    /// Reads the text of a `tokenizer.json`, which `path` names in messages; every id must lie below `rows`.
    pub(super) fn read(json: &str, path: &Path, rows: usize) -> Result<Pieces, EncoderError> {
        let broken = |reason| EncoderError::Parse { path: path.to_owned(), reason };
        let pieces = Pieces::parse(json).map_err(broken)?;
        let added = pieces.added.iter().map(|(_, id)| *id);
        let highest = pieces.vocabulary.values().copied().chain(added).chain(pieces.ends).max();
        match highest.filter(|&id| id as usize >= rows) {
            Some(id) => Err(EncoderError::Vocabulary { path: path.to_owned(), id, rows }),
            None => Ok(pieces),
        }
    }

    fn parse(json: &str) -> Result<Pieces, String> {
        let file: File = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let kinds = [&file.model.r#type, &file.normalizer.r#type, &file.pre_tokenizer.r#type];
        if kinds != ["WordPiece", "BertNormalizer", "BertPreTokenizer"] {
            return Err(format!("{kinds:?} in place of WordPiece, BertNormalizer, BertPreTokenizer"));
        }
        let plain = |token: &AddedToken| !(token.single_word || token.lstrip || token.rstrip || token.normalized);
        if !file.added_tokens.iter().all(plain) {
            return Err("an added token that is not taken as it is written".to_owned());
        }
        let max_word = file.model.max_input_chars_per_word.unwrap_or(DEFAULT_WORD_CHARS);
        check_word_chars(max_word)?;
        let unknown = file.model.vocab.get(&file.model.unk_token).copied();
        let mut added: Vec<(String, u32)> = file
            .added_tokens
            .into_iter()
            .map(|token| (token.content, token.id))
            .filter(|(text, _)| !text.is_empty())
            .collect();
        // The longest of several that begin at one place counts.
        added.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        Ok(Pieces {
            added,
            normalizer: file.normalizer,
            inside: file.model.continuing_subword_prefix,
            unknown: unknown.ok_or("the vocabulary lacks the token for unknown words")?,
            max_word,
            ends: ends(file.post_processor).ok_or("no [CLS] and [SEP] around a text")?,
            vocabulary: file.model.vocab,
        })
    }

    /// Appends the tokens of a text that spells out no added token, until there are `most` with the [SEP] behind them.
    fn cut(&self, text: &str, most: usize, ids: &mut Vec<u32>) {
        let plain = self.plain(text);
        let mut word = String::new();
        for c in plain.chars() {
            if ids.len() + 1 >= most {
                return;
            }
            let is_mark = c.is_ascii_punctuation() || c.is_punctuation();
            if is_mark || c.is_whitespace() {
                self.cut_word(&word, ids);
                word.clear();
            }
            if is_mark {
                self.cut_word(c.encode_utf8(&mut [0; 4]), ids);
            } else if !c.is_whitespace() {
                word.push(c);
            }
        }
        self.cut_word(&word, ids);
    }

    /// The text without control characters and, as the file says, without accents and capitals.
    fn plain(&self, text: &str) -> String {
        let Normalizer { clean_text, handle_chinese_chars, strip_accents, lowercase, .. } = self.normalizer;
        let mut plain = String::with_capacity(text.len());
        for c in text.chars() {
            // Other control characters that are blanks, such as U+0085, go.
            let is_plain_blank = matches!(c, '\t' | '\n' | '\r');
            let is_noise = matches!(c, '\0' | '\u{fffd}') || (!is_plain_blank && c.is_other());
            match c {
                _ if clean_text && is_noise => {}
                _ if clean_text && c.is_whitespace() => plain.push(' '),
                _ if handle_chinese_chars && is_chinese(c) => plain.extend([' ', c, ' ']),
                _ => plain.push(c),
            }
        }
        if strip_accents.unwrap_or(lowercase) {
            plain = plain.nfd().map(|(c, _)| c).filter(|c| !c.is_mark_nonspacing()).collect();
        }
        if lowercase { plain.chars().flat_map(char::to_lowercase).collect() } else { plain }
    }

    fn cut_word(&self, word: &str, ids: &mut Vec<u32>) {
        if word.chars().count() > self.max_word {
            ids.push(self.unknown);
            return;
        }
        let (before, mut rest) = (ids.len(), word);
        let mut candidate = String::new();
        while !rest.is_empty() {
            let inside = rest.len() < word.len();
            let ends = rest.char_indices().map(|(at, c)| at + c.len_utf8()).rev();
            let mut found = ends.filter_map(|end| {
                candidate.clear();
                candidate.push_str(if inside { &self.inside } else { "" });
                candidate.push_str(&rest[..end]);
                Some((end, *self.vocabulary.get(&candidate)?))
            });
            let Some((end, id)) = found.next() else {
                ids.truncate(before);
                ids.push(self.unknown);
                return;
            };
            ids.push(id);
            rest = &rest[end..];
        }
    }
}

impl Tokens for Pieces {
    fn encode(&self, text: &str, most: usize) -> Result<Vec<u32>, EncoderError> {
        check_length(text)?;
        let mut ids = vec![self.ends[0]];
        let mut start = 0;
        let mut at = 0;
        while at < text.len() && ids.len() + 1 < most {
            match self.added.iter().find(|(token, _)| text[at..].starts_with(token)) {
                Some((token, id)) => {
                    self.cut(&text[start..at], most, &mut ids);
                    ids.push(*id);
                    at += token.len();
                    start = at;
                }
                None => at += text[at..].chars().next().map_or(1, char::len_utf8),
            }
        }
        self.cut(&text[start..], most, &mut ids);
        ids.truncate(most - 1);
        ids.push(self.ends[1]);
        Ok(ids)
    }
}

/// The tokens before and behind a text.
fn ends(processor: Option<PostProcessor>) -> Option<[u32; 2]> {
    match processor? {
        PostProcessor::BertProcessing { cls, sep } => Some([cls.1, sep.1]),
        PostProcessor::TemplateProcessing { single, special_tokens } => {
            let [Part::SpecialToken { id: before }, Part::Sequence {}, Part::SpecialToken { id: behind }] = &single[..]
            else {
                return None;
            };
            let id = |name: &String| match special_tokens.get(name)?.ids[..] {
                [id] => Some(id),
                _ => None,
            };
            Some([id(before)?, id(behind)?])
        }
    }
}

/// Whether a character belongs to the blocks of unified and compatible Chinese characters that BERT's vocabularies set apart.
fn is_chinese(c: char) -> bool {
    matches!(c,
        '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{2a6df}'
        | '\u{2a700}'..='\u{2b81f}' | '\u{2b920}'..='\u{2ceaf}' | '\u{2f800}'..='\u{2fa1f}')
}
