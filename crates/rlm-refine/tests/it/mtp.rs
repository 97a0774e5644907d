//! Students that keep the MTP block of their source, and students that leave it out.

use std::path::Path;
use std::sync::Arc;

use gguf_bitnet::{GgufFile, TensorSource, TensorType};
use mla_attention::CacheType;
use moe_runtime::{CraftsmanModel, Drafter, LoadOptions, ModelFiles, MtpDrafter, SplitMix64};
use rlm_refine::synth::{Shape, SyntheticModel};
use rlm_refine::{Method, QuantizeOptions, Quantizer, Recipe, Ternary};
use ternary_core::{ActMode, Rounding};
use tl_kernels::Pool;

fn quantize(files: &ModelFiles, out: &Path, recipe: Recipe) {
    let method = Method::Round(Rounding::LeastSquares);
    let options = QuantizeOptions { recipe, method, max_memory_bytes: None, allow_zero: false };
    let quantizer = Quantizer::new(files, options, 1).unwrap();
    quantizer.run(&Pool::serial(), out, false, &mut |_, _, _| {}).unwrap();
}

/// The guesses of the block of the model at `path`, from states and tokens of a seed.
fn drafts(path: &Path) -> Vec<Vec<u32>> {
    let files = ModelFiles::open(path).and_then(|files| files.with_mtp()).unwrap();
    let options = LoadOptions { act_mode: Some(ActMode::F32), ..LoadOptions::default() };
    let model = Arc::new(CraftsmanModel::from_files(&files, &options).unwrap());
    let (mut rng, config) = (SplitMix64::new(3), model.config());
    let tokens: Vec<u32> = (0..60).map(|_| u32::try_from(rng.next_u64() % config.vocab as u64).unwrap()).collect();
    let hidden: Vec<f32> = (0..60 * config.hidden).map(|_| rng.next_f64() as f32 * 4.0 - 2.0).collect();
    let mut drafter = MtpDrafter::new(model.clone(), 64, CacheType::F32, 0.1).unwrap();
    let draft = |n: usize| {
        drafter.begin();
        drafter.observe(&tokens[..n], 0, &hidden[..(n - 1) * model.config().hidden]);
        let mut draft = Vec::new();
        drafter.draft(&tokens[..n], 4, &mut draft);
        draft
    };
    (10..60).map(draft).collect()
}

#[test]
fn a_student_has_the_block_where_it_is_asked_for_and_its_guesses() {
    let dir = tempfile::tempdir().unwrap();
    for (case, own) in [("own", 3), ("shared", 0)] {
        let source = fixtures::path(format!("goldens/mtp/{case}"));
        let [plain, kept] = ["plain", "kept"].map(|name| dir.path().join(format!("{case}-{name}.gguf")));
        // The weights are F16, so that a student in F16 has the same.
        let recipe = Recipe { ternary: Ternary::None, ..Recipe::default() };
        quantize(&ModelFiles::open(&source).unwrap(), &plain, recipe.clone());
        quantize(&ModelFiles::open(&source).and_then(|files| files.with_mtp()).unwrap(), &kept, recipe);

        let facts = |path: &Path| {
            let file = GgufFile::open(path).unwrap();
            let number = |key: &str| file.metadata().u32(&format!("deepseek2.{key}")).unwrap();
            let block = file.tensors().iter().filter(|info| info.name.starts_with("blk.2.")).count();
            (number("block_count"), number("nextn_predict_layers"), block)
        };
        let layer = GgufFile::open(&plain).unwrap();
        let layer = layer.tensors().iter().filter(|info| info.name.starts_with("blk.1.")).count();
        assert_eq!(facts(&plain), (Some(2), None, 0));
        assert_eq!(facts(&kept), (Some(3), Some(1), layer + 3 + own));
        let file = GgufFile::open(&kept).unwrap();
        let projection = &file.tensors()[file.index_of("blk.2.nextn.eh_proj.weight").unwrap()];
        assert_eq!((projection.shape.as_slice(), projection.ty), (&[48, 96][..], TensorType::F16));

        // Plain decoding reads the same model from both.
        let files = ModelFiles::open(&kept).unwrap();
        assert_eq!((files.config.n_layers, files.config.n_mtp), (2, 1));
        assert!(files.report().is_exact() && files.report().skipped.len() == layer + 3 + own);
        assert_eq!(files.report().params, ModelFiles::open(&plain).unwrap().report().params);
        assert!(ModelFiles::open(&plain).unwrap().with_mtp().is_err());
        let guesses = drafts(&source);
        assert_eq!(drafts(&kept), guesses, "{case}");
        assert!(guesses.iter().all(|draft| !draft.is_empty()));
    }
}

#[test]
fn a_synthetic_model_has_the_block_of_its_shape_and_no_preset_makes_its_projection_ternary() {
    let dir = tempfile::tempdir().unwrap();
    let mut shape = Shape::open("mini", Some(2)).unwrap();
    shape.json["num_nextn_predict_layers"] = 1.into();
    let file = dir.path().join("shape.json");
    std::fs::write(&file, shape.json.to_string()).unwrap();
    let shape = Shape::open(file.to_str().unwrap(), None).unwrap();
    let model = SyntheticModel { shape, seed: 1, tokenizer: None };
    for (name, preset) in rlm_refine::Preset::ALL {
        let out = dir.path().join(format!("{name}.gguf"));
        let recipe = Recipe { preset, ..Recipe::default() };
        model.write_gguf(&recipe, &Pool::serial(), &out, false, &mut |_, _| {}).unwrap();
        let gguf = GgufFile::open(&out).unwrap();
        let ty = |name: &str| gguf.tensors()[gguf.index_of(name).unwrap()].ty;
        assert!(ty("blk.2.ffn_up_exps.weight").is_ternary(), "{name}");
        assert!(!ty("blk.2.nextn.eh_proj.weight").is_ternary(), "{name}");
        assert_eq!(ty("blk.2.nextn.enorm.weight"), TensorType::F32, "{name}");
        assert_eq!(drafts(&out).len(), 50);
    }
    let checkpoint = dir.path().join("checkpoint");
    model.write_checkpoint(&Pool::serial(), &checkpoint, &mut |_, _| {}).unwrap();
    assert!(ModelFiles::open(&checkpoint).and_then(|files| files.with_mtp()).unwrap().report().is_exact());
}
