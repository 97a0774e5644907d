//! The result of a gate run inside the metadata of a model.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use behavior_eval::gates::{BehavioralGate, GateResult, GateThresholds, Verdict};
use behavior_eval::report::Stamp;
use behavior_eval::stats::{Figure, IntervalKind};
use gguf_bitnet::Metadata;

fn stamp() -> Stamp {
    let figure = |i: usize| Figure {
        value: 0.5 + 0.05 * i as f64,
        numerator: None,
        denominator: None,
        n: 30 + i as u64,
        low95: 0.4,
        high95: 0.9,
        interval: IntervalKind::Bootstrap,
    };
    let judge = |(i, gate): (usize, BehavioralGate)| {
        GateResult::judge(gate, (i != 1).then(|| figure(i)), &GateThresholds::default(), i > 3)
    };
    Stamp {
        verdict: Verdict::NoShip,
        strict: true,
        student: "ab".repeat(32),
        teacher: "cd".repeat(32),
        suite: "suite-200".into(),
        suite_hash: "ef".repeat(32),
        prompts: 200,
        gates: BehavioralGate::ALL.into_iter().enumerate().map(judge).collect(),
    }
}

#[test]
fn what_is_written_is_read_and_replaces_what_was_there() {
    let mut metadata = Metadata::default();
    metadata.insert("general.name", "m");
    metadata.insert("craftsman.gates.old", 1u32);
    stamp().write(&mut metadata);
    assert_eq!(Stamp::read(&metadata).unwrap(), Some(stamp()));
    assert!(!metadata.contains_key("craftsman.gates.old") && metadata.contains_key("general.name"));
    let mut ship = stamp();
    ship.verdict = Verdict::Ship;
    ship.write(&mut metadata);
    assert_eq!(Stamp::read(&metadata).unwrap(), Some(ship));
}

#[test]
fn no_stamp_is_none_and_a_damaged_one_an_error() {
    assert_eq!(Stamp::read(&Metadata::default()).unwrap(), None);
    let mut whole = Metadata::default();
    stamp().write(&mut whole);
    let keys: Vec<String> = whole.iter().map(|(key, _)| key.to_owned()).collect();
    for key in &keys {
        let mut missing = whole.clone();
        missing.remove(key);
        let name = key.strip_prefix("craftsman.gates.").unwrap();
        let error = Stamp::read(&missing).unwrap_err().to_string();
        assert!(error.contains(name), "{key}: {error}");
        let mut wrong = whole.clone();
        wrong.insert(key.clone(), -7i8);
        assert!(Stamp::read(&wrong).is_err(), "{key}");
    }
    let mut short = whole.clone();
    short.insert("craftsman.gates.samples", vec![1u64]);
    assert!(Stamp::read(&short).is_err());
    let mut alien = whole;
    alien.insert("craftsman.gates.names", vec!["x".to_owned(); 6]);
    assert!(Stamp::read(&alien).is_err());
}
