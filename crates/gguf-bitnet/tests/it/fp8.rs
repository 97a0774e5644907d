//! 8-bit floating-point weights and their scales against PyTorch; `fixtures/generators/gen_fp8.py` made the goldens.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gguf_bitnet::{
    Catalog, DefectKind, Error, NamesError, SafetensorsDir, SplitDims, TensorNameMapper, TensorSource, TensorType,
    dequantize, verify,
};
use safetensors::SafeTensors;

use crate::support::{ROWS, defect_name};

const Q_A: &str = "model.layers.0.self_attn.q_a_proj.weight";
const KV_B: &str = "model.layers.0.self_attn.kv_b_proj.weight";
const KV_B_SCALE: &str = "model.layers.0.self_attn.kv_b_proj.weight_scale_inv";

fn catalog(path: &Path) -> Catalog {
    let source = Arc::new(SafetensorsDir::open(path).unwrap());
    TensorNameMapper::new(ROWS, SplitDims { n_heads: 4, qk_nope: 10, v_head: 6, paired: 0 }, 4).map(source).unwrap()
}

#[test]
fn all_codes_decode_as_in_pytorch() {
    let file = fs::read(fixtures::path("goldens/fp8/codes.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&file).unwrap();
    for ty in [TensorType::F8E4M3, TensorType::F8E5M2] {
        let codes = golden.tensor(&format!("{ty}.codes")).unwrap();
        let values = golden.tensor(&format!("{ty}.values")).unwrap();
        let mut ours = [0.0; 256];
        dequantize(ty, codes.data(), &mut ours).unwrap();
        for (code, (ours, theirs)) in ours.iter().zip(values.data().as_chunks().0).enumerate() {
            let theirs = f32::from_le_bytes(*theirs);
            assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{ty} {code:#04x}");
        }
    }
}

/// One scale, one per row, one per block; stacks of experts, single experts, heads that are transposed.
#[test]
fn weights_are_the_products_that_pytorch_computes() {
    let ours = catalog(&fixtures::path("goldens/fp8/matrices"));
    let theirs = catalog(&fixtures::path("goldens/fp8/matrices/values.safetensors"));
    assert!(ours.unmapped().is_empty() && ours.skipped().is_empty(), "{ours:?}");
    assert_eq!(ours.tensors().len(), 17);
    for (tensor, golden) in ours.tensors().iter().zip(theirs.tensors()) {
        assert_eq!((&tensor.name, &tensor.shape), (&golden.name, &golden.shape));
        assert!(ours.has_scales(tensor) && !theirs.has_scales(golden));
        let read = |catalog: &Catalog, tensor, rows: std::ops::Range<usize>| {
            let mut values = vec![0.0; rows.len() * golden.cols()];
            catalog.read_rows(tensor, rows, &mut values).unwrap();
            values
        };
        let all = read(&theirs, golden, 0..golden.rows());
        assert_eq!(read(&ours, tensor, 0..golden.rows()), all, "{}", tensor.name);
        let middle = golden.rows() / 3..golden.rows() - 1;
        let cols = golden.cols();
        assert_eq!(read(&ours, tensor, middle.clone()), all[middle.start * cols..middle.end * cols], "{}", tensor.name);
        for outer in 0..golden.outer() {
            let matrix = ours.matrix(tensor, outer).unwrap();
            assert_eq!(matrix.ty, TensorType::F32);
            assert_eq!(matrix.bytes, theirs.matrix(golden, outer).unwrap().bytes, "{} {outer}", tensor.name);
            assert_eq!(ours.matrix_span(tensor, outer), None, "the stored bytes are not the matrix");
        }
    }
}

/// A copy of the golden checkpoint of matrices in which one element of a tensor has other bytes.
fn poked(dir: &Path, tensor: &str, element: usize, bytes: &[u8]) -> PathBuf {
    let from = fixtures::path("goldens/fp8/matrices");
    fs::copy(from.join("config.json"), dir.join("config.json")).unwrap();
    let mut file = fs::read(from.join("model.safetensors")).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&file).unwrap();
    let at = 8 + header + metadata.info(tensor).unwrap().data_offsets.0 + element * bytes.len();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    fs::write(dir.join("model.safetensors"), file).unwrap();
    dir.to_owned()
}

#[test]
fn scales_that_are_no_positive_numbers_are_refused_and_reported() {
    for (value, kind) in [
        (0.0f32, DefectKind::ScaleNotPositive),
        (-1.0, DefectKind::ScaleNotPositive),
        (f32::NAN, DefectKind::ScaleNotFinite),
        (f32::INFINITY, DefectKind::ScaleNotFinite),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = poked(dir.path(), KV_B_SCALE, 3, &value.to_le_bytes());
        let catalog = catalog(&path);
        let values = catalog.find("blk.0.attn_v_b.weight").unwrap();
        let mut out = vec![0.0; values.elements()];
        let error = catalog.read_rows(values, 0..values.rows(), &mut out).unwrap_err();
        assert!(matches!(error.root(), Error::Names(NamesError::ScaleValue { at: 3, .. })), "{error}");
        let text = error.to_string();
        let named = [&*path.to_string_lossy(), "`blk.0.attn_v_b.weight`", KV_B_SCALE, "fetch"];
        assert!(named.iter().all(|part| text.contains(part)), "{text}");

        let report = verify(&path, &mut |_, _| {}).unwrap();
        let [defect] = &report.defects[..] else { panic!("{:?}", report.defects) };
        assert_eq!((defect.tensor.as_str(), defect.kind, defect.count, defect.first_row), (KV_B_SCALE, kind, 1, 1));
    }
}

#[test]
fn numbers_that_are_not_finite_are_reported() {
    const GATE: &str = "model.layers.0.mlp.gate_proj.weight";
    for (stored, canonical, code, kind) in [
        (Q_A, "blk.0.attn_q_a.weight", 0x7fu8, DefectKind::NaN),
        (Q_A, "blk.0.attn_q_a.weight", 0xff, DefectKind::NaN),
        (GATE, "blk.0.ffn_gate.weight", 0x7c, DefectKind::Infinite),
        (GATE, "blk.0.ffn_gate.weight", 0xfd, DefectKind::NaN),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = poked(dir.path(), stored, 80, &[code]);
        let report = verify(&path, &mut |_, _| {}).unwrap();
        let [defect] = &report.defects[..] else { panic!("{:?}", report.defects) };
        assert_eq!((defect.tensor.as_str(), defect.kind, defect.count, defect.first_row), (stored, kind, 1, 1));
        let catalog = catalog(&path);
        let tensor = catalog.find(canonical).unwrap();
        let error = catalog.read_rows(tensor, 0..tensor.rows(), &mut vec![0.0; tensor.elements()]).unwrap_err();
        assert!(matches!(error.root(), Error::Names(NamesError::NotFinite { row: 1 })), "{error}");
    }
    let clean = verify(&fixtures::path("goldens/fp8/matrices"), &mut |_, _| {}).unwrap();
    assert!(clean.is_valid(), "{:?}", clean.defects);
}

/// Opens the golden checkpoint of matrices after a change of its configuration and of its header's text.
fn refused(config: Option<&str>, rename: (&str, &str)) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    let from = fixtures::path("goldens/fp8/matrices");
    if let Some(config) = config {
        fs::write(dir.path().join("config.json"), config).unwrap();
    }
    let file = fs::read(from.join("model.safetensors")).unwrap();
    let (header, _) = SafeTensors::read_metadata(&file).unwrap();
    let mut text = String::from_utf8(file[8..8 + header].to_vec()).unwrap().replacen(rename.0, rename.1, 1);
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    let mut changed = (text.len() as u64).to_le_bytes().to_vec();
    changed.extend_from_slice(text.as_bytes());
    changed.extend_from_slice(&file[8 + header..]);
    fs::write(dir.path().join("model.safetensors"), changed).unwrap();
    let error = SafetensorsDir::open(dir.path()).map(|_| ()).expect_err("a defect");
    (error.to_string(), defect_name(&error))
}

#[test]
fn defects_of_scales_name_file_and_tensor() {
    let config = fs::read_to_string(fixtures::path("goldens/fp8/matrices/config.json")).unwrap();
    let (text, defect) = refused(Some(&config), (KV_B_SCALE, "model.layers.0.self_attn.kv_b_proj.scale"));
    assert_eq!(defect, "ScaleMissing");
    for part in ["model.safetensors", &format!("`{KV_B}`"), &format!("`{KV_B}_scale`"), "fetch"] {
        assert!(text.contains(part), "{text}");
    }
    // config.json gives the size of a block.
    for (config, rename) in [
        (None, ("", "")),
        (Some("{}"), ("", "")),
        (Some(&*config.replace("16", "8")), ("", "")),
        (Some(&*config), (r#""shape":[4,2]"#, r#""shape":[2,4]"#)),
    ] {
        let (text, defect) = refused(config, rename);
        assert_eq!(defect, "ScaleShape", "{text}");
        assert!(text.contains("model.safetensors") && text.contains("_scale_inv"), "{text}");
    }
    for (config, wanted) in [("{", "ConfigJson"), ("[]", "ConfigJson"), (&config.replace("fp8", "awq"), "Quantization")]
    {
        let (text, defect) = refused(Some(config), ("", ""));
        assert_eq!(defect, wanted, "{text}");
        assert!(text.contains("config.json"), "{text}");
    }
}

#[test]
fn checkpoints_without_eight_bit_weights_never_ask_for_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), "{").unwrap();
    fs::copy(fixtures::path("goldens/odd/model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    assert!(SafetensorsDir::open(dir.path()).unwrap().tensors().len() > 10);
}

/// A file in memory has no configuration beside it, and its errors have no file to name.
#[test]
fn eight_bit_weights_in_memory_need_scales_that_explain_themselves() {
    let open = |tensors: &[(&str, &str, &str, usize)]| {
        let mut end = 0;
        let entries = tensors.iter().map(|(name, dtype, shape, bytes)| {
            end += bytes;
            format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{},{end}]}}"#, end - bytes)
        });
        let header = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
        let data = vec![0; tensors.iter().map(|tensor| tensor.3).sum()];
        let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
        SafetensorsDir::from_bytes(file.into())
    };
    let (weights, one) = (("x.weight", "F8_E4M3", "[4,4]", 16), ("x.weight_scale", "F32", "[1]", 4));
    let checkpoint = open(&[weights, one]).unwrap();
    assert!(checkpoint.scales(checkpoint.index_of("x.weight").unwrap()).is_some());
    for (tensors, wanted) in [
        (&[weights][..], "ScaleMissing"),
        (&[weights, ("x.weight_scale_inv", "F32", "[2,2]", 16)], "ScaleShape"),
        (&[("x.weight", "U8", "[4,4]", 16), one], "UnsupportedDtype"),
    ] {
        let error = open(tensors).map(drop).unwrap_err();
        assert_eq!(defect_name(&error), wanted, "{error}");
        assert!(!error.names_file() && error.to_string().starts_with("tensor `x.weight`: "), "{error}");
    }
    let error = SafetensorsDir::from_bytes(vec![7; 3].into()).map(drop).unwrap_err();
    assert!(!error.names_file() && !error.to_string().starts_with(':'), "{error}");
}
