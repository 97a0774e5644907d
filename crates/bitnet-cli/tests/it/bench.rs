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
fn sequences_in_one_step_are_reported_beside_single_steps() {
    let args = ["bench", "-m", student(), "-p", "0", "-n", "2,3", "-s", "1,2,4", "-d", "5", "-r", "2", "--json"];
    let report = bitnet(args).json();
    let tests = report["tests"].as_array().unwrap();
    let names: Vec<_> = tests.iter().map(|t| (t["test"].as_str().unwrap(), t["sequences"].as_u64().unwrap())).collect();
    let expected = [("tg2", 1), ("tg2 x2", 2), ("tg2 x4", 4), ("tg3", 1), ("tg3 x2", 2), ("tg3 x4", 4)];
    assert_eq!(names, expected);
    assert!(tests.iter().all(|t| t["tokens_per_s_median"].as_f64().unwrap() > 0.0 && t["depth"] == 5));
    assert!(bitnet(["bench", "-m", student(), "-s", "0"]).usage().contains("--sequences"));
}

#[test]
fn int8_caches_halve_those_of_grouped_queries_too() {
    let model = fixture("goldens/glm4-moe-gqa");
    let bytes = |kv| {
        let report = bitnet(["inspect", &*model, "--kv", kv, "--json"]).json();
        report["kv_bytes_per_token"].as_u64().unwrap_or_else(|| panic!("{report}"))
    };
    // Heads of 64 values and a scale.
    assert_eq!(bytes("i8") * 64 * 2, bytes("f16") * 68);
    bitnet(["bench", "-m", &*model, "--kv", "i8", "-p", "4", "-n", "1", "-r", "1"]).done();
}
