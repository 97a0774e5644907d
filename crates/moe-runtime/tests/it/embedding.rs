//! Pages of the embedding go back to the system, and the memory plan counts those that stay.

use std::sync::Arc;

use gguf_bitnet::TensorType;
use mla_attention::CacheType;
use moe_runtime::models::mapper;
use moe_runtime::{CraftsmanModel, MemoryPlan, ModelFiles};

use crate::golden::{case, options, session};
use crate::memory_source::{MemorySource, Recording};

/// How often the embedding of `name` is released while the model is loaded, and while it reads 300 tokens.
fn releases(name: &str) -> (usize, usize) {
    let files = ModelFiles::open(&case(name)).expect("the case opens");
    let source = MemorySource::copy_of(&files.catalog, |_| TensorType::F32);
    let source = Arc::new(Recording::of(source));
    let catalog = mapper(&files.config).map(source.clone()).expect("canonical names are known");
    let model = CraftsmanModel::from_catalog(files.config.clone(), &catalog, &options()).expect("the model loads");
    let loaded = source.releases("token_embd.weight");
    let tokens: Vec<u32> = (0..300).map(|i| i % 20).collect();
    session(&Arc::new(model), 512).prefill(&tokens, &mut ()).expect("the tokens fit");
    (loaded, source.releases("token_embd.weight") - loaded)
}

#[test]
fn pages_of_an_embedding_go_back_each_128_rows() {
    assert_eq!(releases("glm-tiny"), (1, 2));
}

#[test]
fn an_embedding_that_is_the_head_stays() {
    assert_eq!(releases("glm-tiny-top4").1, 0);
}

#[test]
fn the_memory_plan_counts_the_rows_that_stay() {
    let files = ModelFiles::open(&case("glm-tiny")).expect("the case opens");
    let plan = |rows: usize| {
        let mut source = MemorySource::copy_of(&files.catalog, |_| TensorType::F32);
        source.remove("token_embd.weight");
        let zeros = vec![0.0; rows * files.config.hidden];
        source.push("token_embd.weight", &[rows, files.config.hidden], TensorType::F32, &zeros);
        let catalog = mapper(&files.config).map(Arc::new(source)).expect("canonical names are known");
        MemoryPlan::new(&files.config, &catalog, 64, CacheType::F16, 64).total_bytes()
    };
    let row_bytes = 4 * files.config.hidden as u64;
    assert_eq!(plan(2000) - plan(1000), 1000 * row_bytes, "a small embedding counts in full");
    let (large, larger) = (plan(40_000), plan(50_000));
    if cfg!(unix) {
        assert_eq!(large, larger);
        assert_eq!(large - plan(1000), (128 << 17) - 1000 * row_bytes, "128 rows with the pages around them");
    }
}
