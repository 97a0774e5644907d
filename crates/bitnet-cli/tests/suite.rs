//! `bitnet suite`: two files or none, the same bytes from the same options, nothing overwritten.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;

use behavior_eval::{Label, Suite, Thresholds, labels};
use common::{bitnet, listing, text};

#[test]
fn a_suite_and_its_corpus() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("new.jsonl");
    let args = ["suite", "--prompts", "50", "--seed", "9", "-o", text(&out)];
    let said = bitnet(args).done();
    assert!(said.contains("50 prompts (20 resolved, 15 contested, 15 indeterminate)"), "{said}");
    let corpus = dir.path().join("new.corpus.jsonl");
    let suite = Suite::open(&out, &corpus).unwrap();
    let accuracy = labels(suite.prompts(), &Thresholds::default()).accuracy.unwrap();
    assert_eq!((accuracy.n, accuracy.value), (50, 1.0));
    let before = (fs::read(&out).unwrap(), fs::read(&corpus).unwrap());

    // Nothing is overwritten, not even when only one of the two is there.
    for gone in [None, Some(&out)] {
        if let Some(gone) = gone {
            fs::remove_file(gone).unwrap();
        }
        let sentence = bitnet(args).refusal();
        assert!(sentence.contains("--force"), "{sentence}");
        assert_eq!(fs::read(&corpus).unwrap(), before.1);
    }
    fs::write(&out, "precious").unwrap();
    bitnet(args).refusal();
    assert_eq!(fs::read(&out).unwrap(), b"precious");

    // The same options give the same bytes, another seed gives others.
    let report = bitnet(args.into_iter().chain(["--force", "--json"])).json();
    assert_eq!((fs::read(&out).unwrap(), fs::read(&corpus).unwrap()), before);
    assert_eq!(report["identity"], suite.identity());
    bitnet(["suite", "--prompts", "50", "--seed", "10", "--force", "-o", text(&out)]).done();
    assert_ne!(fs::read(&out).unwrap(), before.0);
    assert_eq!(listing(dir.path()), ["new.corpus.jsonl", "new.jsonl"]);
}

#[test]
fn shares_entities_and_wrong_options() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("s");
    let make = |more: &[&str]| bitnet(["suite", "-o", text(&out), "--force"].iter().chain(more));
    make(&["--prompts", "9", "--labels", "1,0,2", "--entities", "training"]).done();
    let suite = Suite::open(&out, &dir.path().join("s.corpus.jsonl")).unwrap();
    let count = |label| suite.prompts().iter().filter(|prompt| prompt.label == Some(label)).count();
    assert_eq!(Label::ALL.map(count), [3, 0, 6]);

    let sentence = make(&["--prompts", "9", "--labels", "0,0,0"]).refusal();
    assert!(sentence.contains("empty"), "{sentence}");
    let sentence = make(&["--prompts", "9", "--labels", "1,2"]).usage();
    assert!(sentence.contains("three weights"), "{sentence}");
    for wrong in [&["--prompts", "0"][..], &["--prompts", "100001"], &["--prompts", "-1"], &["--labels", "a,b,c"], &[]]
    {
        make(wrong).usage();
    }
    let nowhere = dir.path().join("no/such/s.jsonl");
    bitnet(["suite", "--prompts", "1", "-o", text(&nowhere)]).refusal();
}
