//! Ternary weights: against NumPy (`fixtures/interop/ternary_forward.py`) in every activation mode, and against the same
//! weights as dense numbers.

use std::sync::Arc;

use moe_runtime::{CraftsmanModel, LoadOptions};
use tl_kernels::{ActMode, Pool};

use crate::golden::{Run, case, max_abs, relative_l2, run};

fn run_mode(act_mode: ActMode, tokens: &[u32]) -> Run {
    let options = LoadOptions { act_mode, pool: Arc::new(Pool::serial()) };
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
