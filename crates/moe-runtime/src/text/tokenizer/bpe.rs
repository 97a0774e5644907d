//! Byte-level byte-pair encoding of text without whole tokens.
//!
//! With the feature `tokenizers` the crate of that name does it. Builds without it (WASM) have an encoder of their own,
//! for the pre-tokenizers that GGUF has a name for.
//!
//! **Invariant:** both give the same ids.

#[cfg(feature = "tokenizers")]
mod with_crate;
#[cfg(any(test, not(feature = "tokenizers")))]
mod without_crate;

#[cfg(feature = "tokenizers")]
pub(crate) use with_crate::Bpe;
#[cfg(not(feature = "tokenizers"))]
pub(crate) use without_crate::Bpe;

#[cfg(all(test, feature = "tokenizers"))]
mod tests {
    use crate::text::tokenizer::bpe::{with_crate, without_crate};
    use crate::text::tokenizer::hf::{Found, read};

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

    /// A rare byte without a token is left out of the text by both, and its neighbours may merge. llama.cpp leaves it out
    /// too and does not merge across it.
    #[test]
    fn the_encoders_agree_on_bytes_without_a_token() {
        let Found::Vocabulary(mut vocabulary) = read(&fixtures::path("craftsman-mini")).unwrap() else {
            panic!("the mini teacher has a vocabulary")
        };
        let encode = |vocabulary: &_, text: &str| {
            let mut ids = [Vec::new(), Vec::new()];
            with_crate::Bpe::new(vocabulary).unwrap().encode(text, &mut ids[0]).unwrap();
            without_crate::Bpe::new(vocabulary).unwrap().encode(text, &mut ids[1]).unwrap();
            assert_eq!(ids[0], ids[1]);
            ids[0].clone()
        };
        let whole = encode(&vocabulary, "a\u{4}b");
        let byte = char::from_u32(0x104).unwrap().to_string();
        let at = vocabulary.tokens.iter().position(|token| *token == byte).unwrap();
        vocabulary.tokens[at] = "a text of no merge".to_owned();
        assert_eq!(vocabulary.check().unwrap(), [4]);
        let without = encode(&vocabulary, "a\u{4}b");
        assert_eq!(without.len() + 1, whole.len());
        let letter = vocabulary.tokens.iter().position(|token| token == "q").unwrap();
        vocabulary.tokens[letter] = "another text of no merge".to_owned();
        let refused = vocabulary.check().unwrap_err().to_string();
        assert!(refused.contains("byte 0x71 has no token"), "the rare byte before it is no reason: {refused}");
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
