//! Finds the tokens that are matched whole, before the text is split into words.
//!
//! The leftmost place wins, there the longest token. The texts lie sorted; from one place of the text the candidates
//! are narrowed byte by byte, so a place costs at most the length of the longest token times a binary search.

/// A set of tokens to match whole.
#[derive(Debug, Default)]
pub(super) struct WholeTokens {
    /// Text and id, sorted by text.
    tokens: Vec<(Box<str>, u32)>,
    /// Whether a token begins with the byte.
    begins: Vec<bool>,
}

/// A token found in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    /// Start of the token in the text, in bytes.
    pub(super) start: usize,
    /// Its length in bytes, above 0.
    pub(super) len: usize,
    /// Id of the token.
    pub(super) id: u32,
}

impl WholeTokens {
    /// Takes texts and ids; empty texts can match nothing and are left out.
    pub(super) fn new<'a>(tokens: impl Iterator<Item = (&'a str, u32)>) -> Self {
        let mut tokens: Vec<(Box<str>, u32)> =
            tokens.filter(|(text, _)| !text.is_empty()).map(|(text, id)| (text.into(), id)).collect();
        tokens.sort_unstable();
        let mut begins = vec![false; 256];
        for (text, _) in &tokens {
            begins[usize::from(text.as_bytes()[0])] = true;
        }
        Self { tokens, begins }
    }

    /// The first match in a text.
    pub(super) fn find(&self, text: &str) -> Option<Match> {
        if self.tokens.is_empty() {
            return None;
        }
        let bytes = text.as_bytes();
        let places = bytes.iter().enumerate().filter(|(_, byte)| self.begins[usize::from(**byte)]);
        places.map(|(start, _)| (start, self.longest_at(&bytes[start..], |_| true))).find_map(|(start, hit)| {
            let (len, id) = hit?;
            Some(Match { start, len, id })
        })
    }

    /// The first match in a text with content: no token may cover one of the places in `words` (ascending), except those
    /// that `is_anywhere` names.
    pub(super) fn find_beside(
        &self,
        text: &str,
        words: impl Iterator<Item = usize>,
        is_anywhere: impl Fn(u32) -> bool,
    ) -> Option<Match> {
        let bytes = text.as_bytes();
        let mut words = words.peekable();
        let places = bytes.iter().enumerate().filter(|(_, byte)| self.begins[usize::from(**byte)]);
        places.map(|(start, _)| start).find_map(|start| {
            while words.next_if(|&word| word < start).is_some() {}
            let end = words.peek().map_or(bytes.len(), |&word| word);
            let rest = &bytes[start..];
            let (len, id) = self.longest_at(rest, |(len, id)| start + len <= end || is_anywhere(id))?;
            Some(Match { start, len, id })
        })
    }

    /// Length and id of the longest token that `bytes` begin with and that `may` stand there.
    fn longest_at(&self, bytes: &[u8], may: impl Fn((usize, u32)) -> bool) -> Option<(usize, u32)> {
        let mut range = &self.tokens[..];
        let mut best = None;
        for (depth, byte) in bytes.iter().enumerate() {
            // All of `range` agree with the text on the first `depth` bytes; those that end there sort first.
            let at = |token: &(Box<str>, u32)| token.0.as_bytes().get(depth).copied();
            let from = range.partition_point(|t| at(t) < Some(*byte));
            let to = range.partition_point(|t| at(t) <= Some(*byte));
            range = &range[from..to];
            match range.first() {
                None => break,
                Some((text, id)) if text.len() == depth + 1 && may((depth + 1, *id)) => best = Some((depth + 1, *id)),
                Some(_) => {}
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::{Match, WholeTokens};
    use proptest::prelude::*;

    /// Every place, every token.
    fn by_definition(tokens: &[String], text: &str) -> Option<Match> {
        (0..text.len()).find_map(|start| {
            let hits = (0u32..).zip(tokens).filter(|(_, t)| text.as_bytes()[start..].starts_with(t.as_bytes()));
            hits.max_by_key(|(_, t)| t.len()).map(|(id, t)| Match { start, len: t.len(), id })
        })
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(
            tokens in prop::collection::btree_set("[ab<é]{1,4}", 0..8),
            text in "[ab<é]{0,24}",
        ) {
            let tokens: Vec<String> = tokens.into_iter().rev().collect();
            let whole = WholeTokens::new((0u32..).zip(&tokens).map(|(id, t)| (t.as_str(), id)));
            prop_assert_eq!(whole.find(&text), by_definition(&tokens, &text));
            prop_assert_eq!(whole.find_beside(&text, std::iter::empty(), |_| false), whole.find(&text));
            prop_assert_eq!(whole.find_beside(&text, 0..text.len(), |_| false), None);
            prop_assert_eq!(whole.find_beside(&text, 0..text.len(), |_| true), whole.find(&text));
        }
    }
}
