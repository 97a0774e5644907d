//! Weights that no kernel reads as they are stored: they are decoded at load, and the model computes what a model of their
//! values computes, bit for bit.

use std::sync::Arc;

use gguf_bitnet::TensorType;
use mla_attention::CacheType;
use moe_runtime::{CraftsmanModel, MemoryPlan, ModelFiles};

use crate::golden::{case, options, run};

const TOKENS: [u32; 9] = [1, 7, 3, 120, 11, 64, 5, 5, 90];

#[test]
fn eight_bit_checkpoints_compute_what_their_weights_in_bf16_compute() {
    let load = |name: &str| {
        let files = ModelFiles::open(&case("fp8").join(name)).expect("the case opens");
        files.report().ensure_exact().expect("scales are no tensors of the model");
        let model = CraftsmanModel::from_files(&files, &options()).expect("it loads");
        (run(&Arc::new(model), &TOKENS, 64, ()), files)
    };
    let (want, plain) = load("plain");
    assert!(want.logits.iter().all(|x| x.is_finite()) && want.logits.iter().any(|x| *x != 0.0));
    let plan = |files: &ModelFiles| MemoryPlan::new(&files.config, &files.catalog, 64, CacheType::F16, 64);
    for name in ["tensor", "row", "block", "stacked"] {
        let (got, files) = load(name);
        assert!(got == want, "{name}");
        // The plan counts four bytes for each weight that becomes F32.
        let eight_bits =
            files.report().classes.iter().filter(|c| c.ty == TensorType::F8E4M3).map(|c| c.params).sum::<u64>();
        assert!(eight_bits > 300_000, "{name}: {eight_bits}");
        let transposed = 2 * 2 * 32 * 64;
        assert_eq!(
            plan(&files).converted_weights_bytes,
            plan(&plain).converted_weights_bytes + 4 * eight_bits - 2 * transposed,
            "{name}"
        );
    }
}
