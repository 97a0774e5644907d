//! The words of a text, for every comparison of texts in this crate.
//!
//! A word is a longest run of letters and digits in lower case; everything else separates words. Ideographs and kana,
//! which are written without spaces, are a word each.
//!
//! **Invariant:** case, punctuation and white space never decide a comparison.

use std::collections::BTreeSet;

/// The words of a text, in order.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut open = false;
    for c in text.chars() {
        if !c.is_alphanumeric() {
            open = false;
            continue;
        }
        if is_own_word(c) {
            words.push(c.to_string());
            open = false;
            continue;
        }
        if !open {
            words.push(String::new());
            open = true;
        }
        if let Some(word) = words.last_mut() {
            word.extend(c.to_lowercase());
        }
    }
    words
}

/// Characters of scripts without spaces between words.
fn is_own_word(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

/// Whether `part` stands in `whole` as consecutive words; no words stand nowhere.
pub(crate) fn contains_run(whole: &[String], part: &[String]) -> bool {
    !part.is_empty() && whole.windows(part.len()).any(|window| window == part)
}

/// Words both have over words either has, as `(both, either)`.
pub(crate) fn overlap(a: &[String], b: &[String]) -> (usize, usize) {
    let (a, b): (BTreeSet<&String>, BTreeSet<&String>) = (a.iter().collect(), b.iter().collect());
    let both = a.intersection(&b).count();
    (both, a.len() + b.len() - both)
}

#[cfg(test)]
mod tests {
    use super::{contains_run, overlap, words};

    #[test]
    fn words_are_runs_of_letters_and_digits() {
        assert_eq!(words("The  capital, of X-2 isn't \"Ébo\"."), ["the", "capital", "of", "x", "2", "isn", "t", "ébo"]);
        assert_eq!(words("北京 GLM4"), ["北", "京", "glm4"]);
        assert!(words(" .,!").is_empty());
    }

    #[test]
    fn runs_are_whole_words() {
        let whole = words("Records say the capital is Sabopol.");
        assert!(contains_run(&whole, &words("the capital is Sabopol")));
        assert!(!contains_run(&whole, &words("cap")) && !contains_run(&whole, &words("capital Sabopol")));
        assert!(!contains_run(&whole, &[]) && !contains_run(&[], &words("a")));
    }

    #[test]
    fn overlap_counts_different_words_once() {
        assert_eq!(overlap(&words("a a b c"), &words("b c d")), (2, 4));
        assert_eq!(overlap(&[], &[]), (0, 0));
    }
}
