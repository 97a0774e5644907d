//! Responses taken apart: what a sentence, a citation and a clause are.

use behavior_eval::suite::{Chunk, Prompt};
use behavior_eval::text::sentences;
use proptest::prelude::*;

fn prompt() -> Prompt {
    let chunk = |id: &str| Chunk { id: id.to_owned(), source: "s".to_owned(), text: "t".to_owned() };
    let chunks = ["doc-2", "doc-8", "two words", "a,b", "§"].map(chunk).to_vec();
    Prompt {
        id: "p".to_owned(),
        label: None,
        system: String::new(),
        user: String::new(),
        question: String::new(),
        context: vec![],
        relevant: None,
        gold_answer: None,
        chunks,
    }
}

/// Sentences as `text <- ids`.
fn taken_apart(response: &str) -> Vec<String> {
    let show = |sentence: &behavior_eval::text::Sentence| {
        let ids: Vec<&str> = sentence.citations.iter().map(|citation| citation.chunk_id.as_str()).collect();
        format!("{} <- {}", sentence.text, ids.join(" ")).trim_end_matches(" <- ").to_owned()
    };
    sentences(response, &prompt()).iter().map(show).collect()
}

#[test]
fn where_sentences_end() {
    for (response, want) in [
        ("", &[][..]),
        ("  \n ", &[]),
        ("One. Two! Three? Four", &["One.", "Two!", "Three?", "Four"]),
        ("It is 3.5 km long. Next.", &["It is 3.5 km long.", "Next."]),
        ("Dr. Smith met J. Doe, e.g. Mr. X. Then left.", &["Dr. Smith met J. Doe, e.g. Mr. X. Then left."]),
        ("Dr. Smith left. He ran.", &["Dr. Smith left.", "He ran."]),
        ("Approx. half of it. done", &["Approx. half of it. done"]),
        ("He said \"yes.\" She left.", &["He said \"yes.\"", "She left."]),
        ("Wait... what? Yes… No", &["Wait... what?", "Yes…", "No"]),
        ("Line one\nline two", &["Line one", "line two"]),
        ("北京是首都。上海不是。", &["北京是首都。", "上海不是。"]),
        ("v1.2.3 is out.", &["v1.2.3 is out."]),
    ] {
        assert_eq!(taken_apart(response), want, "{response}");
    }
}

#[test]
fn citations_belong_to_the_sentence_before_them() {
    for (response, want) in [
        ("The capital of X is Y. [doc-2] [doc-8]", &["The capital of X is Y. <- doc-2 doc-8"][..]),
        ("It is Y.[doc-2][doc-8] And Z. [doc-9]", &["It is Y. <- doc-2 doc-8", "And Z. <- doc-9"]),
        ("It is Y [doc-2]. And Z [doc-8].", &["It is Y . <- doc-2", "And Z . <- doc-8"]),
        ("It is Y. [doc-2]. And Z.", &["It is Y. . <- doc-2", "And Z."]),
        ("It is Y. [doc-2]\n[doc-8]", &["It is Y. <- doc-2", " <- doc-8"]),
        ("[doc-2] says so. Next.", &["says so. <- doc-2", "Next."]),
        ("Y Inc. [doc-2] grew. Z.", &["Y Inc. grew. <- doc-2", "Z."]),
        ("[doc-2]", &[" <- doc-2"]),
        ("A [doc-2, doc-8] b.", &["A b. <- doc-2 doc-8"]),
        ("A [doc-2; doc-77] b.", &["A b. <- doc-2 doc-77"]),
        ("A [two words] [a,b] [ § ].", &["A . <- two words a,b §"]),
        ("Not [a citation] or [] or [...] or [x](http://y).", &["Not [a citation] or [] or [...] or [x](http://y)."]),
        ("Open [doc-2 and [doc-8] closed]", &["Open [doc-2 and closed] <- doc-8"]),
        ("Broken [doc-\n2]", &["Broken [doc-", "2]"]),
        ("Yes. B [v1.2. x] C.", &["Yes.", "B [v1.2. x] C."]),
    ] {
        assert_eq!(taken_apart(response), want, "{response}");
    }
}

#[test]
fn clauses_are_what_stands_before_a_group() {
    let response = "Sources disagree: A b [doc-2] and [doc-8], or C [doc-9]. D. [doc-2]";
    let clauses: Vec<(String, String)> = sentences(response, &prompt())
        .into_iter()
        .flat_map(|sentence| sentence.citations)
        .map(|citation| (citation.chunk_id, response[citation.clause].to_owned()))
        .collect();
    let want =
        [("doc-2", "Sources disagree: A b"), ("doc-8", "Sources disagree: A b"), ("doc-9", ", or C"), ("doc-2", "D.")];
    let want = want.map(|(id, clause)| (id.to_owned(), clause.to_owned()));
    assert_eq!(clauses, want);
}

proptest! {
    /// Nothing panics, spans name their ids, sentences come in order and leave out white space only.
    #[test]
    fn any_text_is_taken_apart(response in "(\\[|\\]|doc-2|[a-zA-Z.!?…,; \n\"()§é北]){0,60}") {
        let found = sentences(&response, &prompt());
        let mut end = 0;
        for sentence in &found {
            prop_assert!(sentence.span.start >= end && sentence.span.end >= sentence.span.start);
            prop_assert!(response[end..sentence.span.start].trim().is_empty());
            end = sentence.span.end;
            for citation in &sentence.citations {
                prop_assert_eq!(&response[citation.span.clone()], &citation.chunk_id);
                prop_assert!(sentence.span.start <= citation.span.start && citation.span.end <= sentence.span.end);
                prop_assert!(response.get(citation.clause.clone()).is_some());
            }
        }
        prop_assert!(response[end..].trim().is_empty());
    }
}
