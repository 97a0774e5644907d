//! `bitnet doctor`: its facts are complete, hold no directory of the user, and show the instruction set of `TL_ISA`.

use crate::common::{bitnet, command, listing, student, text};
use serde_json::Value;

#[test]
fn the_machine_is_described_for_people_and_for_programs() {
    let facts = bitnet(["doctor", "--json"]).json();
    assert!(facts["cores"]["default_threads"].as_u64().unwrap() >= 1);
    assert!(facts["read_bandwidth"][0]["bytes_per_s"].as_f64().unwrap() > 0.0);
    let kernels = facts["kernels"].as_array().unwrap();
    let of = |weights: &str| &kernels.iter().find(|k| k["weights"] == weights).unwrap()["kernels"];
    assert_eq!(of("TQ2_0")[0], "I2_S");
    assert!(of("TQ1_0").as_array().unwrap().iter().any(|kernel| kernel == "TL2"));
    assert_eq!(*of("F16"), serde_json::json!(["dense"]));
    assert_eq!(facts["model"], Value::Null);

    let lowered = command().env("TL_ISA", "scalar").args(["doctor"]).output().unwrap();
    let shown = String::from_utf8(lowered.stdout).unwrap();
    assert!(shown.contains("in force scalar (TL_ISA=scalar)"), "{shown}");
    assert!(shown.contains("memory reads: ") && shown.contains("GB/s on 1 threads"), "{shown}");
}

#[test]
fn a_model_is_tried_and_tested_and_the_trial_is_remembered() {
    let cache = tempfile::tempdir().unwrap();
    let doctor = || {
        let output = command().env("XDG_CACHE_HOME", cache.path()).args(["doctor", "--json", "-m", student()]).output();
        serde_json::from_slice::<Value>(&output.unwrap().stdout).unwrap()
    };
    let first = doctor();
    let chosen = first["model"]["kernels"].as_array().unwrap();
    assert!(chosen.iter().any(|choice| choice["weights"] == "TQ2_0" && choice["kernel"] == "I2_S"), "{first}");
    assert!(chosen.iter().all(|choice| choice["self_test"] == "passed"), "{first}");
    let tried = chosen.iter().any(|choice| choice["reason"] == "trial");
    assert_eq!(cache.path().join("bitnet/kernels").is_dir(), tried, "a trial is written down");
    if tried {
        assert_eq!(listing(&cache.path().join("bitnet/kernels")).len(), 1);
        let again = doctor();
        let remembered = again["model"]["kernels"].as_array().unwrap();
        assert!(remembered.iter().all(|choice| choice["reason"] != "trial"), "{again}");
        let levels = |list: &[Value]| list.iter().map(|choice| choice["isa"].clone()).collect::<Vec<_>>();
        assert_eq!(levels(remembered), levels(chosen));
    }
    let shown = bitnet(["doctor", "-m", student()]).done();
    assert!(shown.contains("self-test") && shown.contains("passed"), "{shown}");
}

#[test]
fn a_model_that_does_not_load_is_a_finding_without_directories() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut-off.gguf");
    let whole = std::fs::read(student()).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let shown = bitnet(["doctor", "-m", text(&path)]).done();
    assert!(shown.contains("memory reads: ") && shown.contains("model: ") && shown.contains("cut-off.gguf"), "{shown}");
    assert!(!shown.contains(text(dir.path())), "{shown}");
}
