//! Every golden checkpoint gives the numbers of transformers or NumPy (see `fixtures/README.md` for how they were made).

use std::sync::Arc;

use moe_runtime::{CraftsmanModel, LoadOptions, ModelFiles};
use ternary_core::ActMode;

use crate::golden::{Run, case, load_changed, read_case, run};

/// Whether the model rounds the activations of its ternary matrices. One code that is tipped by the last bit of an activation
/// changes all that follows, so such goldens are judged by `is_close`.
fn rounds(name: &str) -> bool {
    ModelFiles::open(&case(name)).expect("the case opens").config.trained_act.is_some()
}

/// The model of a case with the activations that it was trained with, and products of integers.
pub(crate) fn load_integers(path: &std::path::Path) -> Arc<CraftsmanModel> {
    Arc::new(CraftsmanModel::load(path, &LoadOptions::default()).expect("the case loads"))
}

/// The model of a case as it was trained.
pub(crate) fn load_as_trained(path: &std::path::Path) -> Arc<CraftsmanModel> {
    let options = LoadOptions { float_products: true, ..LoadOptions::default() };
    Arc::new(CraftsmanModel::load(path, &options).expect("the case loads"))
}

/// Whether at least 40 % of the positions have logits within 2e-3 of the golden's, and all within 1e-1.
pub(crate) fn is_close(got: &Run, golden: &Run) -> bool {
    assert_eq!(got.logits.len(), golden.logits.len());
    let vocab = golden.logits.len() / golden.tokens.len();
    let rows = got.logits.chunks(vocab).zip(golden.logits.chunks(vocab));
    let distances: Vec<f32> = rows.map(|(got, want)| crate::golden::max_abs(got, want)).collect();
    let exact = distances.iter().filter(|&&distance| distance <= crate::golden::LOGITS).count();
    10 * exact >= 4 * distances.len() && distances.iter().all(|&distance| distance <= 1e-1)
}

#[test]
fn every_case_gives_the_numbers_of_transformers() {
    let cases: Vec<_> = fixtures::golden_cases().into_iter().filter(|name| !rounds(name)).collect();
    assert!(cases.len() >= 5, "the golden checkpoints are there");
    for name in cases {
        let golden = read_case(&name);
        let model = load_changed(&name, |_| {});
        let dense = model.config().moe.is_none();
        assert!(
            !golden.routing.is_empty() || dense || name.starts_with("deepseek-v2"),
            "{name}: the golden has routings"
        );
        let distance = run(&model, &golden.tokens, 64, ()).distance(&golden);
        assert!(distance.passes(), "{name}: {distance:?}");
    }
}

#[test]
fn models_that_round_their_activations_give_the_numbers_too() {
    let cases: Vec<_> = fixtures::golden_cases().into_iter().filter(|name| rounds(name)).collect();
    assert!(cases.len() >= 5, "{cases:?}");
    for name in cases {
        let golden = read_case(&name);
        let model = load_as_trained(&case(&name));
        assert_eq!(model.config().trained_act, Some(ActMode::A8Token), "{name}");
        for chunk in [64, 7] {
            let got = run(&model, &golden.tokens, chunk, ());
            assert!(is_close(&got, &golden), "{name}: {:?}", got.distance(&golden));
        }
        // The products of integers differ in last bits, which tip codes: the noise of rounding, and no more.
        let integers = run(&load_integers(&case(&name)), &golden.tokens, 64, ());
        let distance = integers.distance(&golden);
        assert!(distance.logits <= 0.3 && distance.hidden <= 5e-2, "{name}: {distance:?}");
        // Without rounding, the logits leave the tolerance: the goldens show that activations are rounded.
        let unrounded = run(&load_changed(&name, |_| {}), &golden.tokens, 64, ());
        assert!(!is_close(&unrounded, &golden), "{name}");
    }
}
