//! Packed weights: the same logits to the bit, no more memory than allowed, and no damaged weights.

use std::sync::Arc;

use moe_runtime::forward::FeedForward;
use moe_runtime::models::mapper;
use moe_runtime::storage::{Packed, StorageReport, Tiles, WeightStorage};
use moe_runtime::{CraftsmanModel, LoadOptions, ModelFiles};
use ternary_core::ActMode;
use tl_kernels::{KernelKind, Pool};

use crate::golden::{case, run};
use crate::memory_source::MemorySource;
use crate::ternary::damaged;

fn tiles(growth_bytes: u64) -> WeightStorage {
    WeightStorage::Tiles(Tiles { growth_bytes, cache: None })
}

fn packed(model: &CraftsmanModel) -> Packed {
    match model.storage() {
        StorageReport::Tiles { packed, .. } => *packed,
        other => panic!("{other:?}"),
    }
}

/// The kernel of gate, up and down of one routed expert of each layer that has them.
fn expert_kernels(model: &CraftsmanModel) -> Vec<KernelKind> {
    let mut kernels = Vec::new();
    for layer in model.layers() {
        if let FeedForward::Moe { experts, .. } = layer.ffn() {
            let expert = &experts.routed()[0];
            kernels.extend([expert.gate(), expert.up(), expert.down()].map(tl_kernels::Linear::kernel));
        }
    }
    kernels
}

#[test]
fn packed_models_give_the_same_logits() {
    let files = ModelFiles::open(&case("ternary-forward").join("model.gguf")).expect("the model opens");
    let tokens = [1, 5, 9, 2, 40, 17, 3];
    for act_mode in [ActMode::A8Block, ActMode::A8Token] {
        for threads in [1, 2] {
            let pool = Arc::new(Pool::new(threads).expect("threads start"));
            let options = LoadOptions { act_mode: Some(act_mode), pool, ..LoadOptions::default() };
            let load = |options: &LoadOptions| CraftsmanModel::from_files(&files, options).expect("the model loads");
            let expected = run(&Arc::new(load(&options)), &tokens, 64, ());
            let model = load(&LoadOptions { storage: tiles(u64::MAX), ..options });
            let packed = packed(&model);
            assert!(packed.layers > 0 && packed.layers_left == 0 && packed.bytes > packed.growth_bytes);
            let kernels = expert_kernels(&model);
            assert!(!kernels.is_empty() && kernels.iter().all(|&kernel| kernel == KernelKind::Tiles), "{kernels:?}");
            let model = Arc::new(model);
            for chunk in [64, 1] {
                assert_eq!(run(&model, &tokens, chunk, ()).logits, expected.logits, "{act_mode:?} {threads} {chunk}");
            }
        }
    }
}

#[test]
fn no_more_is_packed_than_was_allowed() {
    let files = ModelFiles::open(&case("ternary-forward").join("model.gguf")).expect("the model opens");
    // With rotary parts of 16 values, two matrices of each layer have half a tile too much.
    let (mut config, mut source) = (files.config.clone(), MemorySource::stored_in(&**files.catalog.source()));
    let dims = config.attention.as_mla_mut().expect("the model has latent attention");
    (dims.qk_rope, config.rope.dims) = (16, 16);
    for layer in 0..config.n_layers {
        source.cut(&format!("blk.{layer}.attn_kv_a_mqa.weight"), dims.kv_lora + 16);
        source.cut(&format!("blk.{layer}.attn_q_b.weight"), config.n_heads * (dims.qk_nope + 16));
    }
    let catalog = mapper(&config).map(Arc::new(source)).expect("its names are known");
    let load = |act_mode, growth_bytes| {
        let options = LoadOptions { act_mode: Some(act_mode), storage: tiles(growth_bytes), ..LoadOptions::default() };
        packed(&CraftsmanModel::from_catalog(config.clone(), &catalog, &options).expect("the model loads"))
    };
    let all = load(ActMode::A8Block, u64::MAX);
    assert!(all.growth_bytes > 0, "the model has matrices of no whole tiles");
    let some = load(ActMode::A8Block, all.growth_bytes - 1);
    assert!(some.layers_left > 0 && some.growth_bytes < all.growth_bytes, "{some:?}");
    assert_eq!(some.layers + some.layers_left, all.layers);
    assert_eq!(load(ActMode::F32, u64::MAX), Packed::default());
}

#[test]
fn a_damaged_expert_is_named_when_it_is_packed() {
    let dir = damaged("blk.1.ffn_down_exps.weight", 3);
    let files = ModelFiles::open(&dir.path().join("model.gguf")).expect("the model opens");
    CraftsmanModel::from_files(&files, &LoadOptions::default()).expect("experts are checked at first use");
    let options = LoadOptions { storage: tiles(u64::MAX), ..LoadOptions::default() };
    let error = CraftsmanModel::from_files(&files, &options).expect_err("packing is a use");
    assert!(error.to_string().contains("blk.1.ffn_down_exps.weight[3]"), "{error}");
}
