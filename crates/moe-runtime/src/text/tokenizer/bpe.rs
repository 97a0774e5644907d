//! Byte-level byte-pair encoding of text without whole tokens.
//!
//! With the feature `tokenizers` the crate of that name does it. Builds without it (WASM) have an encoder of their own,
//! for the pre-tokenizers that GGUF has a name for.
//!
//! **Invariant:** both give the same ids.

use super::vocabulary::Vocabulary;
use crate::error::{Error, Result};

#[cfg(feature = "tokenizers")]
pub(super) use with_crate::Bpe;
#[cfg(not(feature = "tokenizers"))]
pub(super) use without_crate::Bpe;

#[cfg(feature = "tokenizers")]
mod with_crate {
    use tokenizers::models::bpe::BPE;
    use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

    use super::{Error, Result, Vocabulary};

    /// The encoder. It holds ordinary tokens only.
    pub(in super::super) struct Bpe {
        inner: Tokenizer,
    }

    impl Bpe {
        /// Builds the encoder of a vocabulary that passed its checks.
        ///
        /// # Errors
        /// [`Error::Unsupported`] for an expression that does not compile.
        pub(in super::super) fn new(vocabulary: &Vocabulary) -> Result<Self> {
            let refuse = |what: &str, reason: &dyn std::fmt::Display| Error::Unsupported {
                feature: format!("the {what} in {} ({reason})", vocabulary.origin),
                remedy: "use a checkpoint with a byte-level BPE tokenizer",
            };
            let tokens = vocabulary.bpe_tokens().into_iter().collect::<tokenizers::models::bpe::Vocab>();
            let model = BPE::builder()
                .vocab_and_merges(tokens, vocabulary.merges.clone())
                .ignore_merges(vocabulary.ignore_merges)
                .build()
                .map_err(|e| refuse("list of merges", &e))?;
            let (pre_tokenizer, normalizer) = vocabulary.pre.to_json();
            let pre_tokenizer: PreTokenizerWrapper =
                serde_json::from_value(pre_tokenizer).map_err(|e| refuse("pre-tokenizer", &e))?;
            let normalizer: Option<NormalizerWrapper> =
                serde_json::from_value(normalizer).map_err(|e| refuse("normalizer", &e))?;
            let mut inner = Tokenizer::new(model);
            inner.with_pre_tokenizer(Some(pre_tokenizer));
            inner.with_normalizer(normalizer).map_err(|e| refuse("normalizer", &e))?;
            Ok(Self { inner })
        }

        /// Appends the ids of a text.
        pub(in super::super) fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
            let encoding = self.inner.encode_fast(text, false).map_err(|e| Error::Encode { reason: e.to_string() })?;
            ids.extend_from_slice(encoding.get_ids());
            Ok(())
        }
    }
}

#[cfg(any(test, not(feature = "tokenizers")))]
mod without_crate {
    use std::cmp::Reverse;
    use std::collections::{BinaryHeap, HashMap};

    use super::super::bytes;
    use super::super::pre::{PreTokenizer, Style};
    use super::super::words::first_word;
    use super::{Error, Result, Vocabulary};

    /// The encoder of the named pre-tokenizers. It holds ordinary tokens only.
    pub(in super::super) struct Bpe {
        style: Style,
        /// The token of each byte.
        bytes: [u32; 256],
        /// For a pair of neighbours how urgent their merge is, the least first, and what it gives.
        merges: HashMap<(u32, u32), (usize, u32)>,
        /// Tokens by text, where a word that is a token skips the merges; otherwise empty.
        words: HashMap<String, u32>,
    }

    impl Bpe {
        /// Builds the encoder of a vocabulary that passed its checks.
        ///
        /// # Errors
        /// [`Error::Unsupported`] for a pre-tokenizer that only `tokenizer.json` can say.
        pub(in super::super) fn new(vocabulary: &Vocabulary) -> Result<Self> {
            let PreTokenizer::Named(scheme) = &vocabulary.pre else {
                return Err(Error::Unsupported {
                    feature: format!("the pre-tokenizer in {}", vocabulary.origin),
                    remedy: "build with the feature `tokenizers` of moe-runtime",
                });
            };
            let words = vocabulary.bpe_tokens();
            let id = |text: &str| words.get(text).copied().expect("the vocabulary was checked");
            let mut merges = HashMap::with_capacity(vocabulary.merges.len());
            for (rank, (a, b)) in vocabulary.merges.iter().enumerate() {
                merges.insert((id(a), id(b)), (rank, id(&format!("{a}{b}"))));
            }
            let bytes = std::array::from_fn(|byte| id(&bytes::CHARS[byte].to_string()));
            let words = if vocabulary.ignore_merges { words } else { HashMap::new() };
            Ok(Self { style: scheme.style, bytes, merges, words })
        }

        /// Appends the ids of a text. A word of n bytes takes time of the order n log n.
        pub(in super::super) fn encode(&self, mut text: &str, ids: &mut Vec<u32>) -> Result<()> {
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
            let mut parts: Vec<u32> = word.bytes().map(|byte| self.bytes[usize::from(byte)]).collect();
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
}

#[cfg(all(test, feature = "tokenizers"))]
mod tests {
    use super::super::hf::{Found, read};
    use super::{with_crate, without_crate};

    /// Both encoders give the same ids: on held-out text, on every character, on random bytes of text.
    #[test]
    fn the_encoders_agree() {
        let Found::Vocabulary(mut vocabulary) = read(&fixtures::path("craftsman-mini")).unwrap() else {
            panic!("the mini teacher has a vocabulary")
        };
        let mut text = std::fs::read_to_string(fixtures::path("texts/heldout.txt")).unwrap();
        text.truncate(text.floor_char_boundary(100_000));
        text.extend((0..0x3000).filter_map(char::from_u32));
        for ignore_merges in [true, false] {
            vocabulary.ignore_merges = ignore_merges;
            let (mut by_crate, mut by_hand) = (Vec::new(), Vec::new());
            with_crate::Bpe::new(&vocabulary).unwrap().encode(&text, &mut by_crate).unwrap();
            without_crate::Bpe::new(&vocabulary).unwrap().encode(&text, &mut by_hand).unwrap();
            assert!(by_crate.len() > 20_000);
            assert!(by_crate == by_hand, "ignore_merges {ignore_merges}");
        }
    }

    /// Words far longer than any language has, of letters that merge with each other in many ways.
    #[test]
    fn the_encoders_agree_on_long_words() {
        let Found::Vocabulary(vocabulary) = read(&fixtures::path("craftsman-mini")).unwrap() else {
            panic!("the mini teacher has a vocabulary")
        };
        let (by_crate, by_hand) =
            (with_crate::Bpe::new(&vocabulary).unwrap(), without_crate::Bpe::new(&vocabulary).unwrap());
        let mut random = crate::SplitMix64::new(1);
        let mixed: String =
            (0..20_000).map(|_| ['e', 'r', 't', 'h', 'a', 'n'][(random.next_u64() % 6) as usize]).collect();
        // A search for the best pair after each merge would take minutes for the last one.
        for word in [mixed, "the".repeat(5_000), "a".repeat(7), "ab".repeat(400_000)] {
            let mut ids = [Vec::new(), Vec::new()];
            by_crate.encode(&word, &mut ids[0]).unwrap();
            by_hand.encode(&word, &mut ids[1]).unwrap();
            assert!(ids[0] == ids[1] && !ids[0].is_empty(), "{} bytes", word.len());
        }
    }
}
