//! Ternary weights: against NumPy (`fixtures/interop/ternary_forward.py`) in every activation mode, and against the same
//! weights as dense numbers.

use std::sync::Arc;

use gguf_bitnet::{GgufFile, TensorType};
use mla_attention::CacheType;
use moe_runtime::models::{ModelConfig, mapper};
use moe_runtime::{CraftsmanModel, LoadOptions, Session};
use ternary_core::{ActMode, Bytes};

use crate::golden::{Run, case, max_abs, relative_l2, run};

fn run_mode(act_mode: ActMode, tokens: &[u32]) -> Run {
    let options = LoadOptions { act_mode: Some(act_mode), ..LoadOptions::default() };
    let path = case("ternary-forward").join("model.gguf");
    run(&Arc::new(CraftsmanModel::load(&path, &options).expect("the model loads")), tokens, 64, ())
}

#[test]
fn every_activation_mode_equals_numpy() {
    let modes = [(ActMode::F32, "f32"), (ActMode::A8Block, "a8-block"), (ActMode::A8Token, "a8-token")];
    for (mode, name) in modes {
        let golden = Run::read(&case("ternary-forward").join(format!("golden-{name}.safetensors")));
        let got = run_mode(mode, &golden.tokens);
        let hidden = got.hidden.iter().zip(&golden.hidden).map(|(g, w)| relative_l2(g, w)).fold(0.0, f64::max);
        let logits = max_abs(&got.logits, &golden.logits);
        assert!(logits <= 2e-3 && hidden <= 1e-3, "{name}: logits {logits}, hidden {hidden}");
        assert!(got.distance(&golden).same_experts, "{name}");
    }
}

#[test]
fn the_activation_modes_differ() {
    let tokens = [1, 5, 9, 2];
    let [f32, block, token] = [ActMode::F32, ActMode::A8Block, ActMode::A8Token].map(|mode| run_mode(mode, &tokens));
    assert_ne!(f32.logits, block.logits);
    assert_ne!(block.logits, token.logits);
}

/// The model with the invalid code 3 in the first byte of one tensor's matrix `outer`.
pub(crate) fn damaged(tensor: &str, outer: usize) -> tempfile::TempDir {
    let mut bytes = std::fs::read(case("ternary-forward").join("model.gguf")).expect("the model is read");
    let whole = Bytes::from(bytes.clone());
    let file = Arc::new(GgufFile::from_bytes(whole.clone()).expect("the model is a GGUF"));
    let config = ModelConfig::from_gguf(file.metadata()).expect("it has a configuration");
    let catalog = mapper(&config).map(file).expect("its names are known");
    let matrix = catalog.matrix(catalog.find(tensor).expect("the tensor exists"), outer).expect("the matrix exists");
    assert_eq!(matrix.ty, TensorType::Tq2_0, "a 2-bit type has an invalid code");
    bytes[matrix.bytes.as_ptr() as usize - whole.as_ptr() as usize] |= 3;
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("model.gguf"), bytes).expect("the copy is written");
    dir
}

#[test]
fn damaged_codes_are_named_when_their_matrix_is_first_used() {
    let options = LoadOptions::default();
    let shared = damaged("blk.1.ffn_up_shexp.weight", 0);
    let error = CraftsmanModel::load(&shared.path().join("model.gguf"), &options).expect_err("used by every token");
    assert!(error.to_string().contains("blk.1.ffn_up_shexp.weight"), "{error}");

    let tokens: Vec<u32> = (0..40).collect();
    let routed = damaged("blk.1.ffn_gate_exps.weight", 1);
    let model = CraftsmanModel::load(&routed.path().join("model.gguf"), &options).expect("no expert is read yet");
    let mut session = Session::new(Arc::new(model), 64, CacheType::F16).expect("a session");
    for _ in 0..2 {
        let error = session.step(&tokens, &mut ()).expect_err("some token chooses expert 1");
        assert!(error.to_string().contains("blk.1.ffn_gate_exps.weight[1]"), "{error}");
        assert!(session.is_empty(), "a failed step leaves nothing behind");
    }
}
