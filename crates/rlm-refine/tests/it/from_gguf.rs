//! Students of GGUF sources, and the metadata of students.

use std::path::Path;

use gguf_bitnet::{GgufFile, Metadata, TensorClass, TensorSource, TensorType, Value};
use moe_runtime::{ModelFiles, Tokenizer};
use rlm_refine::{Override, Preset, Recipe, Ternary};
use ternary_core::Rounding;

use crate::sources::{Settings, preset, quantize};

fn teacher() -> std::path::PathBuf {
    fixtures::path("craftsman-mini")
}

fn open(path: &Path) -> GgufFile {
    GgufFile::open(path).unwrap()
}

fn dense(overrides: &[&str]) -> Settings {
    let overrides = overrides.iter().map(|text| Override::parse(text).unwrap()).collect();
    let recipe = Recipe { preset: Preset::Phase1, ternary: Ternary::None, overrides, ..Recipe::default() };
    Settings { recipe, ..Settings::default() }
}

#[test]
fn the_way_over_a_lossless_gguf_makes_the_same_student() {
    let dir = tempfile::tempdir().unwrap();
    let [bf16, f16, direct, over_bf16, over_f16] =
        ["bf16.gguf", "f16.gguf", "direct.gguf", "over-bf16.gguf", "over-f16.gguf"].map(|name| dir.path().join(name));
    let settings = Settings { rounding: Rounding::LeastSquares, ..Settings::default() };
    quantize(&teacher(), &bf16, &dense(&[".*=BF16"])).unwrap();
    quantize(&teacher(), &f16, &dense(&[])).unwrap();
    quantize(&teacher(), &direct, &settings).unwrap();
    quantize(&bf16, &over_bf16, &settings).unwrap();
    quantize(&f16, &over_f16, &settings).unwrap();

    let (direct, over_bf16, over_f16) = (open(&direct), open(&over_bf16), open(&over_f16));
    assert_eq!(direct.tensors(), over_bf16.tensors());
    assert_eq!(direct.tensors(), over_f16.tensors());
    for i in 0..direct.tensors().len() {
        assert!(direct.bytes(i).unwrap()[..] == over_bf16.bytes(i).unwrap()[..], "{}", direct.tensors()[i].name);
    }

    // F16 holds all but the smallest of these weights exactly.
    let (source, half) = (ModelFiles::open(&teacher()).unwrap(), ModelFiles::open(&f16).unwrap());
    let mut lossless = 0;
    for (i, tensor) in source.catalog.tensors().iter().enumerate() {
        let [mut a, mut b] = [vec![0.0; tensor.elements()], vec![0.0; tensor.elements()]];
        source.catalog.read_rows(tensor, 0..tensor.rows(), &mut a).unwrap();
        half.catalog.read_rows(&half.catalog.tensors()[i], 0..tensor.rows(), &mut b).unwrap();
        let row_bytes = direct.bytes(i).unwrap().len() / tensor.rows();
        let (one, other) = (direct.bytes(i).unwrap(), over_f16.bytes(i).unwrap());
        for row in 0..tensor.rows() {
            let weights = row * tensor.cols()..(row + 1) * tensor.cols();
            if a[weights.clone()] == b[weights] {
                let bytes = row * row_bytes..(row + 1) * row_bytes;
                assert!(one[bytes.clone()] == other[bytes], "{} row {row}", tensor.name);
                lossless += 1;
            }
        }
    }
    assert!(lossless > 3000, "only {lossless} rows are lossless in F16");
}

#[test]
fn the_tokenizer_and_the_chat_template_of_the_source_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first.gguf"), dir.path().join("second.gguf"));
    quantize(&teacher(), &first, &dense(&[])).unwrap();
    quantize(&first, &second, &preset(Preset::Balanced)).unwrap();

    let from_dir = Tokenizer::from_dir(&teacher()).unwrap();
    let goldens = std::fs::read_to_string(fixtures::path("goldens/tokenizer.json")).unwrap();
    let goldens: Vec<serde_json::Value> = serde_json::from_str(&goldens).unwrap();
    let heldout = std::fs::read_to_string(fixtures::path("texts/heldout.txt")).unwrap();
    let heldout: String = heldout.chars().take(20_000).collect();
    for path in [&first, &second] {
        let file = open(path);
        let tokenizer = Tokenizer::from_gguf(file.metadata()).unwrap();
        for golden in &goldens {
            let ids: Vec<u32> = serde_json::from_value(golden["ids"].clone()).unwrap();
            assert_eq!(tokenizer.encode(golden["text"].as_str().unwrap(), true).unwrap(), ids);
        }
        for special in [true, false] {
            assert_eq!(tokenizer.encode(&heldout, special).unwrap(), from_dir.encode(&heldout, special).unwrap());
        }
        assert!(from_dir.chat_template().is_some());
        assert_eq!(tokenizer.chat_template(), from_dir.chat_template());
        assert_eq!(tokenizer.stop_ids(), from_dir.stop_ids());
        assert_eq!(tokenizer.special_ids(), from_dir.special_ids());
        assert_eq!(tokenizer.raw_prefix(), from_dir.raw_prefix());
        let config = |path: &Path| ModelFiles::open(path).unwrap().config.to_gguf_metadata().unwrap();
        assert_eq!(config(path), config(&teacher()));
    }
}

fn text<'a>(metadata: &'a Metadata, key: &str) -> &'a str {
    metadata.str(key).unwrap().unwrap_or_else(|| panic!("{key} is missing"))
}

#[test]
fn the_metadata_names_architecture_rounding_and_source() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("student.gguf");
    let settings = Settings { rounding: Rounding::LeastSquares, ..Settings::default() };
    let report = quantize(&teacher(), &out, &settings).unwrap();
    let file = open(&out);
    let m = file.metadata();
    let number = |key: &str| m.u32(key).unwrap().unwrap_or_else(|| panic!("{key} is missing"));
    assert_eq!(text(m, "general.architecture"), "deepseek2");
    assert_eq!(text(m, "general.type"), "model");
    assert_eq!(text(m, "general.name"), "craftsman-mini");
    assert_eq!(number("general.quantization_version"), 2);
    // LLAMA_FTYPE_MOSTLY_TQ2_0.
    assert_eq!(number("general.file_type"), 37);
    assert!(text(m, "general.quantized_by").contains(env!("CARGO_PKG_VERSION")));
    assert!(text(m, "general.size_label").starts_with("8x"));
    assert_eq!(number("craftsman.bitnet.version"), 1);
    assert_eq!(text(m, "craftsman.bitnet.weight_encoding"), "ls_ternary");
    assert_eq!(number("craftsman.bitnet.activation_bits"), 8);
    assert_eq!(text(m, "craftsman.bitnet.activation_scales"), "block");
    assert_eq!(text(m, "craftsman.bitnet.router_precision"), "f32");
    assert_eq!(number("craftsman.bitnet.block_size"), 256);
    assert!(m.contains_key("craftsman.bitnet.kernel_hint"));

    let files = ModelFiles::open(&teacher()).unwrap();
    let (mut total, mut active) = (0, 0);
    for tensor in files.catalog.tensors() {
        let n = tensor.elements() as u64;
        total += n;
        active += match tensor.class {
            TensorClass::RoutedExpert => n / 8 * 2,
            TensorClass::Embedding => 0,
            _ => n,
        };
    }
    assert_eq!(m.get("craftsman.moe.total_params"), Some(&Value::U64(total)));
    assert_eq!(m.get("craftsman.moe.active_params"), Some(&Value::U64(active)));
    assert_eq!((number("craftsman.moe.num_experts"), number("craftsman.moe.active_experts")), (8, 2));

    assert_eq!(text(m, "craftsman.provenance.tool_version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(text(m, "craftsman.provenance.recipe"), "balanced");
    assert_eq!(text(m, "craftsman.provenance.source_blake3"), report.source_blake3);
    let source = gguf_bitnet::verify(&teacher(), &mut |_, _| {}).unwrap();
    assert_eq!(report.source_blake3, source.identity);
}

#[test]
fn the_file_type_is_that_of_most_weights_and_dense_files_claim_nothing_ternary() {
    let dir = tempfile::tempdir().unwrap();
    let source = fixtures::path("goldens/glm4-moe-gqa");
    let of = |name: &str, settings: &Settings| {
        let out = dir.path().join(name);
        quantize(&source, &out, settings).unwrap();
        open(&out)
    };
    let file_type = |file: &GgufFile| file.metadata().u32("general.file_type").unwrap().unwrap();
    let tq1_0 = Recipe { preset: Preset::Phase2, ternary: Ternary::Packed(TensorType::Tq1_0), ..Recipe::default() };
    assert_eq!(file_type(&of("a", &Settings { recipe: tq1_0, ..Settings::default() })), 36);
    let absmean = of("b", &preset(Preset::Phase2));
    assert_eq!((file_type(&absmean), text(absmean.metadata(), "general.architecture")), (37, "glm4moe"));
    assert_eq!(text(absmean.metadata(), "craftsman.bitnet.weight_encoding"), "absmean_ternary");
    let f16 = of("c", &dense(&[]));
    assert_eq!(file_type(&f16), 1);
    assert!(!f16.metadata().iter().any(|(key, _)| key.starts_with("craftsman.bitnet.")));
    assert!(f16.metadata().contains_key("craftsman.provenance.source_blake3"));
    assert_eq!(file_type(&of("d", &dense(&[".*=Q8_0"]))), 7);
    assert_eq!(file_type(&of("e", &dense(&[".*=BF16"]))), 32);
    assert!(f16.tensors().iter().all(|info| matches!(info.ty, TensorType::F16 | TensorType::F32)));
}

#[test]
fn a_student_of_a_student_does_not_inherit_claims_about_weights() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first.gguf"), dir.path().join("second.gguf"));
    let source = fixtures::path("goldens/glm4-moe-gqa");
    let first_report = quantize(&source, &first, &preset(Preset::Balanced)).unwrap();
    let second_report = quantize(&first, &second, &dense(&[])).unwrap();
    assert_ne!(first_report.source_blake3, second_report.source_blake3);
    let file = open(&second);
    assert!(!file.metadata().contains_key("craftsman.bitnet.version"), "the weights are F16 now");
    assert_eq!(text(file.metadata(), "craftsman.provenance.recipe"), "phase1 ternary=none");
    assert_eq!(text(file.metadata(), "general.name"), "glm4-moe-gqa");
    let identity = gguf_bitnet::verify(&first, &mut |_, _| {}).unwrap().identity;
    assert_eq!(text(file.metadata(), "craftsman.provenance.source_blake3"), identity);
}
