//! Each test breaks one rule of the forward pass on purpose. The result must leave the tolerances of the goldens;
//! otherwise the goldens could not show that the rule is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use gguf_bitnet::{Catalog, TensorType};
use mla_attention::RopeStyle;
use moe_runtime::forward::{At, RoutingDecision, Taps};
use moe_runtime::models::{Activation, Gating, ModelConfig, RouterConfig, WeightNorm, mapper};
use moe_runtime::{CraftsmanModel, LoadOptions, ModelFiles};

use crate::golden::{Distance, case, load_changed, options, read_case, run};
use crate::goldens::{is_close, load_as_trained};
use crate::memory_source::MemorySource;
use crate::naive_mla::NaiveMla;

fn router(config: &mut ModelConfig) -> &mut RouterConfig {
    &mut config.moe.as_mut().expect("the case has experts").router
}

fn distance_of(name: &str, change: impl FnOnce(&mut ModelConfig)) -> Distance {
    let golden = read_case(name);
    run(&load_changed(name, change), &golden.tokens, 64, ()).distance(&golden)
}

#[track_caller]
fn assert_red(distance: &Distance) {
    assert!(!distance.passes(), "the goldens do not notice: {distance:?}");
}

#[test]
fn a_softmax_router_is_noticed() {
    assert_red(&distance_of("glm-tiny", |c| router(c).gating = Gating::Softmax));
    assert_red(&distance_of("deepseek-v2-softmax", |c| router(c).gating = Gating::Sigmoid));
}

#[test]
fn another_activation_is_noticed() {
    assert_red(&distance_of("glm-tiny", |c| c.activation = Activation::SquaredRelu));
    assert_red(&distance_of("llama-tied-odd", |c| c.activation = Activation::SquaredRelu));
    assert_red(&distance_of("bitnet-plain", |c| c.activation = Activation::Silu));
    let golden = read_case("bitnet-packed");
    let silu = run(&changed_as_trained("bitnet-packed", |c| c.activation = Activation::Silu), &golden.tokens, 64, ());
    assert!(!is_close(&silu, &golden));
}

/// The model of a case with the activations that it was trained with, and the configuration as `change` leaves it.
fn changed_as_trained(name: &str, change: impl FnOnce(&mut ModelConfig)) -> Arc<CraftsmanModel> {
    let files = ModelFiles::open(&case(name)).expect("the case opens");
    let mut config = files.config.clone();
    change(&mut config);
    Arc::new(CraftsmanModel::from_catalog(config, &files.catalog, &LoadOptions::default()).expect("the case loads"))
}

/// Loads a BitNet as a Llama that rotates halves and squares: the same model without the norms before the output projections.
#[test]
fn missing_norms_before_the_output_projections_are_noticed() {
    let golden = read_case("bitnet-plain");
    let files = ModelFiles::open(&case("bitnet-plain")).expect("the case opens");
    let text = std::fs::read_to_string(case("bitnet-plain").join("config.json")).expect("config.json is read");
    let renamed = text.replace("\"model_type\": \"bitnet\"", "\"model_type\": \"llama\"");
    let mut llama = ModelConfig::from_hf_str(&renamed).expect("it reads");
    (llama.rope, llama.head) = (files.config.rope, files.config.head);
    let distance = |config: &ModelConfig, keep: &dyn Fn(&str) -> bool| {
        let mut source = MemorySource::copy_of(&files.catalog, |_| TensorType::F32);
        let names: Vec<String> = files.catalog.tensors().iter().map(|tensor| tensor.name.clone()).collect();
        names.iter().filter(|name| !keep(name)).for_each(|name| source.remove(name));
        let catalog = mapper(config).map(Arc::new(source)).expect("the names are known");
        let model = CraftsmanModel::from_catalog(config.clone(), &catalog, &options()).expect("it loads");
        run(&Arc::new(model), &golden.tokens, 64, ()).distance(&golden)
    };
    assert!(distance(&files.config, &|_| true).passes(), "the copy itself is right");
    assert_red(&distance(&llama, &|name| !name.contains("_sub_norm")));
}

/// The two classes of linear layers differ in the meaning of the scale beside the packed weights.
#[test]
fn a_scale_that_divides_instead_of_multiplying_is_noticed() {
    for (name, class, other) in
        [("bitnet-packed", "autobitlinear", "bitlinear"), ("bitnet-packed-div", "bitlinear", "autobitlinear")]
    {
        let golden = read_case(name);
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::copy(case(name).join("model.safetensors"), dir.path().join("model.safetensors")).expect("a copy");
        let text = std::fs::read_to_string(case(name).join("config.json")).expect("config.json is read");
        let with = |class: &str| text.replace(&format!("\"{}\"", class_of(&text)), &format!("\"{class}\""));
        for (class, right) in [(class, true), (other, false)] {
            std::fs::write(dir.path().join("config.json"), with(class)).expect("config.json is written");
            let got = run(&load_as_trained(dir.path()), &golden.tokens, 64, ());
            assert_eq!(is_close(&got, &golden), right, "{name} as {class}");
        }
        // A checkpoint that does not name the class divides.
        let silent = text.replace(&format!("\"linear_class\": \"{}\",", class_of(&text)), "");
        assert_ne!(silent, text);
        std::fs::write(dir.path().join("config.json"), silent).expect("config.json is written");
        let got = run(&load_as_trained(dir.path()), &golden.tokens, 64, ());
        assert_eq!(is_close(&got, &golden), name == "bitnet-packed-div", "{name} without a class");
    }
}

/// The class of linear layers that a `config.json` names.
fn class_of(text: &str) -> &'static str {
    if text.contains("\"autobitlinear\"") { "autobitlinear" } else { "bitlinear" }
}

#[test]
fn a_dropped_scale_is_noticed() {
    assert_red(&distance_of("glm-tiny", |c| router(c).scaling = 1.0));
}

#[test]
fn a_wrong_normalisation_is_noticed() {
    assert_red(&distance_of("glm-tiny", |c| router(c).norm = WeightNorm::None));
    assert_red(&distance_of("unnormalised", |c| router(c).norm = WeightNorm::Sum { eps: 1e-20 }));
}

#[test]
fn ignored_groups_are_noticed() {
    for name in ["groups", "deepseek-v2-groups"] {
        assert_red(&distance_of(name, |c| (router(c).n_group, router(c).topk_group) = (1, 1)));
    }
}

#[test]
fn rope_over_halves_is_noticed() {
    assert_red(&distance_of("glm-tiny", |c| c.rope.style = RopeStyle::Halves));
    assert_red(&distance_of("glm4-moe-gqa", |c| c.rope.style = RopeStyle::Interleaved));
    assert_red(&distance_of("llama-tied-odd", |c| c.rope.style = RopeStyle::Halves));
    assert_red(&distance_of("bitnet-plain", |c| c.rope.style = RopeStyle::Interleaved));
}

#[test]
fn another_rope_base_is_noticed() {
    assert_red(&distance_of("theta", |c| c.rope.theta = 10_000.0));
}

#[test]
fn the_models_epsilon_in_the_latent_norms_is_noticed() {
    assert_red(&distance_of("glm-eps", |c| {
        let eps = c.norm_eps;
        let dims = c.attention.as_mla_mut().expect("the case has latent attention");
        assert_ne!(dims.latent_norm_eps, eps);
        dims.latent_norm_eps = eps;
    }));
}

/// Adds the selection bias to the scores from which the weights are made.
struct LeakyBias<'a> {
    catalog: &'a Catalog,
    config: &'a RouterConfig,
    scores: BTreeMap<usize, Vec<f32>>,
    /// 0 or 1: with 0 this recomputes the right weights.
    leak: f32,
}

impl Taps for LeakyBias<'_> {
    fn router(&mut self, at: At, _: &[f32], scores: &[f32]) {
        self.scores.insert(at.layer, scores.to_vec());
    }

    fn routing(&mut self, at: At, decision: &mut RoutingDecision) {
        let tensor = self.catalog.find(&format!("blk.{}.exp_probs_b.bias", at.layer)).expect("the bias exists");
        let mut bias = vec![0.0; tensor.elements()];
        self.catalog.read_rows(tensor, 0..1, &mut bias).expect("the bias reads");
        let k = decision.top_k;
        let rows = decision.ids.chunks(k).zip(decision.weights.chunks_mut(k));
        for ((ids, weights), scores) in rows.zip(self.scores[&at.layer].chunks(bias.len())) {
            for (w, &id) in weights.iter_mut().zip(ids) {
                *w = scores[id as usize] + self.leak * bias[id as usize];
            }
            let sum: f32 = weights.iter().sum();
            weights.iter_mut().for_each(|w| *w *= self.config.scaling / sum);
        }
    }
}

#[test]
fn a_bias_in_the_weights_is_noticed() {
    let golden = read_case("glm-tiny");
    let files = ModelFiles::open(&case("glm-tiny")).expect("the case opens");
    let model = load_changed("glm-tiny", |_| {});
    let config = &files.config.moe.as_ref().expect("the case has experts").router;
    let with_leak = |leak| {
        let taps = LeakyBias { catalog: &files.catalog, config, scores: BTreeMap::new(), leak };
        run(&model, &golden.tokens, 64, taps).distance(&golden)
    };
    assert!(with_leak(0.0).passes(), "the override itself is right");
    assert_red(&with_leak(1.0));
}

#[test]
fn values_from_the_latent_before_its_norm_are_noticed() {
    let golden = read_case("glm-tiny");
    let files = ModelFiles::open(&case("glm-tiny")).expect("the case opens");
    let model = load_changed("glm-tiny", |_| {});
    let with = |raw_values| {
        let taps = NaiveMla { config: &files.config, catalog: &files.catalog, raw_values, input: Vec::new() };
        run(&model, &golden.tokens, 64, taps).distance(&golden)
    };
    assert!(with(false).passes(), "the written-out attention itself is right");
    assert_red(&with(true));
}

/// Zeroes the output of the attention: the overrides of [`Taps`] must reach the forward pass.
struct NoAttention;

impl Taps for NoAttention {
    fn attention_out(&mut self, _: At, y: &mut [f32]) {
        y.fill(0.0);
    }
}

/// Moves every token to the first experts.
struct FirstExperts;

impl Taps for FirstExperts {
    fn routing(&mut self, _: At, decision: &mut RoutingDecision) {
        let k = decision.top_k;
        decision.ids.iter_mut().zip((0..k).cycle()).for_each(|(id, i)| *id = u32::try_from(i).expect("k is small"));
    }
}

/// Replaces the input of the last layer.
struct OtherInput;

impl Taps for OtherInput {
    fn layer_in(&mut self, at: At, x: &mut [f32]) {
        if at.layer == 1 {
            x.fill(0.5);
        }
    }
}

#[test]
fn overrides_reach_the_forward_pass() {
    let golden = read_case("glm-tiny");
    let model = load_changed("glm-tiny", |_| {});
    assert_red(&run(&model, &golden.tokens, 64, NoAttention).distance(&golden));
    assert_red(&run(&model, &golden.tokens, 64, FirstExperts).distance(&golden));
    let other = run(&model, &golden.tokens, 64, OtherInput);
    assert!(other.hidden[1].iter().all(|&x| x == 0.5));
    assert_red(&other.distance(&golden));
}

/// Names an expert that does not exist.
struct NoSuchExpert;

impl Taps for NoSuchExpert {
    fn routing(&mut self, _: At, decision: &mut RoutingDecision) {
        decision.ids[0] = u32::MAX;
    }
}

#[test]
fn a_forced_routing_that_does_not_fit_is_an_error() {
    let model = load_changed("glm-tiny", |_| {});
    let mut session = crate::golden::session(&model, 64);
    let error = session.prefill(&[1, 2, 3], &mut NoSuchExpert).expect_err("there is no such expert");
    assert!(error.to_string().contains("an expert 4294967295, but the layer has 4"), "{error}");
    assert_eq!(session.len(), 0);
}
