//! The layer filter and the recipes, proved by the types on disk.

use std::path::{Path, PathBuf};

use TensorType::{BitnetT158, F16, F32, Q6K, Q8_0, Tq1_0, Tq2_0};
use gguf_bitnet::{GgufFile, TensorSource, TensorType};
use moe_runtime::ModelFiles;
use rlm_refine::{Method, Override, Preset, QuantizeOptions, Quantizer, Recipe, Ternary};
use ternary_core::Rounding;

use crate::sources::{Settings, edited, fuse_experts, quantize};

const TERNARY: [(&str, Ternary); 5] = [
    ("preset", Ternary::Preset),
    ("tq2_0", Ternary::Packed(Tq2_0)),
    ("tq1_0", Ternary::Packed(Tq1_0)),
    ("bitnet-t158", Ternary::Packed(BitnetT158)),
    ("none", Ternary::None),
];

/// The table of presets once more, independent of the recipe: `(routed, shared, dense, attention, k_b and v_b, ends)`.
fn table(preset: Preset) -> [TensorType; 6] {
    match preset {
        Preset::Quality => [Tq2_0, Q8_0, Q8_0, Q8_0, Q8_0, Q8_0],
        Preset::Balanced => [Tq2_0, Q6K, Q6K, Q6K, Q6K, Q6K],
        Preset::EightGigabytes => [Tq1_0, Q6K, Q6K, Q6K, Q6K, Q6K],
        Preset::Phase1 => [Tq2_0, Tq2_0, F16, F16, F16, F16],
        Preset::Phase2 => [Tq2_0, Tq2_0, Tq2_0, Tq2_0, Q8_0, F16],
    }
}

/// The type that a tensor on disk must have, in a model with `experts` or a dense one.
fn wanted(preset: Preset, ternary: Ternary, experts: bool, name: &str, shape: &[usize]) -> TensorType {
    let [routed, shared, dense, attention, latent, ends] = table(preset);
    // The feed-forward part of a dense model is its one expert.
    let dense = if experts { dense } else { routed };
    let is = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    if shape.len() == 1 || is(&["ffn_gate_inp", "exp_probs_b", "norm"]) {
        return F32;
    }
    let by_preset = match name {
        _ if is(&["_exps."]) => routed,
        _ if is(&["_shexp."]) => shared,
        _ if is(&["ffn_gate.", "ffn_up.", "ffn_down."]) => dense,
        _ if is(&["attn_k_b.", "attn_v_b."]) => latent,
        _ if is(&["attn_"]) => attention,
        "token_embd.weight" | "output.weight" => ends,
        other => panic!("{other} is no tensor of these models"),
    };
    let chosen = match ternary {
        Ternary::None => F16,
        Ternary::Packed(ty) if matches!(by_preset, Tq1_0 | Tq2_0) => ty,
        _ => by_preset,
    };
    let cols = shape[shape.len() - 1];
    let block = if chosen == F16 {
        1
    } else if chosen == Q8_0 {
        32
    } else {
        256
    };
    match cols {
        _ if cols.is_multiple_of(block) => chosen,
        _ if cols.is_multiple_of(32) => Q8_0,
        _ => F16,
    }
}

/// Quantises and compares every type on disk; returns how many tensors are ternary.
fn check(source: &Path, preset: Preset, ternary: Ternary) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("student.gguf");
    let recipe = Recipe { preset, ternary, ..Recipe::default() };
    quantize(source, &out, &Settings { recipe, ..Settings::default() }).unwrap();
    let file = GgufFile::open(&out).unwrap();
    let experts = file.tensors().iter().any(|info| info.name.contains("_exps."));
    for info in file.tensors() {
        assert_eq!(
            info.ty,
            wanted(preset, ternary, experts, &info.name, &info.shape),
            "{}: {}",
            source.display(),
            info.name
        );
    }
    // The file has every tensor that the loader of this architecture expects.
    ModelFiles::open(&out).unwrap().report().ensure_exact().unwrap();
    file.tensors().iter().filter(|info| info.ty.is_ternary()).count()
}

#[test]
fn every_preset_and_every_ternary_type_gives_exactly_the_planned_types_on_disk() {
    let source = fixtures::path("goldens/glm4-moe-gqa");
    for (name, preset) in Preset::ALL {
        assert!(check(&source, preset, Ternary::Preset) > 0, "{name} leaves experts dense");
    }
    for (name, ternary) in TERNARY {
        assert_eq!(check(&source, Preset::Phase2, ternary) > 0, name != "none", "{name}");
    }
    // Rows that fill no block: nothing can be ternary there, with any preset and ternary type.
    for case in ["goldens/odd", "goldens/no-q-lora"] {
        assert_eq!(check(&fixtures::path(case), Preset::Phase2, Ternary::Preset), 0, "{case}");
        assert_eq!(check(&fixtures::path(case), Preset::Balanced, Ternary::Packed(Tq1_0)), 0, "{case}");
    }
}

#[test]
fn every_pair_of_preset_and_ternary_type_is_planned_as_the_table_says() {
    for case in fixtures::golden_cases().into_iter().filter(|case| case != "ternary-forward") {
        let files = ModelFiles::open(&fixtures::path(format!("goldens/{case}"))).unwrap();
        for (preset_name, preset) in Preset::ALL {
            for (name, ternary) in TERNARY {
                let recipe = Recipe { preset, ternary, ..Recipe::default() };
                let options = QuantizeOptions {
                    recipe,
                    method: Method::Round(Rounding::AbsMean),
                    max_memory_bytes: None,
                    allow_zero: false,
                };
                let quantizer = Quantizer::new(&files, options, 1).unwrap();
                let tensors = &quantizer.plan().tensors;
                let experts = tensors.iter().any(|tensor| tensor.name.contains("_exps."));
                for tensor in tensors {
                    let wanted = wanted(preset, ternary, experts, &tensor.name, &tensor.shape);
                    assert_eq!(tensor.assignment.ty, wanted, "{case}, {preset_name}, {name}: {}", tensor.name);
                }
            }
        }
    }
}

#[test]
fn other_families_and_storages_give_the_planned_types_too() {
    let dir = tempfile::tempdir().unwrap();
    let sources: [PathBuf; 5] = [
        fixtures::path("craftsman-mini"),
        fixtures::path("goldens/glm-tiny-top4"),
        fixtures::path("goldens/deepseek-v2-softmax"),
        fixtures::path("goldens/wide"),
        edited(dir.path(), "goldens/glm-tiny", fuse_experts),
    ];
    for source in sources {
        assert!(check(&source, Preset::Phase2, Ternary::Packed(Tq1_0)) > 0);
    }
}

#[test]
fn overrides_reach_the_disk_and_the_last_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("student.gguf");
    let overrides = [r"blk\..*_exps\.weight=Q8_0", r"blk\.1\.ffn_down_exps\.weight=TQ1_0", r"token_embd\.weight=BF16"];
    let recipe = Recipe {
        preset: Preset::Quality,
        overrides: overrides.iter().map(|text| Override::parse(text).unwrap()).collect(),
        ..Recipe::default()
    };
    quantize(&fixtures::path("goldens/glm-tiny"), &out, &Settings { recipe, ..Settings::default() }).unwrap();
    let file = GgufFile::open(&out).unwrap();
    let ty = |name: &str| file.tensors()[file.index_of(name).unwrap()].ty;
    assert_eq!(ty("blk.1.ffn_up_exps.weight"), Q8_0);
    assert_eq!(ty("blk.1.ffn_down_exps.weight"), Tq1_0);
    assert_eq!(ty("blk.1.ffn_up_shexp.weight"), Q8_0);
    assert_eq!(ty("token_embd.weight"), TensorType::Bf16);
    assert_eq!(ty("blk.1.ffn_gate_inp.weight"), F32);
}
