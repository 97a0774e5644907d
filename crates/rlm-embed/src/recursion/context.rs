//! A text rewritten with what its neighbours say.

use std::collections::BTreeMap;

use behavior_eval::labels::{PartOfSpeech, part_of_speech, stem};

use super::config::Variant;

/// Neighbours that must share a word before it becomes context.
const LEAST_SHARED: usize = 2;
/// Most words that a context adds to a chunk.
const MAX_WORDS: usize = 12;

/// The text that the encoder reads in place of `text`, given its agreeing neighbours, the nearest first.
pub(super) fn context(variant: Variant, text: &str, neighbors: &[&str]) -> String {
    match variant {
        Variant::Query => [&[text], neighbors].concat().join(" "),
        Variant::Corpus | Variant::Twin => {
            let shared = shared_words(text, neighbors);
            if shared.is_empty() { text.to_owned() } else { format!("{text} {}", shared.join(" ")) }
        }
    }
}

/// Content words, one for each stem, that several neighbours have and the text lacks: the most frequent first, equals in
/// alphabetical order.
fn shared_words(text: &str, neighbors: &[&str]) -> Vec<String> {
    let own: Vec<String> = words(text).iter().map(|word| stem(word).to_owned()).collect();
    let mut counts: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for neighbor in neighbors {
        let mut seen = Vec::new();
        for word in words(neighbor) {
            let stem = stem(&word).to_owned();
            if !own.contains(&stem) && !seen.contains(&stem) {
                let entry = counts.entry(stem.clone()).or_insert_with(|| (0, word));
                entry.0 += 1;
                seen.push(stem);
            }
        }
    }
    let mut shared: Vec<(usize, String)> = counts.into_values().filter(|(n, _)| *n >= LEAST_SHARED).collect();
    shared.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    shared.into_iter().take(MAX_WORDS).map(|(_, word)| word).collect()
}

/// The content words of a text in lower case.
fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase);
    words.filter(|word| part_of_speech(word) == PartOfSpeech::Content).collect()
}

#[cfg(test)]
mod tests {
    use super::{Variant, context};

    #[test]
    fn chunks_gain_the_words_that_their_neighbours_share() {
        let neighbors = ["The Orra bridge was built by masons.", "Masons built bridges.", "A mill stands here."];
        assert_eq!(context(Variant::Corpus, "The bridge is old.", &neighbors), "The bridge is old. built masons");
        assert_eq!(context(Variant::Corpus, "The bridge is old.", &[]), "The bridge is old.");
        assert_eq!(context(Variant::Query, "Who built it?", &["Masons did."]), "Who built it? Masons did.");
    }
}
