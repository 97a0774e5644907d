//! From tensors to a model: every storage type gives the same numbers, and a tensor that does not fit is refused by name.

use std::path::Path;
use std::sync::Arc;

use gguf_bitnet::{
    GgufFile, GgufWriter, Metadata, TensorClass, TensorSource, TensorType, split_file_name, split_metadata,
};
use mla_attention::{CacheType, CompressedMlaCache, Segments, Sequences};
use moe_runtime::forward::{At, Batch, DecoderLayer, LayerScratch, Taps};
use moe_runtime::models::{expected_tensors, layer_tensors, mapper};
use moe_runtime::{CraftsmanModel, Error, LoadOptions, LoadedBytes, MemoryPlan, ModelFiles};
use ternary_core::ActMode;
use tl_kernels::Pool;

use crate::golden::{case, max_abs, options, read_case, run, session};
use crate::memory_source::MemorySource;

fn open(name: &str) -> ModelFiles {
    ModelFiles::open(&case(name)).expect("the case opens")
}

fn load(files: &ModelFiles, source: MemorySource) -> Result<Arc<CraftsmanModel>, Error> {
    let catalog = mapper(&files.config).map(Arc::new(source))?;
    CraftsmanModel::from_catalog(files.config.clone(), &catalog, &options()).map(Arc::new)
}

fn float_type(class: TensorClass, ty: TensorType) -> TensorType {
    match class {
        TensorClass::Norm | TensorClass::Router | TensorClass::RouterBias | TensorClass::Bias => TensorType::F32,
        _ => ty,
    }
}

#[test]
fn storage_types_that_hold_the_same_values_give_the_same_bits() {
    for name in ["glm-tiny", "glm4-moe-gqa"] {
        let files = open(name);
        let tokens = &read_case(name).tokens[..12];
        let stored = Arc::new(CraftsmanModel::from_files(&files, &options()).expect("it loads"));
        let want = run(&stored, tokens, 64, ());
        // No kernel reads F64, so F64 tensors are dequantised at load.
        for ty in [TensorType::F32, TensorType::F64, TensorType::Bf16] {
            let model = load(&files, MemorySource::copy_of(&files.catalog, |t| float_type(t.class, ty)));
            assert_eq!(run(&model.expect("it loads"), tokens, 64, ()).logits, want.logits, "{name} as {ty:?}");
        }
    }
}

/// Writes tensors of a model under the names that GGUF files have.
fn write_gguf(path: &Path, files: &ModelFiles, metadata: &Metadata, tensors: MemorySource) {
    let (mut infos, data) = tensors.into_parts();
    for info in &mut infos {
        info.name = mapper(&files.config).gguf_name(&info.name);
    }
    let tensors: Vec<_> = infos.into_iter().zip(data).collect();
    GgufWriter::write_file(path, metadata, &tensors).expect("the file is written");
}

#[track_caller]
fn assert_same_bits(name: &str, path: &Path, files: &ModelFiles) {
    let tokens = &read_case(name).tokens[..12];
    let from_gguf = Arc::new(CraftsmanModel::load(path, &options()).expect("it loads"));
    let stored = Arc::new(CraftsmanModel::from_files(files, &options()).expect("it loads"));
    let (got, want) = (run(&from_gguf, tokens, 64, ()), run(&stored, tokens, 64, ()));
    assert!(got.logits == want.logits && got.routing == want.routing, "{name}");
}

#[test]
fn a_gguf_of_the_checkpoint_gives_the_same_bits() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for name in ["glm-tiny", "no-q-lora", "deepseek-v2-groups", "glm4-moe-gqa"] {
        let files = open(name);
        let metadata = files.config.to_gguf_metadata().expect("it can be written");
        let copy = MemorySource::copy_of(&files.catalog, |t| float_type(t.class, TensorType::Bf16));
        let path = dir.path().join(format!("{name}.gguf"));
        write_gguf(&path, &files, &metadata, copy);
        assert_same_bits(name, &path, &files);
    }
}

/// Files from before keys and values were split: one combined `attn_kv_b`, the widths of original heads, experts one by
/// one, a selection bias under its first name, and no key for the router's function where the bias tells it.
#[test]
fn old_files_of_latent_attention_give_the_same_bits() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for name in ["glm-tiny", "no-q-lora", "deepseek-v2-groups", "deepseek-v2-softmax"] {
        let files = open(name);
        let dims = *files.config.attention.as_mla().expect("latent attention");
        let mut metadata = files.config.to_gguf_metadata().expect("it can be written");
        for key in ["key_length_mla", "value_length_mla"] {
            metadata.remove(&format!("deepseek2.attention.{key}"));
        }
        let count = |n: usize| u32::try_from(n).expect("a small number");
        metadata.insert("deepseek2.attention.head_count_kv", count(files.config.n_heads));
        metadata.insert("deepseek2.attention.key_length", count(dims.qk_nope + dims.qk_rope));
        metadata.insert("deepseek2.attention.value_length", count(dims.v_head));
        if name.starts_with("glm") {
            metadata.remove("deepseek2.expert_gating_func");
        }

        let checkpoint = files.catalog.source();
        let mut tensors = MemorySource::copy_of(&files.catalog, |t| float_type(t.class, TensorType::Bf16));
        for layer in 0..files.config.n_layers {
            tensors.remove(&format!("blk.{layer}.attn_k_b.weight"));
            tensors.remove(&format!("blk.{layer}.attn_v_b.weight"));
            let stored = format!("model.layers.{layer}.self_attn.kv_b_proj.weight");
            let index = checkpoint.index_of(&stored).expect("checkpoints combine both");
            let info = &checkpoint.tensors()[index];
            let mut values = vec![0.0; info.elements()];
            gguf_bitnet::dequantize(info.ty, &checkpoint.bytes(index).expect("it reads"), &mut values)
                .expect("it decodes");
            tensors.push(&format!("blk.{layer}.attn_kv_b.weight"), &info.shape, TensorType::Bf16, &values);
            for proj in ["gate", "up", "down"] {
                tensors.take_apart(&format!("blk.{layer}.ffn_{proj}_exps.weight"), &format!("blk.{layer}.ffn_{proj}"));
            }
            tensors.rename(&format!("blk.{layer}.exp_probs_b.bias"), &format!("blk.{layer}.exp_probs_b"));
        }
        let path = dir.path().join(format!("{name}.gguf"));
        write_gguf(&path, &files, &metadata, tensors);
        assert_same_bits(name, &path, &files);
        let opened = ModelFiles::open(&path).expect("it opens");
        let obstacles = opened.obstacles(opened.tokenizer().as_ref().ok());
        assert!(obstacles.is_empty(), "{obstacles:?}");
        assert_eq!(opened.config.guesses.len(), usize::from(name.starts_with("glm")), "{:?}", opened.config.guesses);
    }
}

#[test]
fn a_split_model_holds_its_own_parts_and_no_other_files() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = |stem: &str, no: u16| dir.path().join(split_file_name(stem, no.into(), 2));
    let whole = GgufFile::open(fixtures::path("goldens/ternary-forward/model.gguf")).expect("it opens");
    let n = whole.tensors().len();
    for (no, range) in [(1, 0..n / 2), (2, n / 2..n)] {
        let tensors: Vec<_> = range.map(|i| (whole.tensors()[i].clone(), whole.bytes(i).expect("it reads"))).collect();
        let metadata = split_metadata(whole.metadata(), no, 2, i32::try_from(n).expect("few tensors"));
        for stem in ["mine", "other"] {
            GgufWriter::write_file(&place(stem, no), &metadata, &tensors).expect("it is written");
        }
    }
    let files = ModelFiles::open(&place("mine", 1)).expect("the set opens");
    assert!(files.holds(&place("mine", 1)) && files.holds(&place("mine", 2)));
    assert!(!files.holds(&place("other", 2)), "a file of another set");
    assert!(!files.holds(&dir.path().join("new.gguf")));
    #[cfg(unix)]
    {
        let link = dir.path().join("link.gguf");
        std::os::unix::fs::symlink(place("mine", 2), &link).expect("a link");
        assert!(files.holds(&link));
    }
}

/// A matrix or a norm of zeros among the weights of a model stops the load, and is loaded where the caller allows it.
#[test]
fn a_model_without_weights_is_refused_unless_it_is_allowed() {
    let files = open("glm-tiny");
    let lost = |name: &str| {
        let mut tensors = MemorySource::copy_of(&files.catalog, |t| float_type(t.class, TensorType::F32));
        let shape = files.catalog.find(name).expect("the model has it").shape.clone();
        tensors.remove(name);
        tensors.push(name, &shape, TensorType::F32, &vec![0.0; shape.iter().product()]);
        mapper(&files.config).map(Arc::new(tensors)).expect("it maps")
    };
    let matrices =
        ["blk.1.attn_output.weight", "blk.0.ffn_up.weight", "token_embd.weight", "blk.1.ffn_gate_inp.weight"];
    for name in matrices.into_iter().chain(["blk.1.attn_norm.weight"]) {
        let catalog = lost(name);
        let error = CraftsmanModel::from_catalog(files.config.clone(), &catalog, &options()).map(|_| ());
        let error = error.expect_err("it has no weights").to_string();
        assert!(error.contains(name) && error.contains("zero"), "{error}");
        let allowed = LoadOptions { allow_zero: true, ..options() };
        CraftsmanModel::from_catalog(files.config.clone(), &catalog, &allowed).expect("the caller allows it");
    }
    let bias = lost("blk.1.exp_probs_b.bias");
    CraftsmanModel::from_catalog(files.config.clone(), &bias, &options()).expect("biases may be zero");
}

#[test]
fn ternary_with_f32_activations_equals_the_dequantised_model() {
    let files = ModelFiles::open(&case("ternary-forward").join("model.gguf")).expect("the case opens");
    let tokens = [1, 7, 3, 20, 11];
    let ternary = Arc::new(CraftsmanModel::from_files(&files, &options()).expect("it loads"));
    // A ternary weight is 0 or plus or minus an F16 scale, so F16 holds it exactly.
    let choose = |ty: Option<TensorType>, class| match ty {
        Some(TensorType::Tq1_0 | TensorType::Tq2_0) => TensorType::F16,
        _ => float_type(class, TensorType::F32),
    };
    let dense = MemorySource::copy_of(&files.catalog, |t| choose(files.catalog.tensor_type(t), t.class));
    let dense = load(&files, dense).expect("it loads");
    let (got, want) = (run(&ternary, &tokens, 64, ()), run(&dense, &tokens, 64, ()));
    let (far, size) = (max_abs(&got.logits, &want.logits), want.logits.iter().fold(0f32, |m, x| m.max(x.abs())));
    assert!(far <= 1e-4 * size.max(1.0), "{far} of {size}");
}

#[test]
fn tensors_that_do_not_fit_are_refused_by_name() {
    let files = open("glm-tiny");
    let copy = || MemorySource::copy_of(&files.catalog, |t| float_type(t.class, TensorType::Bf16));
    let refused = |source: MemorySource, words: &[&str]| {
        let message = load(&files, source).expect_err("it must be refused").to_string();
        for word in words {
            assert!(message.contains(word), "`{message}` does not say `{word}`");
        }
    };
    let mut source = copy();
    source.remove("blk.1.ffn_down_exps.weight");
    refused(source, &["blk.1.ffn_down_exps.weight", "memory"]);

    let mut source = copy();
    source.remove("blk.0.attn_output.weight");
    source.push("blk.0.attn_output.weight", &[256, 128], TensorType::F32, &[0.0; 256 * 128]);
    refused(source, &["blk.0.attn_output.weight", "[256, 256]", "[256, 128]"]);

    let mut source = copy();
    source.push("blk.0.attn_q_a.bias", &[256], TensorType::F32, &[1.0; 256]);
    refused(source, &["blk.0.attn_q_a.bias"]);

    let mut source = copy();
    source.remove("blk.0.ffn_norm.weight");
    source.push("blk.0.ffn_norm.weight", &[256], TensorType::F32, &[f32::NAN; 256]);
    refused(source, &["blk.0.ffn_norm.weight"]);

    let mut source = copy();
    source.remove("blk.0.ffn_up.weight");
    source.push("blk.0.ffn_up.weight", &[512, 256], TensorType::F64, &vec![f32::INFINITY; 512 * 256]);
    refused(source, &["blk.0.ffn_up.weight"]);
}

/// Keeps the normed input of the feed-forward part.
struct FfnInput(Vec<f32>);

impl Taps for FfnInput {
    fn ffn_in(&mut self, at: At, x: &[f32]) {
        assert_eq!(at.first, 5);
        self.0 = x.to_vec();
    }
}

#[test]
fn one_layer_without_its_model_does_not_ask_for_the_rest() {
    let files = open("glm-tiny");
    let config = &files.config;
    let mut source = MemorySource::copy_of(&files.catalog, |t| float_type(t.class, TensorType::Bf16));
    for name in ["token_embd.weight", "output.weight", "blk.0.attn_norm.weight"] {
        source.remove(name);
    }
    let catalog = mapper(config).map(Arc::new(source)).expect("the rest maps");
    assert!(DecoderLayer::load(&catalog, config, 0, ActMode::F32).is_err());
    let layer = DecoderLayer::load(&catalog, config, 1, ActMode::F32).expect("layer 1 is whole");

    // Its output from the golden's input is the golden's next state, in pieces or at once.
    let model = Arc::new(CraftsmanModel::from_files(&files, &options()).expect("it loads"));
    let whole = run(&model, &read_case("glm-tiny").tokens, 64, ());
    let (mut x, pool, mut scratch) = (whole.hidden[1].clone(), Pool::serial(), LayerScratch::default());
    let mut cache = CompressedMlaCache::new([layer.cache_shape()], 64, CacheType::F32).expect("a small cache fits");
    let (first, second) = x.split_at_mut(5 * config.hidden);
    let segments = Segments::one(&cache, 5);
    let mut sequences = Sequences { segments: &segments, caches: std::slice::from_mut(&mut cache), layer: 0 };
    layer
        .forward(Batch { pool: &pool, x: first, scratch: &mut scratch, adapter: None }, &mut sequences, &mut ())
        .expect("it runs");
    // The halves of a layer, one after the other, are the layer.
    let segments = Segments::one(&cache, second.len() / config.hidden);
    let mut sequences = Sequences { segments: &segments, caches: std::slice::from_mut(&mut cache), layer: 0 };
    layer
        .attend(Batch { pool: &pool, x: second, scratch: &mut scratch, adapter: None }, &mut sequences, &mut ())
        .expect("it runs");
    let mut input = vec![0.0; config.hidden];
    layer.norm_for_ffn(&second[..config.hidden], &mut input);
    let mut tap = FfnInput(Vec::new());
    layer.feed(Batch { pool: &pool, x: second, scratch: &mut scratch, adapter: None }, 5, &mut tap).expect("it runs");
    assert_eq!(tap.0[..config.hidden], input);
    let mut normed = vec![0.0; x.len()];
    for (row, out) in x.chunks(config.hidden).zip(normed.chunks_mut(config.hidden)) {
        tl_kernels::math::rms_norm(row, model.final_norm(), config.norm_eps, out);
    }
    assert_eq!(normed, whole.hidden[2]);
}

#[test]
fn the_expected_tensors_are_those_of_the_file() {
    for name in fixtures::golden_cases() {
        let files = open(&name);
        let report = files.report();
        assert!(report.is_exact(), "{name}: {report:?}");
        let expected = expected_tensors(&files.config);
        let required = expected.iter().filter(|t| !t.optional).count();
        assert!(required <= files.catalog.tensors().len() && files.catalog.tensors().len() <= expected.len(), "{name}");
        let layers: usize = (0..files.config.n_layers).map(|l| layer_tensors(&files.config, l).len()).sum();
        assert_eq!(expected.iter().filter(|t| t.name.starts_with("blk.")).count(), layers, "{name}");
    }
    let wide = open("wide");
    assert!(!wide.report().skipped.is_empty(), "the MTP tensors are skipped");
}

#[test]
fn a_directory_without_configuration_or_weights_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    assert!(CraftsmanModel::load(dir.path(), &options()).is_err());
    let model = case("glm-eps").join("model.safetensors");
    std::fs::copy(model, dir.path().join("model.safetensors")).expect("the weights are copied");
    let message = CraftsmanModel::load(dir.path(), &options()).expect_err("no config.json").to_string();
    assert!(message.contains("config.json"), "{message}");
}

#[test]
fn the_memory_plan_counts_weights_cache_and_buffers() {
    let files = open("glm-tiny");
    let plan = MemoryPlan::new(&files.config, &files.catalog, 100, CacheType::F16, 64);
    let model = Arc::new(CraftsmanModel::from_files(&files, &options()).expect("it loads"));
    assert_eq!(plan.cache_bytes, 128 * 2 * 2 * 288, "two blocks of 64 positions");
    assert_eq!(plan.cache_bytes, 64 * session(&model, 64).cache().bytes_per_token() as u64);
    let report = files.report();
    let f32_values: u64 = report
        .classes
        .iter()
        .filter(|c| float_type(c.class, TensorType::Bf16) == TensorType::F32)
        .map(|c| c.params)
        .sum();
    // k_b is transposed into BF16: [4 heads][256][64] in both layers.
    assert_eq!(plan.converted_weights_bytes, 4 * f32_values + 2 * 2 * 4 * 256 * 64);
    assert_eq!(plan.mapped_weights_bytes + plan.converted_weights_bytes, 2 * report.params + 2 * f32_values);
    assert!(plan.scratch_bytes > 0);
    plan.check(plan.total_bytes()).expect("exactly enough");
    let message = plan.check(plan.total_bytes() - 1).expect_err("one byte too few").to_string();
    for number in [plan.total_bytes(), plan.total_bytes() - 1, plan.cache_bytes] {
        assert!(message.contains(&number.to_string()), "{message}");
    }
    let longer = MemoryPlan::new(&files.config, &files.catalog, 200, CacheType::F16, 64);
    assert_eq!(longer.total_bytes() - plan.total_bytes(), plan.cache_bytes);
    let experts =
        report.classes.iter().filter(|c| c.class == TensorClass::RoutedExpert).map(|c| 2 * c.params).sum::<u64>();
    let within = plan.with_expert_memory(&files.config, &files.catalog, 1000);
    assert_eq!(plan.mapped_weights_bytes - within.mapped_weights_bytes, experts - 1000);
    assert_eq!(plan.with_expert_memory(&files.config, &files.catalog, u64::MAX), plan);
}

/// Some tied checkpoints store the embedding a second time as `lm_head`; transformers ignores it, and so does this runtime.
#[test]
fn a_tied_checkpoint_may_store_its_head_all_the_same() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = std::fs::read_to_string(case("glm-tiny").join("config.json")).expect("config.json is read");
    let tied = config.replace("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    assert_ne!(config, tied);
    for entry in std::fs::read_dir(case("glm-tiny")).expect("the case is listed") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("a file is copied");
    }
    std::fs::remove_file(dir.path().join("golden.safetensors")).expect("the golden is no part of the model");
    std::fs::write(dir.path().join("config.json"), tied).expect("config.json is written");
    let files = ModelFiles::open(dir.path()).expect("the model opens");
    assert_eq!(files.report().skipped, ["lm_head.weight"]);
    let model = CraftsmanModel::from_files(&files, &options()).expect("it loads");
    assert!(model.head_is_tied());
}

#[test]
fn weights_of_eight_bits_count_as_the_floats_that_they_become() {
    let files = ModelFiles::open(&fixtures::path("goldens/fp8/block")).unwrap();
    let scaled = files.catalog.tensors().iter().filter(|tensor| files.catalog.has_scales(tensor));
    let counted: Vec<(LoadedBytes, u64)> =
        scaled.map(|tensor| (LoadedBytes::of(&files.catalog, tensor), 4 * tensor.elements() as u64)).collect();
    assert!(!counted.is_empty());
    for (bytes, floats) in counted {
        assert_eq!(bytes, LoadedBytes { mapped: 0, converted: floats });
    }
}
