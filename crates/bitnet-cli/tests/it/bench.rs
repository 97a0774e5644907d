//! `bitnet bench`: the tests it reports, their bytes, and its refusals. Speeds depend on the machine and are not tested.

use crate::common::{bitnet, fixture, student};

#[test]
fn every_test_at_every_depth_is_reported_with_its_bytes() {
    let student = student();
    let base = ["bench", "-m", student, "-p", "4,8", "-n", "2", "-d", "16,0", "-r", "2", "--threads", "1"];
    let report = bitnet(base.into_iter().chain(["--json"])).json();
    let tests = report["tests"].as_array().unwrap();
    let names: Vec<_> = tests.iter().map(|t| (t["test"].as_str().unwrap(), t["depth"].as_u64().unwrap())).collect();
    assert_eq!(names, [("pp4", 0), ("pp8", 0), ("tg2", 0), ("pp4", 16), ("pp8", 16), ("tg2", 16)]);
    assert!(tests.iter().all(|t| t["tokens_per_s"].as_f64().unwrap() > 0.0));
    let bytes = |i: usize| tests[i]["bytes_per_token"].as_u64();
    assert_eq!(bytes(0), None, "a prompt's speed is not that of memory");
    // 5 layers x (256 + 32) values x 2 bytes for each of 16 positions.
    assert_eq!(bytes(5).unwrap() - bytes(2).unwrap(), 16 * 5 * 288 * 2);
    assert!(bytes(2).unwrap() < report["weights_bytes"].as_u64().unwrap(), "a token reads a part of the model");

    let table = bitnet(base).done();
    assert!(table.contains("of read bandwidth") && table.contains("tg2"), "{table}");
}

#[test]
fn a_benchmark_without_tokens_or_beyond_the_context_is_refused() {
    let student = student();
    assert!(bitnet(["bench", "-m", student, "-p", "0", "-n", "0"]).usage().contains("nothing to measure"));
    assert!(bitnet(["bench", "-m", student, "-d", "999999999"]).refusal().contains("made for"));
}

#[test]
fn every_layout_says_which_kernel_it_runs_on() {
    let kernels = [("file", "I2_S"), ("packed", "I2_S tiles"), ("tl1", "TL1"), ("tl2", "TL2")];
    for (layout, kernel) in kernels {
        let args = ["bench", "-m", student(), "-p", "4", "-n", "2", "-r", "1", "--layout", layout, "--json"];
        assert_eq!(bitnet(args).json()["kernel"], kernel, "{layout}");
    }
    let bounded = ["bench", "-m", student(), "--expert-memory", "1MB", "--layout", "packed"];
    assert!(bitnet(bounded).usage().contains("--expert-memory"));
}

#[test]
fn a_cache_type_that_the_model_has_none_of_is_refused_by_all() {
    let model = fixture("goldens/glm4-moe-gqa");
    for verb in [&["bench", "-m"][..], &["run", "-p", "x", "--memory", "1GB", "-m"], &["inspect"]] {
        let refusal = bitnet(verb.iter().copied().chain([&*model, "--kv", "i8"])).refusal();
        assert!(refusal.contains("cannot be cached as i8"), "{refusal}");
    }
}
