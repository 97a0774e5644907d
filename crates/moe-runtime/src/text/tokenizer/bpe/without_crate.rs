//! An encoder for the pre-tokenizers that GGUF has a name for, in builds without the crate `tokenizers`.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::error::{Error, Result};
use crate::text::error::TextError;
use crate::text::tokenizer::bytes;
use crate::text::tokenizer::pre::{PreTokenizer, Style};
use crate::text::tokenizer::vocabulary::Vocabulary;
use crate::text::tokenizer::words::first_word;

/// The encoder of the named pre-tokenizers. It holds ordinary tokens only.
pub(crate) struct Bpe {
    style: Style,
    /// The token of each byte; rare bytes may have none.
    bytes: [Option<u32>; 256],
    /// For a pair of neighbours how urgent their merge is, the least first, and what it gives.
    merges: HashMap<(u32, u32), (usize, u32)>,
    /// Tokens by text, where a word that is a token skips the merges; otherwise empty.
    words: HashMap<String, u32>,
}

impl Bpe {
    /// Builds the encoder of a vocabulary that passed its checks.
    ///
    /// # Errors
    /// [`TextError::Unsupported`] for a pre-tokenizer that `words.rs` has no rules for.
    pub(crate) fn new(vocabulary: &Vocabulary) -> Result<Self> {
        let style = match &vocabulary.pre {
            PreTokenizer::Gguf(scheme) => scheme.style,
            PreTokenizer::Custom { .. } => None,
        };
        let Some(style) = style else {
            return Err(Error::Text(TextError::Unsupported {
                feature: format!("the pre-tokenizer in {}", vocabulary.origin),
                remedy: "build with the feature `tokenizers` of moe-runtime",
            }));
        };
        let words = vocabulary.bpe_tokens();
        let id = |text: &str| words.get(text).copied().expect("the vocabulary was checked");
        let mut merges = HashMap::with_capacity(vocabulary.merges.len());
        for (rank, (a, b)) in vocabulary.merges.iter().enumerate() {
            merges.insert((id(a), id(b)), (rank, id(&format!("{a}{b}"))));
        }
        let bytes = std::array::from_fn(|byte| words.get(&bytes::CHARS[byte].to_string()).copied());
        let words = if vocabulary.ignore_merges { words } else { HashMap::new() };
        Ok(Self { style, bytes, merges, words })
    }

    /// Appends the ids of a text. A word of n bytes takes time of the order n log n.
    pub(crate) fn encode(&self, mut text: &str, ids: &mut Vec<u32>) -> Result<()> {
        while !text.is_empty() {
            let (word, rest) = text.split_at(first_word(self.style, text));
            self.encode_word(word, ids);
            text = rest;
        }
        Ok(())
    }

    fn encode_word(&self, word: &str, ids: &mut Vec<u32>) {
        let spelled = || word.bytes().map(|byte| bytes::CHARS[usize::from(byte)]).collect::<String>();
        if !self.words.is_empty()
            && let Some(&id) = self.words.get(&spelled())
        {
            ids.push(id);
            return;
        }
        let mut parts: Vec<u32> = word.bytes().filter_map(|byte| self.bytes[usize::from(byte)]).collect();
        self.merge(&mut parts);
        ids.extend_from_slice(&parts);
    }

    /// Merges neighbours, the most urgent pair first and of equals the leftmost, until no pair has a merge.
    fn merge(&self, parts: &mut Vec<u32>) {
        let end = parts.len();
        // A merge leaves the joined token in the place of the left one; the right place is empty from then on.
        let mut next: Vec<usize> = (1..=end).collect();
        let mut before: Vec<Option<usize>> = (0..end).map(|at| at.checked_sub(1)).collect();
        let mut filled = vec![true; end];
        let candidate = |parts: &[u32], at: usize, behind: usize| {
            let pair = (parts[at], *parts.get(behind)?);
            self.merges.get(&pair).map(|&(rank, joined)| Reverse((rank, at, pair, joined)))
        };
        let mut waiting: BinaryHeap<_> = (0..end).filter_map(|at| candidate(parts, at, at + 1)).collect();
        while let Some(Reverse((_, at, pair, joined))) = waiting.pop() {
            let behind = next[at];
            // One of the two may have been merged with another neighbour since.
            if !filled[at] || parts[at] != pair.0 || parts.get(behind) != Some(&pair.1) {
                continue;
            }
            parts[at] = joined;
            filled[behind] = false;
            next[at] = next[behind];
            if let Some(before) = before.get_mut(next[at]) {
                *before = Some(at);
            }
            waiting.extend(candidate(parts, at, next[at]));
            waiting.extend(before[at].and_then(|left| candidate(parts, left, at)));
        }
        let mut filled = filled.into_iter();
        parts.retain(|_| filled.next().expect("one for each part"));
    }
}
