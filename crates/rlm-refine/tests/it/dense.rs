//! Dense models, whose feed-forward parts are the case of one expert: types for narrow rows, and calibration of Llama and
//! BitNet, whose networks have other functions and norms.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use gguf_bitnet::{GgufFile, TensorSource, TensorType};
use moe_runtime::{CraftsmanModel, LoadOptions, ModelFiles};
use rlm_refine::ptq::{Calibration, GptqOptions};
use rlm_refine::{Method, Preset, QuantizeOptions, QuantizeReport, Quantizer, Recipe, Ternary};
use serde_json::{Value, json};
use tl_kernels::Pool;

use crate::calibrated::{text, windows};

/// A golden checkpoint with a tokenizer that makes every byte a token, `<|end|>` being the last.
fn with_bytes_as_tokens(name: &str, to: &Path) {
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixtures::path("goldens").join(name).join(file), to.join(file)).unwrap();
    }
    // The printable characters stand for themselves, the other bytes for characters from U+0100 on.
    let mut next = 0x100;
    let letter = |byte: u8| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        _ => {
            next += 1;
            char::from_u32(next - 1).unwrap()
        }
    };
    let letters: Vec<char> = (0..=255).map(letter).collect();
    let vocab: serde_json::Map<String, Value> =
        letters.iter().enumerate().map(|(i, letter)| (letter.to_string(), json!(i))).collect();
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": [{"id": 256, "content": "<|end|>", "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "ignore_merges": false},
    });
    fs::write(to.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(to.join("tokenizer_config.json"), json!({"eos_token": "<|end|>"}).to_string()).unwrap();
}

fn calibrated(source: &Path, out: &Path, ternary: Ternary) -> QuantizeReport {
    let files = ModelFiles::open(source).unwrap();
    let pool = Pool::new(2).unwrap();
    let calibration = Calibration::new(&files, &pool, &[text("calibration.txt")], &[], windows(1500)).unwrap();
    let recipe = Recipe { preset: Preset::Phase2, ternary, ..Recipe::default() };
    let method = Method::Gptq(GptqOptions { sweeps: 2, kicks: 0, ..GptqOptions::new(calibration) });
    let options = QuantizeOptions { recipe, method, max_memory_bytes: None, allow_zero: false };
    Quantizer::new(&files, options, 2).unwrap().run(&pool, out, true, &mut |_, _, _| {}).unwrap()
}

/// The ternary types of a file.
fn ternary_types(path: &Path) -> BTreeSet<TensorType> {
    GgufFile::open(path).unwrap().tensors().iter().map(|info| info.ty).filter(|ty| ty.is_ternary()).collect()
}

#[test]
fn calibration_lowers_the_errors_of_llama_and_bitnet() {
    for (name, ternary, types) in [
        ("llama-tied-odd", Ternary::Packed(TensorType::Q2_0), [TensorType::Q2_0].as_slice()),
        ("bitnet-plain", Ternary::Packed(TensorType::Q2_0), &[TensorType::Q2_0]),
        ("bitnet-online", Ternary::Preset, &[TensorType::Tq2_0]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (source, out) = (dir.path().join(name), dir.path().join("student.gguf"));
        fs::create_dir(&source).unwrap();
        with_bytes_as_tokens(name, &source);
        let report = calibrated(&source, &out, ternary);
        assert_eq!(ternary_types(&out).into_iter().collect::<Vec<_>>(), types, "{name}");
        let mut errors = [0.0; 2];
        for layer in &report.layers {
            assert_eq!((layer.networks.len(), layer.attention.len()), (1, 4), "{name}: {layer:?}");
            for matrix in layer.matrices() {
                assert!(matrix.error_after <= matrix.error_before, "{name}: {matrix:?}");
                let [before, after] = [matrix.error_before, matrix.error_after].map(Option::unwrap);
                errors = [errors[0] + before, errors[1] + after];
            }
        }
        assert_eq!(report.layers.len(), 2, "{name}");
        if name == "bitnet-online" {
            // Its weights are ternary already: least squares leaves nothing to gain.
            assert!(errors[0] < 1.0, "{errors:?}");
        } else {
            assert!(errors[1] < 0.9 * errors[0], "{name}: {errors:?}");
        }
        let files = ModelFiles::open(&out).unwrap();
        CraftsmanModel::from_files(&files, &LoadOptions::default()).unwrap();
    }
}

#[test]
fn a_dense_model_gets_ternary_feed_forward_parts_where_its_rows_fill_blocks() {
    for (name, preset) in Preset::ALL {
        for (case, wanted) in [("llama-tied-odd", TensorType::Q8_0), ("bitnet-plain", TensorType::Tq2_0)] {
            let files = ModelFiles::open(&fixtures::path("goldens").join(case)).unwrap();
            let recipe = Recipe { preset, ..Recipe::default() };
            let method = Method::Round(ternary_core::Rounding::LeastSquares);
            let options = QuantizeOptions { recipe, method, max_memory_bytes: None, allow_zero: false };
            let quantizer = Quantizer::new(&files, options, 1).unwrap();
            let ty = |end: &str| quantizer.plan().tensors.iter().find(|t| t.name.ends_with(end)).unwrap().assignment.ty;
            let wanted = if (preset, wanted) == (Preset::EightGigabytes, TensorType::Tq2_0) {
                TensorType::Tq1_0
            } else {
                wanted
            };
            assert_eq!(ty("ffn_down.weight"), wanted, "{name}, {case}");
            assert!(!ty("token_embd.weight").is_ternary(), "{name}, {case}");
        }
    }
}
