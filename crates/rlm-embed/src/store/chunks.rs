//! A text cut into chunks: paragraphs, and the sentences of paragraphs that are too long.
//!
//! **Invariant:** no chunk has more than `max_words` words; the chunks in order have every word of the text.

/// The chunks of a text. A blank line ends a paragraph.
///
/// ```
/// use rlm_embed::store::cut;
/// assert_eq!(cut("One two. Three four.\n\nFive", 3), ["One two.", "Three four.", "Five"]);
/// assert_eq!(cut("a b c d e", 2), ["a b", "c d", "e"]);
/// assert!(cut(" \n\n ", 3).is_empty());
/// ```
///
/// # Panics
/// If `max_words` is 0.
#[must_use]
pub fn cut(text: &str, max_words: usize) -> Vec<String> {
    assert!(max_words > 0, "a chunk needs words");
    let mut chunks = Vec::new();
    let mut paragraph: Vec<&str> = Vec::new();
    for line in text.lines().chain([""]) {
        paragraph.extend(line.split_whitespace());
        if line.trim().is_empty() {
            cut_paragraph(&paragraph, max_words, &mut chunks);
            paragraph.clear();
        }
    }
    chunks
}

/// Ends a chunk at the last end of a sentence that fits, or after `max_words` words.
fn cut_paragraph(mut words: &[&str], max_words: usize, chunks: &mut Vec<String>) {
    while !words.is_empty() {
        let fits = words.len().min(max_words);
        let ends_sentence = |n: &usize| words[n - 1].ends_with(['.', '!', '?', '…', '。']);
        let end = if words.len() <= max_words { fits } else { (1..=fits).rev().find(ends_sentence).unwrap_or(fits) };
        let (chunk, rest) = words.split_at(end);
        chunks.push(chunk.join(" "));
        words = rest;
    }
}
