//! Sources and settings that cannot become a student are refused by name and leave no file behind.

use std::fs;
use std::path::Path;

use rlm_refine::{Error, Override, Preset, Recipe, RecipeError};

use crate::sources::{Settings, edited, listing, poke, preset, quantize, stored, write_checkpoint};

const CASE: &str = "goldens/glm-tiny-top4";

fn overridden(texts: &[&str]) -> Settings {
    let overrides = texts.iter().map(|text| Override::parse(text).unwrap()).collect();
    Settings { recipe: Recipe { overrides, ..Recipe::default() }, ..Settings::default() }
}

/// Quantises into an empty directory, which must be empty again after the refusal.
fn refusal(source: &Path, settings: &Settings) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let error = quantize(source, &dir.path().join("student.gguf"), settings).unwrap_err();
    assert!(listing(dir.path()).is_empty(), "{error}: {:?} was left", listing(dir.path()));
    error
}

#[test]
fn weights_that_are_no_numbers_are_named_and_not_propagated() {
    let cases = [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("layers.0.input_layernorm.weight", "blk.0.attn_norm.weight"),
        ("layers.0.self_attn.kv_b_proj.weight", "blk.0.attn_k_b.weight"),
        ("layers.0.self_attn.q_a_proj.weight", "blk.0.attn_q_a.weight"),
        ("layers.0.mlp.up_proj.weight", "blk.0.ffn_up.weight"),
        ("layers.1.mlp.gate.weight", "blk.1.ffn_gate_inp.weight"),
        ("layers.1.mlp.gate.e_score_correction_bias", "blk.1.exp_probs_b.bias"),
        ("layers.1.mlp.experts.7.down_proj.weight", "blk.1.ffn_down_exps.weight"),
        ("layers.1.mlp.shared_experts.gate_proj.weight", "blk.1.ffn_gate_shexp.weight"),
    ];
    for (i, (stored, canonical)) in cases.into_iter().enumerate() {
        let value = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][i % 3];
        let dir = tempfile::tempdir().unwrap();
        let source = edited(dir.path(), CASE, |tensors| drop(poke(tensors, stored, 3, value)));
        let error = refusal(&source, &Settings::default());
        let inner = match &error {
            Error::Gguf(inner) => inner,
            other => panic!("{canonical}: {other}"),
        };
        assert!(
            matches!(inner.root(), gguf_bitnet::Error::Names(gguf_bitnet::NamesError::NotFinite { .. })),
            "{canonical}: {error}"
        );
        let text = error.to_string();
        assert!(text.contains(canonical) && text.contains(source.to_str().unwrap()), "{text}");
    }
}

#[test]
fn weights_beyond_a_type_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let source = edited(dir.path(), CASE, |tensors| drop(poke(tensors, "layers.0.self_attn.o_proj.weight", 256, 1e9)));
    let error = refusal(&source, &preset(Preset::Phase1));
    let text = error.to_string();
    for part in ["blk.0.attn_output.weight", "F16", "element 0", source.to_str().unwrap()] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_refused_source_does_not_touch_the_file_it_would_have_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let source = edited(dir.path(), CASE, |tensors| drop(poke(tensors, "1.mlp.gate.weight", 3, f32::NAN)));
    let out = dir.path().join("student.gguf");
    fs::write(&out, "precious").unwrap();
    quantize(&source, &out, &Settings { force: true, ..Settings::default() }).unwrap_err();
    assert_eq!(fs::read(&out).unwrap(), b"precious");
    assert_eq!(listing(dir.path()), ["source", "student.gguf"]);
}

#[test]
fn overrides_that_cannot_be_are_refused_by_name() {
    for name in ["token_embd.weight", "output_norm.weight", "blk.1.ffn_gate_inp.weight", "blk.1.exp_probs_b.bias"] {
        for ty in ["TQ2_0", "TQ1_0", "BITNET_T158"] {
            let error = refusal(&fixtures::path(CASE), &overridden(&[&format!("{}={ty}", name.replace('.', r"\."))]));
            assert!(
                matches!(&error, Error::Recipe(RecipeError::NeverTernary { tensor }) if tensor == name),
                "{name}: {error}"
            );
        }
    }
    let error = refusal(&fixtures::path("goldens/glm4-moe-gqa"), &overridden(&[r"output\.weight=TQ2_0"]));
    assert!(
        matches!(&error, Error::Recipe(RecipeError::NeverTernary { tensor }) if tensor == "output.weight"),
        "{error}"
    );

    let error = refusal(&fixtures::path(CASE), &overridden(&[r"blk\.0\.attn_k_b\.weight=TQ2_0"]));
    assert!(
        matches!(&error, Error::Recipe(RecipeError::RowBlocks { tensor, cols: 64, .. }) if tensor == "blk.0.attn_k_b.weight"),
        "{error}"
    );
    let error = refusal(&fixtures::path("goldens/odd"), &overridden(&[r"blk\.0\.ffn_up\.weight=Q8_0"]));
    assert!(matches!(error, Error::Recipe(RecipeError::RowBlocks { cols: 72, .. })), "{error}");

    // The last one exists, but a router is always F32.
    for pattern in ["blk.9.ffn_up.weight", "ffn_up", "", "blk.1.ffn_gate_inp.weight"] {
        let error = refusal(&fixtures::path(CASE), &overridden(&[".*attn_q_a.*=Q8_0", &format!("{pattern}=F16")]));
        assert!(matches!(&error, Error::Recipe(RecipeError::UnusedOverride { pattern: p }) if p == pattern), "{error}");
    }
    let parsed: Vec<Result<Override, RecipeError>> =
        ["blk", "(=F16", "x=", "x=IQ2_XXS", "x=Q4_0", "x=99"].map(Override::parse).into();
    for error in parsed {
        let error = error.unwrap_err();
        assert!(matches!(error, RecipeError::Override { .. }), "{error}");
    }
}

#[test]
fn incomplete_and_mis_shaped_models_are_refused_by_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let without = edited(dir.path(), CASE, |tensors| tensors.retain(|t| !t.name.ends_with("o_proj.weight")));
    let text = refusal(&without, &Settings::default()).to_string();
    assert!(text.contains("blk.0.attn_output.weight"), "{text}");

    let cut = edited(dir.path(), CASE, |tensors| {
        let norm = tensors.iter_mut().find(|t| t.name.ends_with("0.input_layernorm.weight")).unwrap();
        norm.shape = vec![128];
        norm.bytes.truncate(256);
    });
    let text = refusal(&cut, &Settings::default()).to_string();
    assert!(text.contains("blk.0.attn_norm.weight"), "{text}");

    let more = edited(dir.path(), CASE, |tensors| {
        let mut stranger = tensors[0].clone();
        stranger.name = "model.layers.0.mystery.weight".to_owned();
        tensors.push(stranger);
    });
    let text = refusal(&more, &Settings::default()).to_string();
    assert!(text.contains("model.layers.0.mystery.weight"), "{text}");
}

#[test]
fn a_student_never_replaces_its_teacher() {
    let dir = tempfile::tempdir().unwrap();
    let (like, source) = (fixtures::path(CASE), dir.path().join("source"));
    write_checkpoint(&source, &like, &stored(&like));
    let force = Settings { force: true, ..Settings::default() };
    let before = fs::read(source.join("model.safetensors")).unwrap();
    for name in ["model.safetensors", "config.json"] {
        let error = quantize(&source, &source.join(name), &force).unwrap_err();
        assert!(matches!(error, Error::OutputIsSource { .. }), "{error}");
    }
    assert!(fs::read(source.join("model.safetensors")).unwrap() == before);

    // A student may lie beside the teacher, and may be replaced there.
    let out = source.join("student.gguf");
    quantize(&source, &out, &Settings::default()).unwrap();
    quantize(&source, &out, &force).unwrap();
    let error = quantize(&out, &source.join("../source/student.gguf"), &force).unwrap_err();
    assert!(matches!(error, Error::OutputIsSource { .. }), "{error}");
}

#[test]
fn outputs_that_are_no_files_are_refused_before_the_source_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let source = fixtures::path(CASE);
    fs::create_dir(dir.path().join("folder")).unwrap();
    let mut outs = vec![dir.path().join("folder"), dir.path().join("no/where.gguf"), dir.path().join("..")];
    if cfg!(unix) {
        outs.push("/dev/null".into());
    }
    for out in outs {
        let mut read = false;
        let force = Settings { force: true, ..Settings::default() };
        let error = crate::sources::quantize_watched(&source, &out, &force, &mut |_, _, _| read = true).unwrap_err();
        let bad = matches!(&error, Error::Gguf(e) if matches!(e.root(), gguf_bitnet::Error::Store(gguf_bitnet::StoreError::BadOutput { .. })));
        assert!(bad && !read, "{error}");
    }
    assert_eq!(listing(dir.path()), ["folder"]);
}
