//! Labels on suites of entities, shares and divisions that nothing was fitted to; `cargo xtask suite` made them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use behavior_eval::labels::{LabelThresholds, labels};
use behavior_eval::suite::Suite;

#[test]
fn labels_of_unseen_suites_are_found_from_their_evidence() {
    let dir = fixtures::path("suites");
    for (name, prompts) in [
        ("unseen-held-out", 40),
        ("unseen-training", 40),
        ("unseen-split", 40),
        ("suite-200", 200),
        ("suite-1200", 1200),
    ] {
        let suite = Suite::open(&dir.join(format!("{name}.jsonl")), &dir.join(format!("{name}.corpus.jsonl"))).unwrap();
        assert_eq!(suite.prompts().len(), prompts);
        let report = labels(suite.prompts(), &LabelThresholds::default());
        let accuracy = report.figures.accuracy.unwrap();
        assert_eq!(accuracy.n, prompts as u64);
        assert_eq!(accuracy.value, 1.0, "{name}: {accuracy:?} {:?}", report.figures.confusion);
    }
}
