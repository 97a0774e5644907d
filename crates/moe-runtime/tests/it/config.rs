//! Configurations: the values read from every checkpoint and file, and the refusals.

use gguf_bitnet::{Metadata, TensorInfo, TensorType, Value};
use mla_attention::RopeStyle;
use moe_runtime::Error;
use moe_runtime::models::{
    Activation, AttentionConfig, Gating, GqaDims, GroupScore, MlaDims, ModelConfig, Presence, RouterConfig, WeightNorm,
};
use serde_json::{Value as Json, json};
use ternary_core::ActMode;

fn hf(case: &str) -> Json {
    let text = std::fs::read_to_string(fixtures::path(format!("goldens/{case}/config.json"))).expect("the file reads");
    serde_json::from_str(&text).expect("the file is JSON")
}

fn changed(case: &str, changes: &[(&str, Json)]) -> Result<ModelConfig, Error> {
    let mut json = hf(case);
    for (key, value) in changes {
        json[*key] = value.clone();
    }
    ModelConfig::from_hf(&json)
}

fn without(case: &str, key: &str) -> Result<ModelConfig, Error> {
    let mut json = hf(case);
    json.as_object_mut().expect("an object").remove(key);
    ModelConfig::from_hf(&json)
}

#[track_caller]
fn refused(result: Result<ModelConfig, Error>, words: &[&str]) {
    let message = result.expect_err("it must be refused").to_string();
    for word in words {
        assert!(message.contains(word), "`{message}` does not say `{word}`");
    }
}

fn router(config: &ModelConfig) -> &RouterConfig {
    &config.moe.as_ref().expect("the model has experts").router
}

#[test]
fn a_glm_checkpoint_reads_as_it_is() {
    let config = ModelConfig::from_hf(&hf("glm-tiny-top4")).expect("it reads");
    assert_eq!((config.arch.hf_name(), config.n_layers, config.n_dense, config.n_mtp), ("glm4_moe_lite", 2, 1, 0));
    assert_eq!((config.vocab, config.hidden, config.dense_ff, config.n_ctx), (512, 256, 512, 1024));
    assert_eq!((config.norm_eps, config.head), (1e-5, Presence::Absent));
    let want = AttentionConfig::Mla(MlaDims {
        q_lora: Some(256),
        kv_lora: 256,
        qk_nope: 64,
        qk_rope: 32,
        v_head: 64,
        latent_norm_eps: 1e-6,
    });
    assert_eq!(config.attention, want);
    assert_eq!((config.rope.theta, config.rope.dims, config.rope.style), (1e6, 32, RopeStyle::Interleaved));
    let router = router(&config);
    assert_eq!((router.gating, router.n_experts, router.top_k), (Gating::Sigmoid, 8, 4));
    assert_eq!((router.norm, router.scaling), (WeightNorm::Sum { eps: 1e-20 }, 1.8));
    assert_eq!((router.selection_bias, router.group_score), (Presence::Required, GroupScore::TopTwoSum));
    assert!(!config.is_moe(0) && config.is_moe(1));
}

#[test]
fn the_other_families_read_as_they_are() {
    let v2 = ModelConfig::from_hf(&hf("deepseek-v2-groups")).expect("it reads");
    let r = router(&v2);
    assert_eq!((r.gating, r.norm, r.selection_bias), (Gating::Softmax, WeightNorm::None, Presence::Absent));
    assert_eq!((r.n_group, r.topk_group, r.group_score, r.scaling), (4, 2, GroupScore::Max, 2.0));
    assert_eq!(v2.moe.as_ref().map(|m| m.shared_ff()), Some(64));

    let greedy = changed("deepseek-v2-groups", &[("topk_method", json!("greedy"))]).expect("it reads");
    assert_eq!((router(&greedy).n_group, router(&greedy).topk_group), (1, 1), "greedy knows no groups");

    let gqa = ModelConfig::from_hf(&hf("glm4-moe-gqa")).expect("it reads");
    assert_eq!((gqa.n_mtp, gqa.rope.dims, gqa.rope.style), (1, 32, RopeStyle::Halves));
    let want = AttentionConfig::Gqa(GqaDims {
        n_kv_heads: 2,
        head_dim: 64,
        qk_norm: Presence::Required,
        bias: Presence::Required,
    });
    assert_eq!(gqa.attention, want);
    let plain = ModelConfig::from_hf(&hf("glm4-moe-plain")).expect("it reads");
    let want = AttentionConfig::Gqa(GqaDims {
        n_kv_heads: 2,
        head_dim: 24,
        qk_norm: Presence::Absent,
        bias: Presence::Absent,
    });
    assert_eq!((plain.attention, plain.rope.dims), (want, 6));

    let v3 = changed("glm-tiny", &[("model_type", json!("deepseek_v3"))]).expect("it reads");
    assert_eq!((v3.arch.hf_name(), router(&v3).gating), ("deepseek_v3", Gating::Sigmoid));
}

#[test]
fn the_dense_prefix_comes_from_either_key() {
    assert_eq!(ModelConfig::from_hf(&hf("shared2")).expect("it reads").n_dense, 2);
    assert_eq!(ModelConfig::from_hf(&hf("unnormalised")).expect("it reads").n_dense, 1);
    refused(changed("glm-tiny", &[("first_k_dense_replace", json!(2))]), &["first_k_dense_replace", "mlp_layer_types"]);
    let after =
        changed("glm-tiny", &[("mlp_layer_types", json!(["sparse", "dense"])), ("first_k_dense_replace", Json::Null)]);
    refused(after, &["mlp_layer_types", "the dense layers must be the first ones"]);
    refused(changed("glm-tiny", &[("mlp_layer_types", json!(["dense"]))]), &["1 entries and 2 layers"]);
    refused(changed("glm-tiny", &[("mlp_layer_types", json!(["dense", "moe"]))]), &["\"dense\" or \"sparse\""]);

    // `moe_layer_freq` is a number or a list; `null` says nothing.
    let other = |freq: Json, more: &[(&str, Json)]| {
        let silent = [("mlp_layer_types", Json::Null), ("first_k_dense_replace", Json::Null), ("moe_layer_freq", freq)];
        changed("glm-tiny", &[&silent[..], more].concat())
    };
    for list in [json!([0, 1]), json!([false, true]), json!(["dense", "sparse"])] {
        assert_eq!(other(list, &[]).expect("it reads").n_dense, 1);
    }
    assert_eq!(other(json!([1, 1]), &[]).expect("it reads").n_dense, 0);
    assert_eq!(other(json!(1), &[("first_k_dense_replace", json!(1))]).expect("it reads").n_dense, 1);
    assert_eq!(other(json!(2), &[("num_hidden_layers", json!(1))]).expect("it reads").n_dense, 0);
    refused(other(json!([0, 1]), &[("first_k_dense_replace", json!(2))]), &["moe_layer_freq", "disagree"]);
    refused(other(json!([1, 0]), &[]), &["moe_layer_freq", "the dense layers must be the first ones"]);
    refused(other(json!([0, 1, 1]), &[]), &["moe_layer_freq", "3 entries and 2 layers"]);
    refused(other(json!([0, 2]), &[]), &["moe_layer_freq", "0 or 1"]);
    refused(other(json!(0), &[]), &["moe_layer_freq", "positive"]);
    refused(other(json!("all"), &[]), &["moe_layer_freq", "a list"]);
    refused(other(json!(2), &[("num_hidden_layers", json!(4))]), &["`moe_layer_freq` = 2"]);
}

#[test]
fn the_language_model_of_a_multimodal_checkpoint_is_nested() {
    let plain = hf("glm-tiny");
    let expected = ModelConfig::from_hf(&plain).expect("it reads");
    for section in ["text_config", "llm_config", "language_config"] {
        let whole = json!({
            "model_type": "glm_pictures", "architectures": ["Pictures"], section: plain.clone(),
            "vision_config": { "hidden_size": 9, "model_type": "eyes" },
        });
        assert_eq!(ModelConfig::from_hf(&whole).expect("it reads"), expected, "{section}");
    }
    // A key beside the section counts where the section is silent.
    let mut section = plain.clone();
    section.as_object_mut().expect("an object").remove("tie_word_embeddings");
    let whole = json!({ "model_type": "glm_pictures", "tie_word_embeddings": true, "text_config": section });
    assert_eq!(ModelConfig::from_hf(&whole).expect("it reads").head, Presence::Absent);
    refused(ModelConfig::from_hf(&json!({ "text_config": { "model_type": "bloom" } })), &["`bloom`"]);
}

#[test]
fn old_rope_keys_work_and_scaling_is_refused_by_name() {
    let old = [("rope_parameters", Json::Null), ("rope_theta", json!(5e5)), ("rope_scaling", Json::Null)];
    assert_eq!(changed("glm-tiny", &old).expect("it reads").rope.theta, 5e5);
    let old = [("rope_parameters", Json::Null), ("rope_theta", json!(1e4)), ("partial_rotary_factor", json!(0.25))];
    let gqa = changed("glm4-moe-gqa", &old).expect("it reads");
    assert_eq!((gqa.rope.theta, gqa.rope.dims), (1e4, 16));

    let yarn = json!({"rope_type": "yarn", "rope_theta": 1e6, "factor": 40.0});
    refused(changed("glm-tiny", &[("rope_parameters", yarn)]), &["`yarn`", "rope_parameters.rope_type"]);
    refused(changed("glm-tiny", &[("rope_scaling", json!({"type": "linear", "factor": 4.0}))]), &["`linear`"]);
    refused(changed("glm-tiny", &[("rope_scaling", json!({"factor": 4.0}))]), &["4.0"]);
    refused(changed("glm-tiny", &[("rope_theta", json!(1e4))]), &["rope_parameters.rope_theta", "disagree"]);
    refused(changed("glm-tiny", &[("rope_parameters", json!({"rope_type": "default"}))]), &["rope_theta"]);
}

#[test]
fn rope_over_halves_is_read_where_the_family_allows_it() {
    let halves = changed("glm-tiny", &[("rope_interleave", json!(false))]).expect("it reads");
    assert_eq!(halves.rope.style, RopeStyle::Halves);
    refused(halves.to_gguf_metadata().map(|_| halves.clone()), &["the format cannot express"]);
}

#[test]
fn the_activation_is_read_and_a_gguf_cannot_express_a_squared_relu() {
    assert_eq!(ModelConfig::from_hf(&hf("glm-tiny")).expect("it reads").activation, Activation::Silu);
    let squared = changed("glm-tiny", &[("hidden_act", json!("relu2"))]).expect("it reads");
    assert_eq!(squared.activation, Activation::SquaredRelu);
    refused(squared.to_gguf_metadata().map(|_| squared.clone()), &["the format cannot express"]);
}

#[test]
fn hostile_configurations_are_errors_that_name_the_key() {
    for key in ["hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads", "n_routed_experts"] {
        for value in [json!(-1), json!(1u64 << 40), json!(1.5), json!("8"), json!([8])] {
            refused(changed("glm-tiny", &[(key, value)]), &[key]);
        }
    }
    for key in
        ["hidden_size", "vocab_size", "num_experts_per_tok", "kv_lora_rank", "rms_norm_eps", "moe_intermediate_size"]
    {
        refused(without("glm-tiny", key), &[key, "glm4_moe_lite"]);
    }
    for (key, value) in [
        ("hidden_size", json!(0)),
        ("num_hidden_layers", json!(0)),
        ("num_hidden_layers", json!(200_000_000)),
        ("num_experts_per_tok", json!(5)),
        ("num_experts_per_tok", json!(0)),
        ("n_group", json!(3)),
        ("topk_group", json!(2)),
        ("rms_norm_eps", json!(0.0)),
        ("rms_norm_eps", json!(-1e-5)),
        ("routed_scaling_factor", json!(1e300)),
        ("routed_scaling_factor", json!(0)),
        ("qk_rope_head_dim", json!(31)),
        ("n_shared_experts", json!(100_000)),
        ("num_attention_heads", json!(200_000_000)),
        ("tie_word_embeddings", json!("yes")),
        ("n_routed_experts", json!(100_000)),
        ("rope_parameters", json!([])),
        ("hidden_act", json!("gelu")),
        ("attention_bias", json!(true)),
        ("mlp_bias", json!(true)),
        ("scoring_func", json!("tanh")),
        ("topk_method", json!("random")),
        ("quantization_config", json!({"quant_method": "gptq"})),
        ("moe_layer_freq", json!(2)),
        ("max_position_embeddings", json!(0)),
    ] {
        assert!(changed("glm-tiny", &[(key, value.clone())]).is_err(), "{key} = {value}");
    }
    assert!(changed("glm4-moe-gqa", &[("num_key_value_heads", json!(3))]).is_err());
    refused(changed("glm-tiny", &[("model_type", json!("bloom"))]), &["`bloom`", "glm4_moe_lite"]);
    refused(without("glm-tiny", "model_type"), &["model_type"]);
    refused(ModelConfig::from_hf_str("{"), &["config.json", "JSON"]);
    refused(ModelConfig::from_hf_str("[]"), &["not an object"]);
}

#[test]
fn few_groups_must_leave_enough_experts() {
    let base = [("n_group", json!(4)), ("topk_group", json!(1))];
    refused(changed("groups", &base), &["experts per token", "at most 2"]);
}

/// The metadata of a GGUF of the case's model.
fn gguf(case: &str) -> Metadata {
    ModelConfig::from_hf(&hf(case)).expect("it reads").to_gguf_metadata().expect("it can be written")
}

fn changed_gguf(case: &str, key: &str, value: impl Into<Value>) -> Result<ModelConfig, Error> {
    let mut metadata = gguf(case);
    metadata.insert(key, value);
    ModelConfig::from_gguf(&metadata)
}

#[test]
fn every_case_survives_the_way_through_gguf() {
    for case in fixtures::golden_cases() {
        let config = ModelConfig::from_hf(&hf(&case)).expect("it reads");
        let back = ModelConfig::from_gguf(&gguf(&case)).expect("it reads back");
        assert_eq!(
            (back.n_layers, back.n_dense, back.rope, back.vocab),
            (config.n_layers, config.n_dense, config.rope, config.vocab)
        );
        assert_eq!((back.head, back.n_mtp), (Presence::Detect, 0), "{case}");
    }
}

#[test]
fn the_keys_have_the_names_and_types_of_the_format() {
    let metadata = gguf("no-q-lora");
    assert_eq!(metadata.str("general.architecture").expect("a string"), Some("deepseek2"));
    for (key, value) in [
        ("block_count", Value::U32(2)),
        ("attention.head_count", Value::U32(4)),
        ("attention.head_count_kv", Value::U32(1)),
        ("attention.kv_lora_rank", Value::U32(64)),
        ("attention.key_length", Value::U32(72)),
        ("attention.value_length", Value::U32(64)),
        ("attention.key_length_mla", Value::U32(24)),
        ("attention.value_length_mla", Value::U32(16)),
        ("attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("rope.dimension_count", Value::U32(8)),
        ("rope.freq_base", Value::F32(1e6)),
        ("leading_dense_block_count", Value::U32(1)),
        ("expert_count", Value::U32(4)),
        ("expert_used_count", Value::U32(2)),
        ("expert_shared_count", Value::U32(1)),
        ("expert_feed_forward_length", Value::U32(64)),
        ("expert_gating_func", Value::U32(2)),
        ("expert_weights_norm", Value::Bool(true)),
        ("expert_weights_scale", Value::F32(1.8)),
        ("vocab_size", Value::U32(128)),
    ] {
        assert_eq!(metadata.get(&format!("deepseek2.{key}")), Some(&value), "{key}");
    }
    assert!(!metadata.contains_key("deepseek2.attention.q_lora_rank"));
    let gqa = gguf("glm4-moe-gqa");
    assert_eq!(gqa.u32("glm4moe.attention.head_count_kv").expect("a number"), Some(2));
    assert_eq!(gqa.u32("glm4moe.rope.dimension_count").expect("a number"), Some(32));
    assert_eq!(gguf("deepseek-v2-softmax").u32("deepseek2.expert_gating_func").expect("a number"), Some(1));
}

#[test]
fn a_missing_gating_function_is_guessed_from_the_shape() {
    let mut metadata = gguf("glm-tiny");
    metadata.remove("deepseek2.expert_gating_func");
    let gating = |m: &Metadata| ModelConfig::from_gguf(m).map(|c| router(&c).gating).expect("it reads");
    assert_eq!(gating(&metadata), Gating::Softmax);
    metadata.insert("deepseek2.vocab_size", 154_880u32);
    assert_eq!(gating(&metadata), Gating::Softmax);
    metadata.insert("deepseek2.block_count", 47u32);
    assert_eq!(gating(&metadata), Gating::Sigmoid);
    metadata.insert("deepseek2.block_count", 48u32);
    metadata.insert("deepseek2.nextn_predict_layers", 1u32);
    assert_eq!(gating(&metadata), Gating::Sigmoid);
    metadata.insert("deepseek2.expert_gating_func", 0u32);
    assert_eq!(gating(&metadata), Gating::Sigmoid, "0 means missing");
    metadata.insert("deepseek2.expert_gating_func", 1u32);
    assert_eq!(gating(&metadata), Gating::Softmax, "the key wins");
    refused(changed_gguf("glm-tiny", "deepseek2.expert_gating_func", 3u32), &["3, softmax over the selected logits"]);
    refused(changed_gguf("glm-tiny", "deepseek2.expert_gating_func", 4u32), &["sqrt(softplus)"]);
    refused(changed_gguf("glm-tiny", "deepseek2.expert_gating_func", 9u32), &["unknown function 9"]);
    let mut glm = gguf("glm4-moe-gqa");
    glm.remove("glm4moe.expert_gating_func");
    assert_eq!(gating(&glm), Gating::Sigmoid);
}

#[test]
fn missing_expert_keys_have_their_defaults() {
    let mut metadata = gguf("glm-tiny");
    metadata.remove("deepseek2.expert_weights_scale");
    metadata.remove("deepseek2.expert_weights_norm");
    metadata.remove("deepseek2.expert_group_count");
    let config = ModelConfig::from_gguf(&metadata).expect("it reads");
    assert_eq!((router(&config).scaling, router(&config).norm, router(&config).n_group), (1.0, WeightNorm::None, 1));
    let zero = changed_gguf("glm-tiny", "deepseek2.expert_weights_scale", 0f32).expect("it reads");
    assert_eq!(router(&zero).scaling, 1.0);
}

#[test]
fn block_count_includes_mtp_blocks() {
    let mut metadata = gguf("glm-tiny");
    metadata.insert("deepseek2.block_count", 3u32);
    metadata.insert("deepseek2.nextn_predict_layers", 1u32);
    let config = ModelConfig::from_gguf(&metadata).expect("it reads");
    assert_eq!((config.n_layers, config.n_mtp), (2, 1));
    refused(changed_gguf("glm-tiny", "deepseek2.nextn_predict_layers", 2u32), &["block_count"]);
}

#[test]
fn legacy_files_give_the_head_widths_directly() {
    let mut metadata = gguf("glm-tiny");
    metadata.remove("deepseek2.attention.key_length_mla");
    metadata.remove("deepseek2.attention.value_length_mla");
    metadata.insert("deepseek2.attention.head_count_kv", 4u32);
    metadata.insert("deepseek2.attention.key_length", 96u32);
    metadata.insert("deepseek2.attention.value_length", 64u32);
    let config = ModelConfig::from_gguf(&metadata).expect("it reads");
    assert_eq!(config.attention, ModelConfig::from_hf(&hf("glm-tiny")).expect("it reads").attention);
    metadata.insert("deepseek2.attention.key_length", 16u32);
    refused(ModelConfig::from_gguf(&metadata), &["deepseek2.attention.key_length", "32 rotated"]);
}

#[test]
fn per_layer_lists_must_agree() {
    let list = |values: &[u32]| Value::from(values.to_vec());
    let config = changed_gguf("glm-tiny", "deepseek2.attention.head_count", list(&[4, 4])).expect("it reads");
    assert_eq!(config.n_heads, 4);
    let config = changed_gguf("glm-tiny", "deepseek2.feed_forward_length", list(&[512, 0])).expect("it reads");
    assert_eq!(config.dense_ff, 512);
    let config = changed_gguf("glm-tiny", "deepseek2.expert_used_count", list(&[0, 2])).expect("it reads");
    assert_eq!(router(&config).top_k, 2);
    refused(changed_gguf("glm-tiny", "deepseek2.attention.head_count", list(&[4, 2])), &["differs between layers"]);
    refused(changed_gguf("glm-tiny", "deepseek2.attention.head_count", list(&[4])), &["an entry for each"]);
    refused(changed_gguf("glm-tiny", "deepseek2.attention.head_count", Value::from(vec![-4i32, -4])), &["head_count"]);
}

#[test]
fn gguf_rope_scaling_is_refused_by_name() {
    refused(
        changed_gguf("glm-tiny", "deepseek2.rope.scaling.type", "yarn"),
        &["`yarn`", "deepseek2.rope.scaling.type"],
    );
    refused(changed_gguf("glm-tiny", "deepseek2.rope.scaling.factor", 4f32), &["rope.scaling.factor"]);
    assert!(changed_gguf("glm-tiny", "deepseek2.rope.scaling.type", "none").is_ok());
}

#[test]
fn hostile_metadata_is_an_error() {
    refused(
        changed_gguf("glm-tiny", "general.architecture", "bloom"),
        &["`bloom`", "deepseek2, glm4moe, llama, bitnet-b1.58 and bitnet"],
    );
    for (key, value) in [
        ("block_count", Value::U32(0)),
        ("block_count", Value::U32(u32::MAX)),
        ("block_count", Value::String("two".to_owned())),
        ("embedding_length", Value::U64(u64::MAX)),
        ("embedding_length", Value::I32(-256)),
        ("leading_dense_block_count", Value::U32(3)),
        ("attention.key_length_mla", Value::U32(8)),
        ("attention.key_length", Value::U32(999)),
        ("attention.layer_norm_rms_epsilon", Value::F32(f32::NAN)),
        ("attention.layer_norm_rms_epsilon", Value::U32(1)),
        ("rope.freq_base", Value::F32(f32::INFINITY)),
        ("rope.freq_base", Value::F32(-1.0)),
        ("rope.dimension_count", Value::U32(0x1000_0000)),
        ("expert_used_count", Value::U32(9)),
        ("expert_count", Value::U32(u32::MAX)),
        ("expert_group_count", Value::U32(3)),
        ("expert_weights_scale", Value::F32(f32::NAN)),
        ("expert_weights_norm", Value::U32(1)),
        ("context_length", Value::U32(0)),
        ("vocab_size", Value::U32(0)),
    ] {
        assert!(changed_gguf("glm-tiny", &format!("deepseek2.{key}"), value.clone()).is_err(), "{key} = {value}");
    }
    for key in
        ["block_count", "embedding_length", "context_length", "attention.head_count", "expert_used_count", "vocab_size"]
    {
        let mut metadata = gguf("glm-tiny");
        metadata.remove(&format!("deepseek2.{key}"));
        refused(ModelConfig::from_gguf(&metadata), &[&format!("deepseek2.{key}")]);
    }
}

#[test]
fn the_vocabulary_may_come_from_the_tokens_or_the_embedding() {
    let mut metadata = gguf("glm-tiny");
    let embedding = [stored("token_embd.weight", &[77, 256])];
    metadata.remove("deepseek2.vocab_size");
    assert_eq!(ModelConfig::from_gguf_with(&metadata, &embedding).expect("it reads").vocab, 77);
    metadata.insert("tokenizer.ggml.tokens", vec!["a".to_owned(), "b".to_owned()]);
    assert_eq!(ModelConfig::from_gguf_with(&metadata, &embedding).expect("it reads").vocab, 2);
}

fn stored(name: &str, shape: &[usize]) -> TensorInfo {
    let ty = TensorType::F32;
    TensorInfo { name: name.to_owned(), shape: shape.to_vec(), ty, bytes: ty.tensor_bytes(shape).expect("it fits") }
}

#[test]
fn a_selection_bias_means_a_sigmoid_router() {
    for (case, arch) in [("glm-tiny", "deepseek2"), ("glm4-moe-gqa", "glm4moe")] {
        let bias = [stored("blk.1.exp_probs_b.bias", &[4])];
        let mut metadata = gguf(case);
        let key = format!("{arch}.expert_gating_func");
        for missing in [None, Some(0u32)] {
            metadata.remove(&key);
            missing.map(|zero| metadata.insert(key.as_str(), zero));
            let config = ModelConfig::from_gguf_with(&metadata, &bias).expect("it reads");
            assert_eq!(router(&config).gating, Gating::Sigmoid);
            let [guess] = &config.guesses[..] else { panic!("{:?}", config.guesses) };
            assert_eq!((guess.key.as_str(), guess.value.as_str()), (key.as_str(), "sigmoid"));
            assert!(guess.reason.contains("exp_probs_b"), "{guess}");
        }
        metadata.insert(key.as_str(), 1u32);
        refused(ModelConfig::from_gguf_with(&metadata, &bias), &[&key, "exp_probs_b", "softmax"]);
        metadata.insert(key.as_str(), 2u32);
        assert_eq!(ModelConfig::from_gguf_with(&metadata, &bias).expect("it reads").guesses, []);
    }
    let mut json = hf("glm-tiny");
    json["scoring_func"] = "softmax".into();
    refused(ModelConfig::from_hf(&json), &["scoring_func", "e_score_correction_bias"]);
}

#[test]
fn a_file_that_states_all_leaves_nothing_to_guess() {
    for case in ["glm-tiny", "deepseek-v2-softmax", "deepseek-v2-groups", "glm4-moe-gqa", "no-q-lora"] {
        assert_eq!(ModelConfig::from_gguf(&gguf(case)).expect("it reads").guesses, [], "{case}");
    }
    for case in ["glm-tiny", "glm4-moe-gqa"] {
        let mut json = hf(case);
        json["scoring_func"] = "sigmoid".into();
        assert_eq!(ModelConfig::from_hf(&json).expect("it reads").guesses, [], "{case}");
    }
}

#[test]
fn every_missing_key_that_has_a_default_is_recorded_with_it() {
    let cases = [
        ("glm-tiny", "deepseek2.expert_gating_func", "softmax"),
        ("glm-tiny", "deepseek2.expert_weights_scale", "1"),
        ("glm-tiny", "deepseek2.expert_weights_norm", "false"),
        ("glm-tiny", "deepseek2.expert_group_count", "1"),
        ("glm-tiny", "deepseek2.leading_dense_block_count", "0"),
        ("glm-tiny", "deepseek2.rope.freq_base", "10000"),
        ("glm4-moe-gqa", "glm4moe.expert_gating_func", "sigmoid"),
        ("glm4-moe-gqa", "glm4moe.rope.dimension_count", "64"),
        ("glm4-moe-gqa", "glm4moe.attention.head_count_kv", "4"),
        ("glm4-moe-gqa", "glm4moe.attention.key_length", "64"),
    ];
    for (case, key, value) in cases {
        let mut metadata = gguf(case);
        let stated = metadata.remove(key);
        assert!(stated.is_some(), "{key}");
        if key.ends_with("key_length") {
            metadata.remove("glm4moe.attention.value_length");
        }
        let config = ModelConfig::from_gguf(&metadata).expect("it reads");
        let [guess] = &config.guesses[..] else { panic!("{key}: {:?}", config.guesses) };
        assert_eq!((guess.key.as_str(), guess.value.as_str()), (key, value));
        assert!(!guess.reason.is_empty(), "{key}");
    }
    let zero = changed_gguf("glm-tiny", "deepseek2.expert_weights_scale", 0f32).expect("it reads");
    assert_eq!(zero.guesses.len(), 1, "a scale of 0 is none: {:?}", zero.guesses);
    for half in ["key_length_mla", "value_length_mla"] {
        let mut metadata = gguf("glm-tiny");
        metadata.remove(&format!("deepseek2.attention.{half}"));
        refused(ModelConfig::from_gguf(&metadata), &[half]);
    }

    let cases = [
        ("glm-tiny", "scoring_func", "sigmoid"),
        ("glm-tiny", "hidden_act", "silu"),
        ("glm-tiny", "rope_interleave", "true"),
        ("glm-tiny", "n_group", "1"),
        ("glm-tiny", "topk_group", "1"),
        ("glm-tiny", "norm_topk_prob", "true"),
        ("glm-tiny", "routed_scaling_factor", "1.8"),
        ("glm4-moe-gqa", "first_k_dense_replace", "1"),
        ("glm4-moe-gqa", "head_dim", "64"),
        ("glm4-moe-gqa", "num_key_value_heads", "4"),
        ("glm4-moe-gqa", "partial_rotary_factor", "0.5"),
        ("deepseek-v2-groups", "topk_method", "greedy"),
    ];
    for (case, key, value) in cases {
        let mut json = hf(case);
        json["scoring_func"] = "sigmoid".into();
        let object = json.as_object_mut().expect("an object");
        object.remove(key);
        if let Some(rotary) = object.get_mut("rope_parameters").and_then(|section| section.as_object_mut()) {
            rotary.remove(key);
        }
        let config = ModelConfig::from_hf(&json).expect("it reads");
        let found: Vec<_> = config.guesses.iter().map(|guess| (guess.key.as_str(), guess.value.as_str())).collect();
        assert_eq!(found, [(key, value)], "{case}");
    }
}

#[test]
fn dense_architectures_read_as_they_are() {
    let llama = ModelConfig::from_hf(&hf("llama-one-kv")).expect("it reads");
    let want = GqaDims { n_kv_heads: 1, head_dim: 10, qk_norm: Presence::Absent, bias: Presence::Absent };
    assert_eq!((llama.attention, llama.rope.dims), (AttentionConfig::Gqa(want), 10));
    // The rows of its checkpoint are read in the order of GGUF files.
    assert_eq!((llama.rope.style, llama.rope.theta, llama.norm_eps), (RopeStyle::Interleaved, 500.0, 1e-3));
    assert_eq!((llama.n_dense, llama.moe.is_none(), llama.activation), (2, true, Activation::Silu));
    assert_eq!((llama.trained_act, llama.head), (None, Presence::Required));
    assert!(llama.guesses.is_empty(), "{:?}", llama.guesses);

    let bitnet = ModelConfig::from_hf(&hf("bitnet-packed")).expect("it reads");
    assert_eq!((bitnet.rope.style, bitnet.activation), (RopeStyle::Halves, Activation::SquaredRelu));
    assert_eq!((bitnet.trained_act, bitnet.head), (Some(ActMode::A8Token), Presence::Absent));
    assert_eq!(ModelConfig::from_hf(&hf("bitnet-plain")).expect("it reads").trained_act, None);

    let without_all = |case: &str, keys: &[&str]| {
        let mut json = hf(case);
        keys.iter().for_each(|key| drop(json.as_object_mut().expect("an object").remove(*key)));
        ModelConfig::from_hf(&json).expect("the defaults count")
    };
    let keys = ["hidden_act", "rope_parameters", "num_key_value_heads", "head_dim"];
    let llama = without_all("llama-tied-odd", &keys);
    assert_eq!((llama.activation, llama.rope.theta, llama.rope.dims), (Activation::Silu, 1e4, 32));
    assert_eq!(llama.guesses.len(), 4, "{:?}", llama.guesses);
    let bitnet = without_all("bitnet-plain", &keys[..2]);
    assert_eq!((bitnet.activation, bitnet.rope.theta), (Activation::SquaredRelu, 5e5));
}

#[test]
fn variants_of_dense_architectures_are_refused_by_name() {
    refused(changed("llama-tied-odd", &[("attention_bias", json!(true))]), &["`attention_bias`", "llama"]);
    refused(changed("llama-tied-odd", &[("mlp_bias", json!(true))]), &["`mlp_bias`"]);
    refused(
        changed("llama-tied-odd", &[("partial_rotary_factor", json!(0.5))]),
        &["partial_rotary_factor", "whole heads"],
    );
    let llama3 = json!({"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0});
    refused(changed("llama-tied-odd", &[("rope_parameters", llama3)]), &["`llama3`"]);
    refused(changed("mistral-no-window", &[("sliding_window", json!(128))]), &["`sliding_window` = 128"]);
    refused(changed("mistral-no-window", &[("sliding_window", json!("all"))]), &["sliding_window"]);
    assert!(changed("mistral-no-window", &[("sliding_window", json!(512))]).is_ok(), "as long as the context");
    let silent = without("mistral-no-window", "sliding_window").expect("the default is longer than the context");
    assert_eq!((silent.guesses[0].key.as_str(), silent.guesses[0].value.as_str()), ("sliding_window", "4096"));
    let quantized = |changes: &[(&str, Json)]| {
        let mut section = hf("bitnet-packed")["quantization_config"].clone();
        changes.iter().for_each(|(key, value)| section[*key] = value.clone());
        changed("bitnet-packed", &[("quantization_config", section)])
    };
    refused(quantized(&[("use_rms_norm", json!(true))]), &["`use_rms_norm`"]);
    refused(quantized(&[("linear_class", json!("other"))]), &["`linear_class`", "other"]);
    refused(quantized(&[("quantization_mode", json!("late"))]), &["`quantization_mode`", "late"]);
    let online =
        |modules: Json| quantized(&[("quantization_mode", json!("online")), ("modules_to_not_convert", modules)]);
    refused(online(json!(["o_proj"])), &["`modules_to_not_convert`", "o_proj"]);
    assert!(online(json!(["lm_head"])).is_ok());
}
