//! The sizes that the presets promise for GLM-4.7-Flash, from the shape alone.

use gguf_bitnet::Metadata;
use moe_runtime::models::expected_tensors;
use rlm_refine::synth::Shape;
use rlm_refine::{Preset, Recipe, StudentPlan};

fn plan(preset: Preset) -> StudentPlan {
    let config = Shape::open("glm-4.7-flash", None).unwrap().config;
    let tensors = expected_tensors(&config);
    let wanted = tensors.iter().filter(|tensor| !tensor.optional).map(|tensor| (&*tensor.name, &*tensor.shape));
    StudentPlan::new(&config, wanted, &Recipe { preset, ..Recipe::default() }).unwrap()
}

#[test]
fn presets_have_the_sizes_they_promise() {
    // Gigabytes as the documentation states them; metadata and tokenizer add a few megabytes to a real file.
    let promised = [
        (Preset::Quality, 9.477, 0.001),
        (Preset::Balanced, 8.978, 0.001),
        (Preset::EightGigabytes, 7.675, 0.001),
        (Preset::Phase1, 10.740, 0.001),
        (Preset::Phase2, 9.022, 0.001),
    ];
    for (preset, gigabytes, tolerance) in promised {
        let bytes = plan(preset).writer(&Metadata::default()).unwrap().file_bytes();
        let got = bytes as f64 / 1e9;
        assert!((got - gigabytes).abs() < tolerance, "{} is {got:.3} GB, not {gigabytes}", preset.name());
    }
}

#[test]
fn the_full_shape_has_the_published_weight_counts() {
    let config = Shape::open("glm-4.7-flash", None).unwrap().config;
    let plan = plan(Preset::Balanced);
    assert!((plan.params() as f64 / 1e9 - 29.94).abs() < 0.01, "{}", plan.params());
    let active = plan.active_params(&config);
    assert!((active as f64 / 1e9 - 3.58).abs() < 0.01, "{active}");
}
