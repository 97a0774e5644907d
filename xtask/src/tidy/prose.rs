//! Rules about comments: a doc comment says something, and a sentence names its subject.

use super::findings::Findings;
use super::tokens::{Kind, tokens};

/// A one-line doc comment of so few words only restates the name below it.
const FEW_WORDS: usize = 3;

/// Words that open a sentence without naming what it is about.
const HIDDEN_SUBJECTS: [&str; 5] = ["Who", "Whoever", "Those", "Nobody", "What"];

/// Checks the comments of a Rust file; `name` is its path from the root with forward slashes.
pub(super) fn check(name: &str, text: &str, findings: &mut Findings) {
    for (line, doc) in short_docs(text) {
        findings.problem(format!("{name}:{line}: `/// {doc}` restates the name: say more or leave it out"));
    }
    for (line, word) in hidden_subjects(text) {
        findings.problem(format!("{name}:{line}: a sentence opens with `{word}`: name its subject"));
    }
}

/// Doc comments of one line and at most [`FEW_WORDS`] words.
fn short_docs(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_doc = |at: usize| lines.get(at).is_some_and(|line| line.starts_with("///"));
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let alone = is_doc(at) && !is_doc(at + 1) && !at.checked_sub(1).is_some_and(is_doc);
        let doc = line.trim_start_matches('/').trim();
        if alone && doc.split_whitespace().count() <= FEW_WORDS {
            found.push((at + 1, doc.to_owned()));
        }
    }
    found
}

/// Sentences in comments that open with one of [`HIDDEN_SUBJECTS`], by the line they start on.
fn hidden_subjects(text: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    let (mut last_line, mut is_start, mut is_code) = (0, true, false);
    for token in tokens(text) {
        let Kind::Comment(comment) = token.kind else {
            is_start = true;
            continue;
        };
        is_start |= token.line > last_line + 1;
        last_line = token.line;
        let line = comment.trim_start_matches(['/', '!', '*']).trim();
        if line.starts_with("```") {
            is_code = !is_code;
        }
        if line.is_empty() || line.starts_with("```") || line.starts_with("# ") || is_code {
            is_start = true;
            continue;
        }
        for word in line.split_whitespace() {
            let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
            if is_start && let Some(hidden) = HIDDEN_SUBJECTS.iter().find(|hidden| **hidden == bare) {
                found.push((token.line, *hidden));
            }
            // A list mark or a bracket alone leaves the sentence unopened.
            is_start = (is_start && bare.is_empty()) || word.ends_with(['.', ':', '!', '?', ';']);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{hidden_subjects, short_docs};

    #[test]
    fn a_doc_comment_says_more_than_three_words() {
        let good = "/// Rows of the matrix, padding included.\nrows: usize,\n/// First line.\n/// Second.\nfn f() {}\n// A note.\n";
        assert!(short_docs(good).is_empty());
        assert_eq!(short_docs("    /// The other one.\n    b: u8,\n"), [(1, "The other one.".to_owned())]);
    }

    #[test]
    fn a_sentence_names_its_subject() {
        let good =
            "//! The worker that holds the lock waits. It is one of those.\n// See `Who`.\nlet a = \"Who is it\";\n";
        assert!(hidden_subjects(good).is_empty());
        let bad =
            "/// Who holds it waits.\nfn f() {}\n// A start: Those\n// end. - Nobody else.\nlet x = 1; // Whoever\n";
        assert_eq!(hidden_subjects(bad), [(1, "Who"), (3, "Those"), (4, "Nobody"), (5, "Whoever")]);
    }

    #[test]
    fn a_heading_ends_a_sentence() {
        assert_eq!(hidden_subjects("/// # Errors\n/// Those of it.\n"), [(2, "Those")]);
    }

    #[test]
    fn examples_in_comments_are_code() {
        assert!(hidden_subjects("/// Text.\n/// ```\n/// Who::am_i();\n/// ```\n").is_empty());
    }
}
