//! Thresholds, and the verdict over the gates of one run.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use behavior_eval::gates::{BehavioralGate, GateError, GateResult, GateThresholds, Outcome, Verdict};
use behavior_eval::stats::Figure;

fn gate(name: &str) -> BehavioralGate {
    name.parse().unwrap()
}

fn figure(value: f64, n: u64) -> Option<Figure> {
    Some(Figure { value, n, low95: value - 0.05, high95: (value + 0.05).min(1.0), ..Figure::share(1, 1) })
}

fn results(change: impl Fn(BehavioralGate) -> Option<Figure>, strict: bool) -> Vec<GateResult> {
    let thresholds = GateThresholds::default();
    BehavioralGate::ALL.map(|gate| GateResult::judge(gate, change(gate), &thresholds, strict)).to_vec()
}

#[test]
fn a_student_exactly_on_every_threshold_ships_and_one_below_any_does_not() {
    let thresholds = GateThresholds::default();
    let at = |gate| figure(thresholds.of(gate), 20);
    assert_eq!(Verdict::of(&results(at, false), &thresholds).unwrap(), Verdict::Ship);
    for failing in BehavioralGate::ALL {
        let below = |gate| if gate == failing { figure(thresholds.of(gate) - 1e-9, 20) } else { at(gate) };
        let judged = results(below, false);
        assert_eq!(Verdict::of(&judged, &thresholds).unwrap(), Verdict::NoShip);
        let failed: Vec<_> = judged.iter().filter(|r| !r.passed()).map(|r| r.gate).collect();
        assert_eq!(failed, [failing]);
    }
}

#[test]
fn a_demand_is_never_shown_rounded() {
    let shown = [0.9, 0.85, 0.996, 0.0, 1.0].map(|value| {
        let mut thresholds = GateThresholds::default();
        thresholds.set(gate("must_answer"), value).unwrap();
        GateResult::judge(gate("must_answer"), None, &thresholds, false).demanded()
    });
    assert_eq!(shown, ["0.90", "0.85", "0.996", "0.00", "1.00"]);
}

#[test]
fn strict_asks_for_the_lower_end_of_the_interval() {
    let thresholds = GateThresholds::default();
    let share = Figure::share(18, 20);
    let gate = gate("must_refuse");
    assert_eq!(GateResult::judge(gate, Some(share), &thresholds, false).outcome, Outcome::Pass);
    assert_eq!(GateResult::judge(gate, Some(share), &thresholds, true).outcome, Outcome::Fail);
    let sure = Figure::share(1800, 2000);
    assert_eq!(GateResult::judge(gate, Some(sure), &thresholds, true).outcome, Outcome::Pass);
}

#[test]
fn too_few_samples_are_an_error_and_never_a_pass() {
    let thresholds = GateThresholds::default();
    for few in [None, figure(1.0, 0), figure(1.0, 19)] {
        for gate in BehavioralGate::ALL {
            let judged = results(|g| if g == gate { few } else { figure(1.0, 500) }, false);
            let error = Verdict::of(&judged, &thresholds).unwrap_err();
            assert!(matches!(error, GateError::TooFewSamples { gate: g, min: 20, .. } if g == gate.name()), "{error}");
        }
    }
    // No threshold of samples lets an empty figure pass.
    let mut lax = thresholds;
    lax.min_samples = 0;
    let empty = GateResult::judge(gate("refusal_f1"), figure(1.0, 0), &lax, false);
    assert_eq!(empty.outcome, Outcome::TooFew);
    let wrong = GateResult::judge(gate("refusal_f1"), figure(f64::NAN, 100), &lax, false);
    assert_eq!(wrong.outcome, Outcome::Fail);
}

#[test]
fn a_failure_outweighs_a_missing_figure_and_a_missing_gate_is_an_error() {
    let thresholds = GateThresholds::default();
    let judged = results(
        |gate| match gate.name() {
            "citation_precision" => None,
            "citation_recall" => figure(0.0, 400),
            _ => figure(1.0, 100),
        },
        false,
    );
    assert_eq!(Verdict::of(&judged, &thresholds).unwrap(), Verdict::NoShip);
    assert!(matches!(Verdict::of(&judged[1..], &thresholds), Err(GateError::Missing { .. })));
    assert!(Verdict::of(&[], &thresholds).is_err());
}

#[test]
fn the_thresholds_are_those_of_the_rule() {
    let thresholds = GateThresholds::default();
    let values = BehavioralGate::ALL.map(|gate| thresholds.of(gate));
    assert_eq!(values, [0.85, 0.90, 0.70, 0.85, 0.80, 0.95]);
    for (i, gate) in BehavioralGate::ALL.into_iter().enumerate() {
        let mut changed = thresholds;
        changed.set(gate, 0.5).unwrap();
        for (j, other) in BehavioralGate::ALL.into_iter().enumerate() {
            assert_eq!(changed.of(other), if i == j { 0.5 } else { values[j] });
        }
        for value in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(GateThresholds::default().set(gate, value).is_err());
        }
    }
}

#[test]
fn thresholds_are_written_in_the_order_of_the_table_and_read_back_whole_or_not_at_all() {
    let text = serde_json::to_string(&GateThresholds::default()).unwrap();
    let want = r#"{"routing_agreement":0.85,"citation_precision":0.9,"citation_recall":0.7,"refusal_f1":0.85,"must_refuse":0.8,"must_answer":0.95,"min_samples":20}"#;
    assert_eq!(text, want);
    assert_eq!(serde_json::from_str::<GateThresholds>(&text).unwrap(), GateThresholds::default());
    for (from, to) in [(":20", ":-1"), ("0.95", "\"high\""), ("\"min_samples\":20", "\"a\":1"), (":20", ":20,\"a\":1")]
    {
        assert!(serde_json::from_str::<GateThresholds>(&text.replace(from, to)).is_err(), "{to}");
    }
}
