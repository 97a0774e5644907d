//! The bytes a decoded token reads, against a count from names and shapes alone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use moe_runtime::ModelFiles;
use moe_runtime::models::expected_tensors;

/// BF16 everywhere, but F32 where the runtime converts: norms, routers, biases.
fn by_name(case: &str) -> (ModelFiles, u64) {
    let files = ModelFiles::open(&fixtures::path(format!("goldens/{case}"))).unwrap();
    let moe = &files.config.moe.as_ref().unwrap().router;
    let mut bytes = 0;
    for tensor in expected_tensors(&files.config).iter().filter(|t| files.catalog.find(&t.name).is_some()) {
        let elements: usize = tensor.shape.iter().product();
        let single = ["norm", "ffn_gate_inp", "bias", "exp_probs_b"].iter().any(|part| tensor.name.contains(part));
        let stored = elements * if single { 4 } else { 2 };
        bytes += match tensor.name.as_str() {
            name if name.ends_with("_exps.weight") => stored / moe.n_experts * moe.top_k,
            // One row, unless the embedding serves as the head too.
            "token_embd.weight" if files.catalog.find("output.weight").is_some() => stored / files.config.vocab,
            _ => stored,
        };
    }
    (files, bytes as u64)
}

#[test]
fn a_token_reads_its_experts_and_everything_dense_once() {
    for case in ["glm-tiny", "glm-tiny-top4" /* tied */, "glm4-moe-gqa", "deepseek-v2-softmax"] {
        let (files, expected) = by_name(case);
        assert_eq!(files.weight_bytes_per_token(), expected, "{case}");
    }
}
