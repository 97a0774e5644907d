//! A vocabulary as both sources give it, and the checks that make it safe to use.

use std::collections::{HashMap, HashSet};

use super::bytes;
use super::pre::PreTokenizer;
use crate::error::{Error, Result};
use crate::guess::Guess;
use crate::text::error::{TextError, VocabularyDefect};

/// The use of a token, with the numbers of GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenType {
    /// A piece of ordinary text.
    Normal = 1,
    /// Stands for text that has no token.
    Unknown = 2,
    /// Steers the model; hidden from readers.
    Control = 3,
    /// Added by hand; matched whole, shown.
    UserDefined = 4,
    /// Fills up the embedding.
    Unused = 5,
    /// One raw byte, spelled `<0xNN>`.
    Byte = 6,
}

impl TokenType {
    /// The type of a GGUF number.
    pub(super) fn of(number: i64) -> Option<Self> {
        let all = [Self::Normal, Self::Unknown, Self::Control, Self::UserDefined, Self::Unused, Self::Byte];
        all.into_iter().find(|kind| kind.number() == number)
    }

    /// The number of the type in GGUF.
    pub(super) fn number(self) -> i64 {
        self as i64
    }
}

/// Ids with a role of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Begin of a text.
    pub bos: Option<u32>,
    /// End of a text.
    pub eos: Option<u32>,
    /// End of a turn.
    pub eot: Option<u32>,
    /// End of a message that waits for a tool.
    pub eom: Option<u32>,
    /// The token that stands for text without a token.
    pub unknown: Option<u32>,
    /// The token that fills up batches.
    pub padding: Option<u32>,
}

/// The parts of a tokenizer, as files state them.
#[derive(Clone, Debug)]
pub(super) struct Vocabulary {
    /// Where it came from, for messages.
    pub(super) origin: String,
    /// Text of every token, by id: byte-level for normal tokens, literal for all others.
    pub(super) tokens: Vec<String>,
    /// As long as `tokens`.
    pub(super) types: Vec<TokenType>,
    /// Pairs to join, the most urgent first.
    pub(super) merges: Vec<(String, String)>,
    /// A word that is a token is that token, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// The rule that cuts text into words.
    pub(super) pre: PreTokenizer,
    /// Ids with a role.
    pub(super) ids: SpecialIds,
    /// Ids that end generation besides those with a role.
    pub(super) stop_ids: Vec<u32>,
    /// Whether the begin token goes in front of prompts.
    pub(super) add_bos: bool,
    /// Source of the chat template.
    pub(super) chat_template: Option<String>,
    /// Facts above that the files do not state.
    pub(super) guesses: Vec<Guess>,
}

/// Whether a vocabulary may lack a token for a byte: control characters but tab and line ends, bytes that UTF-8 never
/// has, and first bytes of characters from planes without any (U+40000 to U+BFFFF) or for private use (from U+100000).
/// SmolLM2 lacks 21 of them.
fn is_rare(byte: u8) -> bool {
    byte.is_ascii_control() && !b"\t\n\r".contains(&byte) || matches!(byte, 0xc0 | 0xc1 | 0xf1 | 0xf2 | 0xf4..=0xff)
}

impl Vocabulary {
    fn defect<T>(&self, defect: VocabularyDefect) -> Result<T> {
        Err(Error::Text(TextError::Vocabulary { origin: self.origin.clone(), defect }))
    }

    /// The ids that BPE may produce, by text: normal tokens, and user-defined ones that a merge names.
    pub(super) fn bpe_tokens(&self) -> HashMap<String, u32> {
        let mut merged = HashSet::new();
        for (a, b) in &self.merges {
            merged.extend([a.clone(), b.clone(), format!("{a}{b}")]);
        }
        let tokens = (0u32..).zip(self.tokens.iter().zip(&self.types));
        let wanted = tokens.filter(|(_, (text, kind))| match kind {
            TokenType::Normal => true,
            TokenType::UserDefined => merged.contains(*text),
            _ => false,
        });
        wanted.map(|(id, (text, _))| (text.clone(), id)).collect()
    }

    /// Refuses every defect that would show as a wrong id or a panic later, and gives the rare bytes that have no token.
    ///
    /// # Errors
    /// [`TextError::Vocabulary`] with the first defect.
    pub(super) fn check(&self) -> Result<Vec<u8>> {
        if self.tokens.is_empty() {
            return self.defect(VocabularyDefect::Empty);
        }
        self.check_tokens()?;
        self.check_ids()?;
        let known = self.bpe_tokens();
        let has_token = |byte: u8| known.contains_key(bytes::CHARS[usize::from(byte)].to_string().as_str());
        let missing: Vec<u8> = (0..=255u8).filter(|&byte| !has_token(byte)).collect();
        if let Some(&byte) = missing.iter().find(|&&byte| !is_rare(byte)) {
            return self.defect(VocabularyDefect::MissingByte { byte });
        }
        for (index, (a, b)) in self.merges.iter().enumerate() {
            let joined = format!("{a}{b}");
            if [a, b, &joined].into_iter().any(|text| !known.contains_key(text)) {
                return self.defect(VocabularyDefect::Merge { index, merge: format!("{a} {b}") });
            }
        }
        Ok(missing)
    }

    fn check_tokens(&self) -> Result<()> {
        if self.types.len() != self.tokens.len() {
            let (got, want) = (self.types.len(), self.tokens.len());
            return self.defect(VocabularyDefect::Length { list: "the list of token types", got, want });
        }
        let mut seen: HashMap<&str, u32> = HashMap::with_capacity(self.tokens.len());
        for (id, (text, kind)) in (0u32..).zip(self.tokens.iter().zip(&self.types)) {
            if *kind == TokenType::Unused {
                continue;
            }
            if text.is_empty() {
                return self.defect(VocabularyDefect::EmptyToken { id });
            }
            if let Some(first) = seen.insert(text, id) {
                return self.defect(VocabularyDefect::DuplicateToken { token: text.clone(), first, second: id });
            }
        }
        Ok(())
    }

    fn check_ids(&self) -> Result<()> {
        let SpecialIds { bos, eos, eot, eom, unknown, padding } = self.ids;
        let roles = [
            ("the begin token", bos),
            ("the end token", eos),
            ("the end-of-turn token", eot),
            ("the end-of-message token", eom),
            ("the unknown token", unknown),
            ("the padding token", padding),
        ];
        let roles = roles.into_iter().filter_map(|(what, id)| Some((what, id?)));
        let stops = self.stop_ids.iter().map(|&id| ("a stop token", id));
        let limit = self.tokens.len() as u64;
        for (what, id) in roles.chain(stops) {
            if u64::from(id) >= limit {
                let defect = VocabularyDefect::IdOutOfRange { what: what.to_owned(), id: id.into(), limit };
                return self.defect(defect);
            }
        }
        Ok(())
    }
}
