//! One model in every spelling: the same canonical tensors come out, bit for bit.

use std::path::Path;
use std::sync::Arc;

use crate::support::{ROWS, Tensor, tensor, values, write_safetensors};
use gguf_bitnet::{
    Catalog, Error, Expected, SafetensorsDir, SplitDims, TensorClass, TensorNameMapper, TensorSource, TensorType,
    dequantize, validate,
};
use gguf_bitnet::{NamesError, SourceError};

const HIDDEN: usize = 6;
const FFN: usize = 10;
const MOE: usize = 4;
const EXPERTS: usize = 3;
const HEADS: usize = 2;
const NOPE: usize = 3;
const ROPE: usize = 2;
const V: usize = 5;
const LATENT: usize = 7;
const DIMS: SplitDims = SplitDims { n_heads: HEADS, qk_nope: NOPE, v_head: V, paired: 0 };
const TRUNK: usize = 2;

fn weight(stem: &str, shape: &[usize]) -> Tensor {
    let name = if stem.ends_with(".bias") { stem.to_owned() } else { format!("{stem}.weight") };
    let seed = name.bytes().fold(0usize, |seed, b| (seed * 31 + usize::from(b)) % 65_521);
    tensor(name, shape, values(seed, shape.iter().product()))
}

/// The canonical model: a dense block and one of experts, in the order of writing.
fn canonical() -> Vec<Tensor> {
    let mut all =
        vec![weight("token_embd", &[9, HIDDEN]), weight("output_norm", &[HIDDEN]), weight("output", &[9, HIDDEN])];
    for layer in 0..TRUNK {
        let mut add = |stem: &str, shape: &[usize]| all.push(weight(&format!("blk.{layer}.{stem}"), shape));
        add("attn_norm", &[HIDDEN]);
        add("attn_q_a", &[4, HIDDEN]);
        add("attn_q_a_norm", &[4]);
        add("attn_q_b", &[HEADS * (NOPE + ROPE), 4]);
        add("attn_kv_a_mqa", &[LATENT + ROPE, HIDDEN]);
        add("attn_kv_a_norm", &[LATENT]);
        add("attn_k_b", &[HEADS, LATENT, NOPE]);
        add("attn_v_b", &[HEADS, V, LATENT]);
        add("attn_output", &[HIDDEN, HEADS * V]);
        add("ffn_norm", &[HIDDEN]);
        if layer == 0 {
            add("ffn_gate", &[FFN, HIDDEN]);
            add("ffn_up", &[FFN, HIDDEN]);
            add("ffn_down", &[HIDDEN, FFN]);
        } else {
            add("ffn_gate_inp", &[EXPERTS, HIDDEN]);
            add("exp_probs_b.bias", &[EXPERTS]);
            add("ffn_gate_exps", &[EXPERTS, MOE, HIDDEN]);
            add("ffn_up_exps", &[EXPERTS, MOE, HIDDEN]);
            add("ffn_down_exps", &[EXPERTS, HIDDEN, MOE]);
            add("ffn_gate_shexp", &[MOE, HIDDEN]);
            add("ffn_up_shexp", &[MOE, HIDDEN]);
            add("ffn_down_shexp", &[HIDDEN, MOE]);
        }
    }
    all
}

fn take(tensors: &mut Vec<Tensor>, name: &str) -> Tensor {
    let at = tensors.iter().position(|t| t.name == name).unwrap_or_else(|| panic!("no {name}"));
    tensors.remove(at)
}

/// `[h, c, n]` and `[h, v, c]` to the fused `[h (n + v), c]`.
fn fuse_kv_b(tensors: &mut Vec<Tensor>) {
    for layer in 0..TRUNK {
        let keys = take(tensors, &format!("blk.{layer}.attn_k_b.weight"));
        let vals = take(tensors, &format!("blk.{layer}.attn_v_b.weight"));
        let mut fused = Vec::new();
        for head in 0..HEADS {
            for n in 0..NOPE {
                fused.extend((0..LATENT).map(|c| keys.values[(head * LATENT + c) * NOPE + n]));
            }
            fused.extend(&vals.values[head * V * LATENT..(head + 1) * V * LATENT]);
        }
        tensors.push(tensor(format!("blk.{layer}.attn_kv_b.weight"), &[HEADS * (NOPE + V), LATENT], fused));
    }
}

/// Gate and up stacks to one of twice the rows, gate rows first within each expert.
fn fuse_gate_up(tensors: &mut Vec<Tensor>, name: &str) {
    let gate = take(tensors, "blk.1.ffn_gate_exps.weight");
    let up = take(tensors, "blk.1.ffn_up_exps.weight");
    let n = MOE * HIDDEN;
    let fused = (0..EXPERTS).flat_map(|e| [&gate.values[e * n..(e + 1) * n], &up.values[e * n..(e + 1) * n]].concat());
    tensors.push(tensor(name, &[EXPERTS, 2 * MOE, HIDDEN], fused.collect()));
}

/// Stacks to one tensor per expert, named by `name(projection, expert)`.
fn split_experts(tensors: &mut Vec<Tensor>, name: impl Fn(&str, usize) -> String) {
    for proj in ["gate", "up", "down"] {
        let stack = take(tensors, &format!("blk.1.ffn_{proj}_exps.weight"));
        let n = MOE * HIDDEN;
        for e in (0..EXPERTS).rev() {
            let values = stack.values[e * n..(e + 1) * n].to_vec();
            tensors.push(tensor(name(proj, e), &stack.shape[1..], values));
        }
    }
}

fn mapper() -> TensorNameMapper {
    TensorNameMapper::new(ROWS, DIMS, TRUNK)
}

/// Renames every tensor that has one Hugging Face name; the others must have been renamed before.
fn rename_to_hf(tensors: &mut [Tensor]) {
    for tensor in tensors {
        if tensor.name.starts_with("model.") {
            continue;
        }
        // Both halves of a fused tensor have its name in checkpoints.
        let half = tensor.name.replace("attn_kv_b", "attn_k_b");
        tensor.name = mapper().checkpoint_name(&half, None).unwrap_or_else(|| panic!("{half}"));
    }
}

fn hf_per_expert() -> Vec<Tensor> {
    let mut t = canonical();
    fuse_kv_b(&mut t);
    split_experts(&mut t, |proj, e| format!("model.layers.1.mlp.experts.{e}.{proj}_proj.weight"));
    rename_to_hf(&mut t);
    t
}

fn hf_stacked(fused: Option<&str>) -> Vec<Tensor> {
    let mut t = canonical();
    fuse_kv_b(&mut t);
    if let Some(name) = fused {
        fuse_gate_up(&mut t, name);
    }
    for proj in ["gate", "up", "down"] {
        for tensor in t.iter_mut().filter(|t| t.name == format!("blk.1.ffn_{proj}_exps.weight")) {
            tensor.name = format!("model.layers.1.mlp.experts.{proj}_proj");
        }
    }
    rename_to_hf(&mut t);
    t
}

/// Every spelling of the same model.
fn spellings() -> Vec<(&'static str, Vec<Tensor>)> {
    let with = |edit: &dyn Fn(&mut Vec<Tensor>)| {
        let mut t = canonical();
        edit(&mut t);
        t
    };
    vec![
        ("llama.cpp", canonical()),
        ("llama.cpp, another order", with(&|t| t.reverse())),
        ("llama.cpp, fused kv_b", with(&fuse_kv_b)),
        ("llama.cpp, fused gate and up", with(&|t| fuse_gate_up(t, "blk.1.ffn_gate_up_exps.weight"))),
        ("llama.cpp, experts apart", with(&|t| split_experts(t, |proj, e| format!("blk.1.ffn_{proj}.{e}.weight")))),
        (
            "llama.cpp, the architecture's own name of a norm",
            with(&|t| t.iter_mut().for_each(|t| t.name = mapper().gguf_name(&t.name))),
        ),
        ("Hugging Face, experts apart", hf_per_expert()),
        ("Hugging Face, stacked", hf_stacked(None)),
        ("Hugging Face, fused gate and up", hf_stacked(Some("model.layers.1.mlp.experts.gate_up_proj"))),
        ("Hugging Face, fused as a module", hf_stacked(Some("model.layers.1.mlp.experts.gate_up_proj.weight"))),
        ("Hugging Face, trunk only", {
            let mut t = hf_per_expert();
            t.iter_mut().for_each(|t| t.name = t.name.trim_start_matches("model.").to_owned());
            t
        }),
        ("Hugging Face, dense and shared gate and up fused", {
            let mut t = hf_per_expert();
            for (prefix, rows) in [("model.layers.0.mlp", FFN), ("model.layers.1.mlp.shared_experts", MOE)] {
                let mut fused = take(&mut t, &format!("{prefix}.gate_proj.weight")).values;
                fused.extend(take(&mut t, &format!("{prefix}.up_proj.weight")).values);
                t.push(tensor(format!("{prefix}.gate_up_proj.weight"), &[2 * rows, HIDDEN], fused));
            }
            t
        }),
        ("Hugging Face, each expert's gate and up fused", {
            let mut t = hf_per_expert();
            for e in 0..EXPERTS {
                let prefix = format!("model.layers.1.mlp.experts.{e}");
                let mut fused = take(&mut t, &format!("{prefix}.gate_proj.weight")).values;
                fused.extend(take(&mut t, &format!("{prefix}.up_proj.weight")).values);
                t.push(tensor(format!("{prefix}.gate_up_proj.weight"), &[2 * MOE, HIDDEN], fused));
            }
            t
        }),
    ]
}

fn open(dir: &Path, dtype: &str, tensors: &[Tensor]) -> gguf_bitnet::Result<Catalog> {
    let path = dir.join("model.safetensors");
    write_safetensors(&path, dtype, tensors);
    let source: Arc<dyn TensorSource> = Arc::new(SafetensorsDir::open(&path)?);
    mapper().map(source)
}

fn expected() -> Vec<Expected> {
    let of = |t: Tensor| Expected { name: t.name, shape: t.shape, optional: false };
    canonical().into_iter().map(of).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn every_spelling_gives_the_same_tensors_in_the_same_order() {
    for (spelling, stored) in spellings() {
        for (dtype, ty) in [("F32", TensorType::F32), ("F16", TensorType::F16), ("BF16", TensorType::Bf16)] {
            let dir = tempfile::tempdir().unwrap();
            let catalog = open(dir.path(), dtype, &stored).unwrap();
            assert!(catalog.unmapped().is_empty() && catalog.skipped().is_empty(), "{spelling}: {catalog:?}");
            let report = validate(&catalog, &expected());
            assert!(report.is_exact(), "{spelling}: {report:?}");
            for (want, tensor) in canonical().iter().zip(catalog.tensors()) {
                assert_eq!((&want.name, &want.shape), (&tensor.name, &tensor.shape), "{spelling}");
                assert_eq!(tensor.class, mapper().class(&want.name));
                assert_eq!(catalog.tensor_type(tensor), Some(ty));
                let mut got = vec![f32::NAN; tensor.elements()];
                catalog.read_rows(tensor, 0..tensor.rows(), &mut got).unwrap();
                assert_eq!(bits(&got), bits(&want.values), "{spelling}: {}", want.name);
                let matrix_elements = tensor.matrix_rows() * tensor.cols();
                for (outer, want) in want.values.chunks(matrix_elements).enumerate() {
                    let matrix = catalog.matrix(tensor, outer).unwrap();
                    assert_eq!((matrix.rows, matrix.cols, matrix.ty), (tensor.matrix_rows(), tensor.cols(), ty));
                    let mut got = vec![f32::NAN; matrix_elements];
                    dequantize(matrix.ty, &matrix.bytes, &mut got).unwrap();
                    assert_eq!(bits(&got), bits(want), "{spelling}: {} matrix {outer}", tensor.name);
                }
                catalog.prefetch(tensor);
                catalog.release(tensor);
            }
            let weights: usize = canonical().iter().map(|t| t.values.len()).sum();
            assert_eq!(report.params, weights as u64, "{spelling}");
            assert_eq!(report.bytes, (weights * ty.block_bytes()) as u64, "{spelling}");
            assert_eq!(report.tensors, canonical().len() as u64);
        }
    }
}

#[test]
fn any_run_of_rows_is_the_same_run_of_the_whole() {
    for (spelling, stored) in spellings() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = open(dir.path(), "BF16", &stored).unwrap();
        for want in canonical() {
            let tensor = catalog.find(&want.name).unwrap();
            let (rows, cols) = (tensor.rows(), tensor.cols());
            for start in 0..=rows {
                for end in start..=rows {
                    let mut got = vec![f32::NAN; (end - start) * cols];
                    catalog.read_rows(tensor, start..end, &mut got).unwrap();
                    assert_eq!(bits(&got), bits(&want.values[start * cols..end * cols]), "{spelling}: {}", want.name);
                }
            }
        }
    }
}

#[test]
fn expert_matrices_are_views_of_the_map() {
    for (spelling, stored) in spellings() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = open(dir.path(), "F16", &stored).unwrap();
        for proj in ["gate", "up", "down"] {
            let tensor = catalog.find(&format!("blk.1.ffn_{proj}_exps.weight")).unwrap();
            for expert in 0..EXPERTS {
                let view = catalog.matrix(tensor, expert).unwrap().bytes;
                let copied = tensor.parts.iter().all(|part| {
                    let whole = catalog.source().bytes(part.source).unwrap();
                    !whole.as_ptr_range().contains(&view.as_ptr())
                });
                assert!(!copied, "{spelling}: expert {expert} of {proj} was copied");
            }
        }
    }
}

#[test]
fn rows_and_matrices_that_do_not_exist_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path(), "F32", &hf_per_expert()).unwrap();
    let tensor = catalog.find("blk.1.ffn_up_exps.weight").unwrap();
    let rows = EXPERTS * MOE;
    let mut out = vec![0.0; HIDDEN];
    let fails = |range: std::ops::Range<usize>, out: &mut [f32]| {
        let error = catalog.read_rows(tensor, range, out).unwrap_err();
        assert_eq!(error.tensor(), Some("blk.1.ffn_up_exps.weight"));
        assert!(error.to_string().contains("model.safetensors"), "{error}");
        error
    };
    assert!(matches!(fails(rows..rows + 1, &mut out).root(), Error::Names(NamesError::RowRange { .. })));
    assert!(matches!(fails(usize::MAX - 1..usize::MAX, &mut out).root(), Error::Names(NamesError::RowRange { .. })));
    #[allow(clippy::reversed_empty_ranges, reason = "the reversed range is the defect tested")]
    let reversed = 3..2;
    assert!(matches!(fails(reversed, &mut out).root(), Error::Names(NamesError::RowRange { .. })));
    assert!(matches!(fails(0..2, &mut out).root(), Error::Names(NamesError::BufferLength { .. })));
    let error = catalog.matrix(tensor, EXPERTS).unwrap_err();
    assert!(matches!(error.root(), Error::Names(NamesError::OuterRange { outer: EXPERTS, count: EXPERTS })));
    let matrix = catalog.find("output.weight").unwrap();
    assert!(catalog.matrix(matrix, 0).is_ok() && catalog.matrix(matrix, 1).is_err());
}

#[test]
fn weights_that_are_no_numbers_are_reported_by_tensor_and_row() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (name, at, canonical_name, row) in [
            (
                "model.layers.1.mlp.experts.2.down_proj.weight",
                5 * MOE + 1,
                "blk.1.ffn_down_exps.weight",
                2 * HIDDEN + 5,
            ),
            // A key row of head 1: its transpose has the latent index as row.
            ("model.layers.0.self_attn.kv_b_proj.weight", (NOPE + V) * LATENT + 4, "blk.0.attn_k_b.weight", LATENT + 4),
            ("model.norm.weight", 3, "output_norm.weight", 0),
        ] {
            let mut stored = hf_per_expert();
            stored.iter_mut().find(|t| t.name == name).unwrap().values[at] = bad;
            let dir = tempfile::tempdir().unwrap();
            let catalog = open(dir.path(), "BF16", &stored).unwrap();
            for want in canonical() {
                let tensor = catalog.find(&want.name).unwrap();
                let mut out = vec![0.0; tensor.elements()];
                let read = catalog.read_rows(tensor, 0..tensor.rows(), &mut out);
                if want.name == canonical_name {
                    let error = read.unwrap_err();
                    assert!(
                        matches!(error.root(), Error::Names(NamesError::NotFinite { row: found }) if *found == row),
                        "{error}"
                    );
                    assert_eq!(error.tensor(), Some(canonical_name));
                } else {
                    read.unwrap();
                }
            }
        }
    }
}

/// Writes the tensors as a checkpoint and returns the error of opening it, which must name the file.
fn defect(stored: &[Tensor]) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let error = open(dir.path(), "F32", stored).expect_err("a defect");
    assert!(error.to_string().contains("model.safetensors"), "{error}");
    error
}

#[test]
fn two_tensors_for_one_place_are_refused_by_both_names() {
    let table = [
        (canonical(), weight("blk.0.attn_kv_b", &[HEADS * (NOPE + V), LATENT]), "blk.0.attn_k_b.weight"),
        (canonical(), weight("blk.1.ffn_gate_up_exps", &[EXPERTS, 2 * MOE, HIDDEN]), "blk.1.ffn_gate_exps.weight"),
        (canonical(), weight("blk.1.ffn_up.0", &[MOE, HIDDEN]), "blk.1.ffn_up_exps.weight"),
        (canonical(), weight("blk.1.post_attention_norm", &[HIDDEN]), "blk.1.ffn_norm.weight"),
        (canonical(), weight("model.norm", &[HIDDEN]), "output_norm.weight"),
        (
            hf_per_expert(),
            weight("model.layers.1.mlp.experts.gate_up_proj", &[EXPERTS, 2 * MOE, HIDDEN]),
            "blk.1.ffn_gate_exps.weight",
        ),
        (hf_per_expert(), weight("blk.1.ffn_down.1", &[HIDDEN, MOE]), "blk.1.ffn_down_exps.weight"),
    ];
    for (mut stored, extra, place) in table {
        stored.push(extra.clone());
        let error = defect(&stored);
        assert!(matches!(error.root(), Error::Names(NamesError::NameConflict { .. })), "{error}");
        assert_eq!(error.tensor(), Some(place));
        assert!(error.to_string().contains(&format!("`{}`", extra.name)), "{error}");
    }
}

#[test]
fn experts_with_gaps_or_of_different_shapes_are_refused() {
    let mut stored = hf_per_expert();
    take(&mut stored, "model.layers.1.mlp.experts.1.up_proj.weight");
    let error = defect(&stored);
    assert!(matches!(error.root(), Error::Names(NamesError::ExpertGap { missing: 1, last: 2 })), "{error}");
    assert_eq!(error.tensor(), Some("blk.1.ffn_up_exps.weight"));

    let mut stored = hf_per_expert();
    stored.push(weight("model.layers.1.mlp.experts.4000000000.up_proj", &[MOE, HIDDEN]));
    assert!(matches!(defect(&stored).root(), Error::Names(NamesError::ExpertGap { missing: 3, last: 4_000_000_000 })));

    for shape in [&[HIDDEN, MOE][..], &[MOE * HIDDEN], &[1, MOE, HIDDEN], &[MOE + 1, HIDDEN]] {
        let mut stored = hf_per_expert();
        take(&mut stored, "model.layers.1.mlp.experts.2.up_proj.weight");
        stored.push(weight("model.layers.1.mlp.experts.2.up_proj", shape));
        let error = defect(&stored);
        assert!(matches!(error.root(), Error::Names(NamesError::ExpertShape { expert: 2, .. })), "{shape:?}: {error}");
    }
}

#[test]
fn fused_tensors_that_do_not_divide_are_refused() {
    for shape in [&[HEADS * (NOPE + V) + 1, LATENT][..], &[HEADS * NOPE, LATENT], &[HEADS, NOPE + V, LATENT], &[7]] {
        let mut stored = hf_per_expert();
        take(&mut stored, "model.layers.1.self_attn.kv_b_proj.weight");
        stored.push(weight("model.layers.1.self_attn.kv_b_proj", shape));
        let error = defect(&stored);
        assert!(
            matches!(error.root(), Error::Names(NamesError::KvBShape { n_heads: HEADS, .. })),
            "{shape:?}: {error}"
        );
        assert_eq!(error.tensor(), Some("blk.1.attn_k_b.weight"));
    }
    for shape in [&[EXPERTS, 2 * MOE + 1, HIDDEN][..], &[2 * MOE], &[1, EXPERTS, 2 * MOE, HIDDEN]] {
        let mut stored = hf_stacked(Some("model.layers.1.mlp.experts.gate_up_proj"));
        take(&mut stored, "model.layers.1.mlp.experts.gate_up_proj");
        let mut fused = weight("fused", shape);
        fused.name = "model.layers.1.mlp.experts.gate_up_proj".into();
        stored.push(fused);
        assert!(matches!(defect(&stored).root(), Error::Names(NamesError::GateUpShape { .. })), "{shape:?}");
    }
    // Dimensions of a model without latent attention split nothing.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    write_safetensors(&path, "F32", &hf_per_expert());
    for dims in [
        SplitDims::default(),
        SplitDims { n_heads: usize::MAX, qk_nope: usize::MAX, v_head: 1, paired: 0 },
        SplitDims { n_heads: 2, qk_nope: 8, v_head: 0, paired: 0 },
    ] {
        let source = Arc::new(SafetensorsDir::open(&path).unwrap());
        let error = TensorNameMapper::new(ROWS, dims, TRUNK).map(source).unwrap_err();
        assert!(matches!(error.root(), Error::Names(NamesError::KvBShape { .. })), "{error}");
    }
}

#[test]
fn empty_tensors_are_refused() {
    let mut stored = hf_per_expert();
    take(&mut stored, "model.norm.weight");
    stored.push(weight("model.norm", &[0]));
    let error = defect(&stored);
    assert!(matches!(error.root(), Error::Source(SourceError::ZeroDimension { dim: 0 })), "{error}");
}

#[test]
fn tensors_of_later_layers_are_skipped_and_strangers_are_listed() {
    let mut stored = hf_per_expert();
    stored.push(weight("model.layers.2.eh_proj", &[HIDDEN, 2 * HIDDEN]));
    stored.push(weight("model.layers.2.mlp.experts.1.up_proj", &[MOE, HIDDEN]));
    stored.push(weight("model.layers.2.self_attn.kv_b_proj", &[1, 1]));
    stored.push(weight("model.visual.patch", &[2]));
    stored.push(weight("model.unknown.patch", &[2]));
    stored.push(weight("model.layers.1.self_attn.q_proj.bias", &[3]));
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path(), "F32", &stored).unwrap();
    assert_eq!(catalog.skipped().len(), 4, "three of a later layer, one of another sense");
    assert_eq!(catalog.unmapped(), ["model.unknown.patch.weight"]);

    let report = validate(&catalog, &expected());
    assert_eq!(report.unexpected, ["blk.1.attn_q.bias", "model.unknown.patch.weight"]);
    assert_eq!(report.skipped, catalog.skipped());
    let error = report.ensure_exact().unwrap_err();
    assert!(matches!(error.root(), Error::Names(NamesError::UnexpectedTensors { count: 2, .. })), "{error}");
}

#[test]
fn the_report_says_what_is_missing_and_misshaped_and_counts_the_rest() {
    let mut stored = hf_per_expert();
    take(&mut stored, "lm_head.weight");
    take(&mut stored, "model.layers.0.self_attn.o_proj.weight");
    for proj in ["gate", "up", "down"] {
        take(&mut stored, &format!("model.layers.1.mlp.experts.2.{proj}_proj.weight"));
    }
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path(), "BF16", &stored).unwrap();
    let mut wanted = expected();
    wanted.iter_mut().find(|want| want.name == "output.weight").unwrap().optional = true;
    let report = validate(&catalog, &wanted);
    assert_eq!(report.missing, ["blk.0.attn_output.weight"]);
    let shapes: Vec<_> = report.misshaped.iter().map(|m| (m.name.as_str(), m.expected[0], m.got[0])).collect();
    assert_eq!(
        shapes,
        [
            ("blk.1.ffn_gate_exps.weight", 3, 2),
            ("blk.1.ffn_up_exps.weight", 3, 2),
            ("blk.1.ffn_down_exps.weight", 3, 2)
        ]
    );
    assert!(!report.is_exact());
    let error = report.ensure_exact().unwrap_err();
    assert_eq!(error.tensor(), Some("blk.1.ffn_gate_exps.weight"));
    assert!(error.to_string().contains("[3, 4, 6]") && error.to_string().contains("[2, 4, 6]"), "{error}");

    let experts = report.classes.iter().find(|c| c.class == TensorClass::RoutedExpert).unwrap();
    assert_eq!((experts.ty, experts.tensors, experts.params), (TensorType::Bf16, 3, 3 * 2 * 24));
    assert_eq!(experts.bytes, 2 * experts.params);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["classes"][0]["class"], "embedding");
    assert_eq!(json["classes"][0]["type"], "BF16");
    assert_eq!(json["missing"][0], "blk.0.attn_output.weight");
    let sum: u64 = report.classes.iter().map(|c| c.bytes).sum();
    assert_eq!(sum, report.bytes);
}
