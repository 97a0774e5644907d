//! Suites that are not what they should be: each fault is its own error and names file, line and field.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use behavior_eval::suite::SuiteError;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use behavior_eval::Error;
use behavior_eval::suite::{ChunkKey, Label, Suite, SuiteFault};
use behavior_eval::text::LineFault;

const PROMPT: &str = r#"{"prompt_id": "p1", "label": "resolved", "system": "S", "user": "A. [c1]\nB. [c 2]\nQuestion: Q?", "question": "Q?", "context": ["c1", "c 2"], "relevant": ["c1"], "gold_answer": "A. [c1]"}"#;
const CHUNKS: &str = "{\"prompt_id\": \"p1\", \"chunk_id\": \"c1\", \"source\": \"s\", \"text\": \"A.\"}
{\"prompt_id\": \"p1\", \"chunk_id\": \"c 2\", \"source\": \"t\", \"text\": \"B.\", \"more\": [1]}
";

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new(suite: impl AsRef<[u8]>, corpus: impl AsRef<[u8]>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("s.jsonl"), suite).unwrap();
        std::fs::write(dir.path().join("c.jsonl"), corpus).unwrap();
        Self { dir }
    }

    fn paths(&self) -> (PathBuf, PathBuf) {
        (self.dir.path().join("s.jsonl"), self.dir.path().join("c.jsonl"))
    }

    fn open(&self) -> Result<Suite, Error> {
        let (suite, corpus) = self.paths();
        Suite::open(&suite, &corpus)
    }
}

fn field(name: &str, reason: &str) -> SuiteFault {
    SuiteFault::Line(LineFault::Field { field: name.to_owned(), reason: reason.to_owned() })
}

/// The fault of the pair, with its file and line.
fn fault(suite: impl AsRef<[u8]>, corpus: impl AsRef<[u8]>) -> (String, u64, SuiteFault) {
    let error = Files::new(suite, corpus).open().unwrap_err();
    let message = error.to_string();
    match error {
        Error::Suite(SuiteError::Line { file, line, fault }) => {
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            assert!(message.contains(&name) && message.contains(&format!("line {line}")), "{message}");
            (name, line, fault)
        }
        other => panic!("{other}"),
    }
}

/// The prompt's line with one part replaced.
fn prompt_with(part: &str, by: &str) -> String {
    assert!(PROMPT.contains(part), "{part}");
    PROMPT.replacen(part, by, 1)
}

#[test]
fn a_sound_pair() {
    let suite = Files::new(format!("\n{PROMPT}\r\n\n"), CHUNKS).open().unwrap();
    let prompt = &suite.prompts()[0];
    assert_eq!((prompt.id.as_str(), prompt.label), ("p1", Some(Label::Resolved)));
    assert_eq!(prompt.chunk("c 2").unwrap().source, "t");
    assert!(prompt.chunk("c2").is_none());
    assert_eq!(suite.identity().len(), 64);
    let marked = Files::new(format!("\u{feff}{PROMPT}"), format!("\u{feff}{CHUNKS}")).open().unwrap();
    assert_eq!(marked.prompts(), suite.prompts(), "a byte order mark is no part of a line");
    // Optional fields, missing or null.
    let bare = prompt_with(r#""label": "resolved", "#, "").replace(r#""relevant": ["c1"]"#, r#""relevant": null"#);
    let suite = Files::new(bare.replace(r#", "gold_answer": "A. [c1]""#, ""), CHUNKS).open().unwrap();
    let prompt = &suite.prompts()[0];
    assert_eq!((prompt.label, &prompt.relevant, &prompt.gold_answer), (None, &None, &None));
}

#[test]
fn the_identity_is_that_of_the_content() {
    let identity = |suite: &str, corpus: &str| Files::new(suite, corpus).open().unwrap().identity().to_owned();
    assert_eq!(identity(PROMPT, CHUNKS), identity(PROMPT, CHUNKS));
    assert_ne!(identity(PROMPT, CHUNKS), identity(&format!("{PROMPT}\n"), CHUNKS));
    assert_ne!(identity(PROMPT, CHUNKS), identity(PROMPT, &CHUNKS.replace("\"t\"", "\"u\"")));
}

#[test]
fn lines_that_are_no_object() {
    let cut = &PROMPT[..PROMPT.len() / 2];
    for (line, part) in
        [(cut, "is cut off"), ("{\"a\": 1e999}", "field `a`: number out of range"), ("{} {}", "trailing")]
    {
        let (file, at, fault) = fault(format!("{PROMPT}\n{line}\n"), CHUNKS);
        assert_eq!((file.as_str(), at), ("s.jsonl", 2));
        assert!(fault.to_string().contains(part), "{fault}");
    }
    let twice = prompt_with(r#""label": "resolved""#, r#""label": "indeterminate", "label": "resolved""#);
    let repeated = |name| field(name, "it stands in the line twice");
    assert_eq!(fault(twice, CHUNKS), ("s.jsonl".to_owned(), 1, repeated("label")));
    let twice = CHUNKS.replace(r#""more": [1]"#, r#""more": {"x": 1, "x": 1}"#);
    assert_eq!(fault(PROMPT, twice), ("c.jsonl".to_owned(), 2, repeated("more.x")));
    let deep = "[".repeat(100_000);
    assert!(matches!(fault(deep, CHUNKS).2, SuiteFault::Line(LineFault::NotJson { .. })));
    for (line, got) in [("[1]", "a list"), ("3", "a number"), ("null", "null"), ("\"x\"", "a string")] {
        let reason = format!("{got} instead of an object");
        assert_eq!(fault(line, CHUNKS).2, SuiteFault::Line(LineFault::NotJson { reason }));
    }
    assert_eq!(fault([0xff, 0xfe, b'\n'], CHUNKS).2, SuiteFault::Line(LineFault::NotText));
    let (file, line, _) = fault(PROMPT, format!("{CHUNKS}{{\"prompt_id\": \"p1\", \"chu"));
    assert_eq!((file.as_str(), line), ("c.jsonl", 3));
}

#[test]
fn a_line_without_end_is_not_read_to_the_end() {
    let mut long = format!("{PROMPT}\n").into_bytes();
    long.resize(long.len() + (17 << 20), b' ');
    let (_, line, fault) = fault(long, CHUNKS);
    assert_eq!((line, fault), (2, SuiteFault::Line(LineFault::TooLong { limit: 16 << 20 })));
}

#[test]
fn fields_that_are_missing_empty_or_of_another_type() {
    for name in ["prompt_id", "system", "user", "question", "context"] {
        let renamed = prompt_with(&format!("\"{name}\":"), "\"other\":");
        assert_eq!(fault(renamed, CHUNKS).2, field(name, "it is missing"), "{name}");
    }
    for name in ["prompt_id", "chunk_id", "source", "text"] {
        let renamed = CHUNKS.replacen(&format!("\"{name}\":"), "\"other\":", 1);
        let (file, line, found) = fault(PROMPT, renamed);
        assert_eq!((file.as_str(), line, found), ("c.jsonl", 1, field(name, "it is missing")));
    }
    let wrong = |name, got, want| field(name, &format!("invalid type: {got}, expected {want}"));
    let (text, list) = ("a string", "a sequence");
    for (part, by, want) in [
        (r#""prompt_id": "p1""#, r#""prompt_id": 7"#, wrong("prompt_id", "integer `7`", text)),
        (r#""system": "S""#, r#""system": {}"#, wrong("system", "map", text)),
        (r#""label": "resolved""#, r#""label": true"#, wrong("label", "boolean `true`", "string or map")),
        (r#""context": ["c1", "c 2"]"#, r#""context": "c1""#, wrong("context", "string \"c1\"", list)),
        (r#""relevant": ["c1"]"#, r#""relevant": [["c1"]]"#, wrong("relevant", "sequence", text)),
        (
            r#""relevant": ["c1"]"#,
            r#""relevant": [123456789012345678901234567890]"#,
            wrong("relevant", "floating point `1.2345678901234568e+29`", text),
        ),
        (r#""prompt_id": "p1""#, r#""prompt_id": """#, field("prompt_id", "it is empty")),
        (r#""question": "Q?""#, r#""question": """#, field("question", "it is empty")),
    ] {
        assert_eq!(fault(prompt_with(part, by), CHUNKS), ("s.jsonl".to_owned(), 1, want));
    }
    let other = prompt_with(r#""label": "resolved""#, r#""label": "Resolved""#);
    let reason = "unknown variant `Resolved`, expected one of `resolved`, `contested`, `indeterminate`";
    assert_eq!(fault(other, CHUNKS).2, field("label", reason));
}

#[test]
fn ids_that_are_taken_unknown_or_cannot_be_cited() {
    let (p1, c1) = ("p1".to_owned(), "c1".to_owned());
    let twice = SuiteFault::DuplicatePrompt { prompt_id: p1.clone(), first_line: 1 };
    assert_eq!(fault(format!("{PROMPT}\n\n{PROMPT}"), CHUNKS), ("s.jsonl".to_owned(), 3, twice));
    let twice = SuiteFault::DuplicateChunk { prompt_id: p1.clone(), chunk_id: c1.clone(), first_line: 1 };
    assert_eq!(fault(PROMPT, format!("{CHUNKS}{CHUNKS}")), ("c.jsonl".to_owned(), 3, twice));
    let unknown = SuiteFault::UnknownPrompt { prompt_id: "p2".to_owned() };
    assert_eq!(fault(PROMPT, CHUNKS.replace("p1", "p2")), ("c.jsonl".to_owned(), 1, unknown));
    for (part, by, field) in [
        (r#""relevant": ["c1"]"#, r#""relevant": ["c9"]"#, "relevant"),
        (r#""context": ["c1", "c 2"]"#, r#""context": ["c1", "c 2", "c9"]"#, "context"),
    ] {
        let want = SuiteFault::UnknownChunk { field, prompt_id: p1.clone(), chunk_id: "c9".to_owned() };
        assert_eq!(fault(prompt_with(part, by), CHUNKS), ("s.jsonl".to_owned(), 1, want));
    }
    for (part, by, field) in [
        (r#""relevant": ["c1"]"#, r#""relevant": ["c1", "c1"]"#, "relevant"),
        (r#""context": ["c1", "c 2"]"#, r#""context": ["c1", "c1", "c 2"]"#, "context"),
    ] {
        assert_eq!(fault(prompt_with(part, by), CHUNKS).2, SuiteFault::Repeated { field, chunk_id: c1.clone() });
    }
    let short = prompt_with(r#""context": ["c1", "c 2"]"#, r#""context": ["c1"]"#);
    assert_eq!(fault(short, CHUNKS).2, SuiteFault::NotInContext { chunk_id: "c 2".to_owned(), corpus_line: 2 });
    for id in ["c]", "[c", "c\\n", " c", "c\\t"] {
        let (_, line, found) = fault(PROMPT, CHUNKS.replacen("c1", id, 1));
        assert!(line == 1 && matches!(found, SuiteFault::NotCitable { .. }), "{id}: {found}");
    }
}

#[test]
fn prompts_that_cannot_be_rebuilt() {
    let swapped = prompt_with(r#""context": ["c1", "c 2"]"#, r#""context": ["c 2", "c1"]"#);
    assert_eq!(fault(swapped, CHUNKS).2, SuiteFault::UserDiffers { byte: 0 });
    let other = prompt_with("Question: Q?", "Question:  Q?");
    assert_eq!(fault(other, CHUNKS).2, SuiteFault::UserDiffers { byte: "A. [c1]\nB. [c 2]\nQuestion: ".len() });
    let longer = prompt_with("Question: Q?", "Question: Q? ");
    assert_eq!(fault(longer, CHUNKS).2, SuiteFault::UserDiffers { byte: "A. [c1]\nB. [c 2]\nQuestion: Q?".len() });
}

#[test]
fn nothing_at_all() {
    for empty in ["", "\n\n"] {
        assert_eq!(fault(empty, CHUNKS).2, SuiteFault::NoPrompts);
    }
    let files = Files::new(PROMPT, CHUNKS);
    let (suite, _) = files.paths();
    let missing = Suite::open(&suite, Path::new("/no/such/corpus.jsonl")).unwrap_err();
    assert!(missing.to_string().contains("/no/such/corpus.jsonl"), "{missing}");
}

#[test]
fn a_prompt_of_too_many_chunks() {
    let more = (0..2_000).map(|i| CHUNKS.lines().next().unwrap().replace("c1", &format!("m{i}")) + "\n");
    let want = SuiteFault::TooManyChunks { prompt_id: "p1".to_owned(), limit: 2_000 };
    assert_eq!(fault(PROMPT, CHUNKS.to_owned() + &more.collect::<String>()), ("c.jsonl".to_owned(), 2_001, want));
}

#[test]
fn every_cut_and_every_flipped_byte_is_an_error_or_a_suite() {
    let whole = format!("{PROMPT}\n");
    for cut in 0..whole.len() {
        let _ = Files::new(&whole.as_bytes()[..cut], CHUNKS).open();
    }
    for at in (0..CHUNKS.len()).step_by(3) {
        let mut bytes = CHUNKS.as_bytes().to_vec();
        bytes[at] ^= 0x15;
        let _ = Files::new(PROMPT, bytes).open();
    }
}

#[test]
fn without_some_chunks() {
    let key = |chunk_id: &str| ChunkKey { prompt_id: "p1".to_owned(), chunk_id: chunk_id.to_owned() };
    let suite = Files::new(PROMPT, CHUNKS).open().unwrap();
    let less = suite.without(&BTreeSet::from([key("c1")]));
    let prompt = &less.prompts()[0];
    assert_eq!(prompt.user, "B. [c 2]\nQuestion: Q?");
    assert_eq!((prompt.label, prompt.relevant.as_deref()), (None, Some(&[][..])));
    assert_eq!(prompt.context, ["c 2"]);
    assert_ne!(less.identity(), suite.identity());
    assert_ne!(less.identity(), suite.without(&BTreeSet::from([key("c 2")])).identity());
    // A prompt that loses nothing stays what it is.
    let same = suite.without(&BTreeSet::from([key("c9")]));
    assert_eq!(same.prompts(), suite.prompts());
    let none = suite.without(&BTreeSet::from([key("c1"), key("c 2")]));
    assert_eq!(none.prompts()[0].user, "Question: Q?");
}
