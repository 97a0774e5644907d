//! The choice of kernels reaches a model: every kernel gives the same numbers, and a broken one is found at load.

use std::sync::Arc;

use moe_runtime::{CraftsmanModel, LoadOptions};
use ternary_core::ActMode;
use tl_kernels::{Isa, KernelKind, Reason, SelectorOptions, broken};

use crate::golden::{case, run};

fn load(act_mode: ActMode, kernel: Option<KernelKind>) -> Arc<CraftsmanModel> {
    let kernels = SelectorOptions { kernel, ..SelectorOptions::default() };
    let options = LoadOptions { act_mode: Some(act_mode), kernels, ..LoadOptions::default() };
    let path = case("ternary-forward").join("model.gguf");
    Arc::new(CraftsmanModel::load(&path, &options).expect("the model loads"))
}

fn logits(model: &Arc<CraftsmanModel>) -> Vec<f32> {
    run(model, &[1, 5, 9, 2, 40, 17], 64, ()).logits
}

#[test]
fn every_kernel_gives_the_same_logits() {
    for mode in [ActMode::A8Block, ActMode::A8Token] {
        let expected = logits(&load(mode, None));
        for kernel in [KernelKind::Tiles, KernelKind::Tl1, KernelKind::Tl2] {
            let model = load(mode, Some(kernel));
            assert!(model.kernels().iter().any(|choice| choice.kernel == kernel), "{:?}", model.kernels());
            assert_eq!(logits(&model), expected, "{kernel} {mode:?}");
        }
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "a missing level must be seen in the test's output")]
fn a_broken_kernel_falls_back_and_the_model_says_so() {
    let healthy = load(ActMode::A8Block, None);
    assert!(healthy.kernels().iter().all(|choice| choice.refused.is_empty()), "{:?}", healthy.kernels());
    assert!(healthy.kernels().iter().any(|choice| choice.kernel == KernelKind::Dense));
    let highest = Isa::current();
    let Some(lower) = highest.lower() else {
        println!("SKIP fall-back: {highest} is the lowest level");
        return;
    };
    let fallen = broken::with(KernelKind::I2s, highest, || load(ActMode::A8Block, None));
    let ternary: Vec<_> = fallen.kernels().iter().filter(|choice| choice.kernel == KernelKind::I2s).collect();
    assert!(!ternary.is_empty());
    for choice in ternary {
        assert_eq!((choice.isa, choice.reason), (lower, Reason::FallBack), "{choice:?}");
        assert!(choice.refused[0].contains(&format!("the {highest} kernel of")), "{choice:?}");
    }
    // Without the fall-back these would be the broken kernel's numbers.
    assert_eq!(logits(&fallen), logits(&healthy));
    let used = broken::with(KernelKind::I2s, highest, || logits(&healthy));
    assert_ne!(used, logits(&healthy), "the hook breaks what a model computes");
}
