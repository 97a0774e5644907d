//! Suites from the generator: the draws of the grammar's Python form, readable by [`Suite`], labelled as the evidence says.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use behavior_eval::grammar::{Entities, LabelWeights, SuiteSpec, write};
use behavior_eval::{Error, Label, Suite, Thresholds, labels};
use serde_json::Value;

/// The suite of a spec, through its files.
fn made(spec: &SuiteSpec) -> Suite {
    let dir = tempfile::tempdir().unwrap();
    let (suite, corpus) = (dir.path().join("s.jsonl"), dir.path().join("s.corpus.jsonl"));
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for prompt in spec.generate().unwrap() {
        write(&prompt, &mut a, &mut b).unwrap();
    }
    std::fs::write(&suite, a).unwrap();
    std::fs::write(&corpus, b).unwrap();
    let suite = Suite::open(&suite, &corpus).unwrap();
    // What was written is what was made.
    assert_eq!(suite.prompts(), spec.generate().unwrap().collect::<Vec<_>>());
    suite
}

#[test]
fn the_draws_are_those_of_the_python_form() {
    let golden = std::fs::read_to_string(fixtures::path("goldens/grammar.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let runs = golden.as_array().unwrap();
    assert_eq!(runs.len(), 3);
    for run in runs {
        let spec = SuiteSpec { prompts: 20, seed: run["seed"].as_u64().unwrap(), ..SuiteSpec::default() };
        let prompts: Vec<_> = spec.generate().unwrap().collect();
        let wanted = run["prompts"].as_array().unwrap();
        assert_eq!(prompts.len(), wanted.len());
        for (prompt, want) in prompts.iter().zip(wanted) {
            assert_eq!(prompt.label.unwrap().name(), want["label"], "{}", prompt.id);
            assert_eq!(prompt.user, want["user"]);
            assert_eq!(prompt.question, want["question"]);
            assert_eq!(prompt.gold_answer.as_deref(), want["answer"].as_str());
            let relevant: Vec<&str> = want["relevant"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            assert_eq!(prompt.relevant.as_deref().unwrap(), relevant);
            for (chunk, want) in prompt.chunks.iter().zip(want["chunks"].as_array().unwrap()) {
                let got = [&chunk.id, &chunk.source, &chunk.text];
                assert_eq!(
                    got.map(String::as_str),
                    ["id", "source", "text"].map(|field| want[field].as_str().unwrap())
                );
            }
        }
    }
}

#[test]
fn generated_suites_are_read_and_their_labels_found() {
    for (prompts, seed, entities, split_seed) in [
        (1, 0, Entities::HeldOut, 7),
        (300, 5, Entities::HeldOut, 7),
        (1000, 6, Entities::Training, 7),
        (1000, 99, Entities::HeldOut, 12345),
    ] {
        let labels_wanted = LabelWeights { resolved: 42, contested: 16, indeterminate: 42 };
        let suite = made(&SuiteSpec { prompts, seed, entities, split_seed, labels: labels_wanted });
        assert_eq!(suite.prompts().len(), prompts);
        let report = labels(suite.prompts(), &Thresholds::default());
        let accuracy = report.accuracy.unwrap();
        assert!(accuracy.value >= 0.99, "{prompts} {seed}: {accuracy:?} {:?}", report.confusion);
    }
}

#[test]
fn labels_come_in_the_asked_shares() {
    let count = |spec: SuiteSpec| {
        let prompts: Vec<_> = spec.generate().unwrap().collect();
        Label::ALL.map(|label| prompts.iter().filter(|prompt| prompt.label == Some(label)).count())
    };
    let weights = |resolved, contested, indeterminate| LabelWeights { resolved, contested, indeterminate };
    let spec = |prompts, labels| SuiteSpec { prompts, labels, ..SuiteSpec::default() };
    assert_eq!(count(spec(200, LabelWeights::default())), [80, 60, 60]);
    assert_eq!(count(spec(10, weights(1, 1, 1))), [4, 3, 3]);
    assert_eq!(count(spec(7, weights(0, 0, u32::MAX))), [0, 0, 7]);
    assert_eq!(count(spec(5, weights(u32::MAX, u32::MAX, 1))), [3, 2, 0]);
    for (prompts, labels) in [(0, LabelWeights::default()), (5, weights(0, 0, 0))] {
        assert!(matches!(spec(prompts, labels).generate(), Err(Error::EmptySuite)));
    }
}

#[test]
fn seeds_decide_and_entities_are_held_out() {
    let prompts = |seed, entities, split_seed| -> Vec<_> {
        SuiteSpec { prompts: 400, seed, entities, split_seed, ..SuiteSpec::default() }.generate().unwrap().collect()
    };
    assert_eq!(prompts(1, Entities::HeldOut, 7), prompts(1, Entities::HeldOut, 7));
    assert_ne!(prompts(1, Entities::HeldOut, 7), prompts(2, Entities::HeldOut, 7));
    assert_ne!(prompts(1, Entities::HeldOut, 7), prompts(1, Entities::HeldOut, 8));
    let asked = |entities| -> std::collections::BTreeSet<String> {
        let entity = |question: &str| question.rsplit(" of ").next().unwrap().to_owned();
        prompts(3, entities, 7).iter().map(|prompt| entity(&prompt.question)).collect()
    };
    assert!(asked(Entities::HeldOut).is_disjoint(&asked(Entities::Training)));
    // The suites of the fixtures ask about the same held-out tenth.
    let dir = fixtures::path("suites");
    let fixture = Suite::open(&dir.join("suite-200.jsonl"), &dir.join("suite-200.corpus.jsonl")).unwrap();
    let all: std::collections::BTreeSet<String> =
        SuiteSpec { prompts: 30_000, ..SuiteSpec::default() }.generate().unwrap().map(|p| p.question).collect();
    let entities: std::collections::BTreeSet<&str> = all.iter().map(|q| q.rsplit(" of ").next().unwrap()).collect();
    let unknown: Vec<&str> = fixture
        .prompts()
        .iter()
        .map(|prompt| prompt.question.rsplit(" of ").next().unwrap())
        .filter(|entity| !entities.contains(entity))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
