//! A student holds the rounded weights of its source: the test rounds them once more, tensor by tensor.

use std::path::Path;

use gguf_bitnet::{TensorSource, TensorType, dequantize};
use moe_runtime::ModelFiles;
use rlm_refine::{Override, Preset, Recipe, Ternary};
use ternary_core::{Packing, Rounding, quantize_row};

use crate::sources::{Settings, edited, fuse_experts, poke, preset, quantize};

fn packing(ty: TensorType) -> Option<Packing> {
    match ty {
        TensorType::Tq2_0 => Some(Packing::Tq2_0),
        TensorType::Tq1_0 => Some(Packing::Tq1_0),
        TensorType::BitnetT158 => Some(Packing::BitnetT158),
        _ => None,
    }
}

/// The bytes that `row` must be stored as, or `None` for types that are checked by their error.
fn bytes_of(ty: TensorType, rounding: Rounding, row: &[f32]) -> Option<Vec<u8>> {
    if let Some(packing) = packing(ty) {
        let mut bytes = vec![0; packing.row_bytes(row.len()).unwrap()];
        quantize_row(packing, rounding, row, None, &mut bytes).unwrap();
        return Some(bytes);
    }
    match ty {
        TensorType::F32 => Some(row.iter().flat_map(|v| v.to_le_bytes()).collect()),
        TensorType::F16 => Some(row.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect()),
        TensorType::Bf16 => Some(row.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect()),
        _ => None,
    }
}

/// Largest error of a stored value, as a share of the largest weight within its 32 (Q8_0) or 16 (Q6_K) neighbours.
fn error_bound(ty: TensorType) -> (usize, f32) {
    match ty {
        // Half a step, and the rounding of the scale to F16.
        TensorType::Q8_0 => (32, 0.5 / 127.0 + 1.0 / 2048.0),
        // The scales of groups are themselves rounded, to 1/127 of the block's largest.
        TensorType::Q6K => (256, 0.04),
        other => panic!("{other} needs a check of its own"),
    }
}

/// Compares every row of the student with the source; returns the number of types on disk.
fn check(source: &Path, settings: &Settings) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("student.gguf");
    let report = quantize(source, &out, settings).unwrap();
    let (teacher, student) = (ModelFiles::open(source).unwrap(), ModelFiles::open(&out).unwrap());
    assert_eq!(teacher.catalog.tensors().len(), student.catalog.tensors().len());
    let mut types = std::collections::BTreeSet::new();
    for (theirs, ours) in teacher.catalog.tensors().iter().zip(student.catalog.tensors()) {
        assert_eq!((&theirs.name, &theirs.shape), (&ours.name, &ours.shape));
        let index = ours.parts[0].source;
        let ty = student.catalog.source().tensors()[index].ty;
        types.insert(ty);
        let bytes = student.catalog.source().bytes(index).unwrap();
        let mut row = vec![0.0; theirs.cols()];
        for (r, stored) in bytes.chunks_exact(ty.row_bytes(theirs.cols()).unwrap()).enumerate() {
            teacher.catalog.read_rows(theirs, r..r + 1, &mut row).unwrap();
            if let Some(expected) = bytes_of(ty, settings.rounding, &row) {
                assert!(stored == expected, "{} row {r} ({ty})", theirs.name);
                continue;
            }
            let mut values = vec![0.0; row.len()];
            dequantize(ty, stored, &mut values).unwrap();
            let (group, share) = error_bound(ty);
            for (weights, values) in row.chunks(group).zip(values.chunks(group)) {
                let most = share * weights.iter().fold(0.0f32, |m, w| m.max(w.abs()));
                let worst = weights.iter().zip(values).fold(0.0f32, |m, (w, v)| m.max((w - v).abs()));
                assert!(worst <= most, "{} row {r} ({ty}): {worst} > {most}", theirs.name);
            }
        }
    }
    assert_eq!(report.params, teacher.catalog.tensors().iter().map(|t| t.elements() as u64).sum::<u64>());
    types.len()
}

#[test]
fn students_hold_the_rounded_weights_of_their_source() {
    let dir = tempfile::tempdir().unwrap();
    let ls = |preset| Settings { rounding: Rounding::LeastSquares, ..crate::sources::preset(preset) };
    assert_eq!(check(&fixtures::path("craftsman-mini"), &ls(Preset::Balanced)), 4);
    assert_eq!(check(&fixtures::path("goldens/glm4-moe-gqa"), &preset(Preset::EightGigabytes)), 3);
    assert_eq!(check(&fixtures::path("goldens/glm4-moe-gqa"), &preset(Preset::Phase1)), 3);
    assert_eq!(check(&fixtures::path("goldens/odd"), &preset(Preset::Phase1)), 2);
    assert_eq!(check(&fixtures::path("goldens/no-q-lora"), &preset(Preset::Quality)), 3);
    assert_eq!(check(&fixtures::path("goldens/wide"), &ls(Preset::Phase2)), 4);
    let fused = edited(dir.path(), "goldens/glm-tiny", fuse_experts);
    assert_eq!(check(&fused, &preset(Preset::Quality)), 3);
    let ternary = Ternary::Packed(TensorType::BitnetT158);
    let t158 = Recipe { preset: Preset::Phase2, ternary, ..Recipe::default() };
    assert_eq!(check(&fused, &Settings { recipe: t158, ..Settings::default() }), 4);
}

#[test]
fn fused_experts_make_the_same_student_as_single_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one.gguf"), dir.path().join("two.gguf"));
    quantize(&fixtures::path("goldens/glm-tiny"), &one, &Settings::default()).unwrap();
    quantize(&edited(dir.path(), "goldens/glm-tiny", fuse_experts), &two, &Settings::default()).unwrap();
    let (one, two) = (gguf_bitnet::GgufFile::open(one).unwrap(), gguf_bitnet::GgufFile::open(two).unwrap());
    assert_eq!(one.tensors(), two.tensors());
    for i in 0..one.tensors().len() {
        assert!(one.bytes(i).unwrap()[..] == two.bytes(i).unwrap()[..], "{}", one.tensors()[i].name);
    }
}

#[test]
fn reports_show_the_error_of_storing() {
    let dir = tempfile::tempdir().unwrap();
    let source = fixtures::path("goldens/glm-tiny");
    let errors = |name: &str, rounding| {
        let settings = Settings { rounding, ..preset(Preset::Phase1) };
        let report = quantize(&source, &dir.path().join(name), &settings).unwrap();
        let line = report.types.iter().find(|line| line.ty == TensorType::Tq2_0).unwrap().clone();
        let exact = report.types.iter().find(|line| line.ty == TensorType::F32).unwrap();
        assert_eq!((exact.relative_mse, exact.zeros > 0.5), (0.0, false));
        (line.relative_mse, line.cosine)
    };
    let (absmean, least) = (errors("a", Rounding::AbsMean), errors("b", Rounding::LeastSquares));
    assert!(least.0 < absmean.0 && absmean.0 < 0.3, "{least:?} against {absmean:?}");
    assert!(least.1 > absmean.1 && absmean.1 > 0.8, "{least:?} against {absmean:?}");
}

#[test]
fn a_block_of_zeros_stays_zero_in_every_type() {
    let dir = tempfile::tempdir().unwrap();
    let source = edited(dir.path(), "goldens/glm-tiny", |tensors| {
        for tensor in tensors.iter_mut().filter(|t| t.name.ends_with("_proj.weight")) {
            tensor.bytes[..512].fill(0);
        }
        poke(tensors, "lm_head.weight", 0, 0.0);
    });
    for ty in ["TQ2_0", "TQ1_0", "BITNET_T158", "Q8_0", "Q6_K"] {
        let overrides = vec![Override::parse(&format!(r"blk\.\d+\.ffn_(gate|up|down)(_shexp)?\.weight={ty}")).unwrap()];
        let settings = Settings { recipe: Recipe { overrides, ..Recipe::default() }, ..Settings::default() };
        let out = dir.path().join(ty);
        quantize(&source, &out, &settings).unwrap();
        let files = ModelFiles::open(&out).unwrap();
        let tensor = files.catalog.find("blk.0.ffn_up.weight").unwrap();
        let mut row = vec![1.0; 256];
        files.catalog.read_rows(tensor, 0..1, &mut row).unwrap();
        assert!(row.iter().all(|&v| v == 0.0), "{ty}");
    }
}
