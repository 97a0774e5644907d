//! Adapters folded into weights: the same model as with the adapter beside it, and a refusal for trits.

use std::path::Path;
use std::sync::Arc;

use gguf_bitnet::{GgufFile, TensorSource, TensorType};
use mla_attention::CacheType;
use moe_runtime::adapters::{AdapterFile, AdapterSet, AdapterSlot, FactorPair, ScaledAdapter};
use moe_runtime::{CraftsmanModel, LoadOptions, ModelFiles, Session, SplitMix64};
use rlm_refine::train::blank_sidecar;
use rlm_refine::{Error, ExportError, export};
use ternary_core::ActMode;

use crate::adapt::student;

/// An addition of rank 2 to `tensors` of a model.
fn adapter(files: &ModelFiles, tensors: &[&str]) -> AdapterFile {
    let mut random = SplitMix64::new(3);
    let mut numbers = |n: usize| -> Vec<f32> { (0..n).map(|_| random.next_f64() as f32 - 0.5).collect() };
    let pair = |name: &&str| {
        let shape = &files.catalog.find(name).unwrap().shape;
        let (stack, [outputs, inputs]) = shape.split_last_chunk().unwrap();
        let (a_shape, b_shape) = ([stack, &[2, *inputs]].concat(), [stack, &[*outputs, 2]].concat());
        let (a, b) = (numbers(a_shape.iter().product()), numbers(b_shape.iter().product()));
        FactorPair { tensor: (*name).to_owned(), a_shape, b_shape, a, b }
    };
    let architecture = files.config.arch.gguf_name().to_owned();
    let model = Some(files.identity(&mut |_, _| {}).unwrap());
    AdapterFile { architecture, model, alpha: 2.0, pairs: tensors.iter().map(pair).collect() }
}

fn logits(files: &ModelFiles, slot: AdapterSlot) -> Vec<f32> {
    let options = LoadOptions { act_mode: Some(ActMode::F32), ..LoadOptions::default() };
    let model = Arc::new(CraftsmanModel::from_files(files, &options).unwrap());
    let mut session = Session::new(model, 32, CacheType::F32).unwrap().with_adapters(slot);
    session.step(&[3, 7, 19, 40, 200], &mut ()).unwrap().to_vec()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_folded_model_is_the_model_with_its_adapter_and_other_tensors_are_copied() {
    let dir = tempfile::tempdir().unwrap();
    let files = student(&dir.path().join("student.gguf"));
    // Attention and head are Q8_0, the experts of layer 3 too.
    let changed = ["blk.1.attn_q_a.weight", "blk.2.attn_output.weight", "blk.3.ffn_up_exps.weight", "output.weight"];
    let adapter = adapter(&files, &changed);
    let (path, out) = (dir.path().join("adapter.gguf"), dir.path().join("folded.gguf"));
    adapter.write(&path, TensorType::F32).unwrap();
    let scaled = [ScaledAdapter { path, scale: 0.5 }];
    let report = export(&files, &scaled, &out, false).unwrap();
    let names: Vec<&str> = report.folded.iter().map(|tensor| &*tensor.name).collect();
    assert_eq!(names.len(), changed.len());
    assert!(changed.iter().all(|name| names.contains(name)));
    assert!(report.folded.iter().all(|t| t.ty == TensorType::Q8_0 && t.relative_mse > 0.0 && t.relative_mse < 1e-4));

    let (old, new) = (files.gguf().unwrap(), GgufFile::open(&out).unwrap());
    assert_eq!(report.output_bytes, new.file_bytes());
    for (index, info) in old.tensors().iter().enumerate() {
        assert_eq!(new.tensors()[index], *info);
        let same = old.bytes(index).unwrap()[..] == new.bytes(index).unwrap()[..];
        assert_eq!(same, !changed.contains(&&*info.name), "{}", info.name);
    }
    let folded = ModelFiles::open(&out).unwrap();
    assert_ne!(folded.identity(&mut |_, _| {}).unwrap(), files.identity(&mut |_, _| {}).unwrap());
    let set = Arc::new(AdapterSet::load(&files, &scaled, &mut || files.identity(&mut |_, _| {})).unwrap());
    let want = logits(&files, AdapterSlot::new(Some(set)));
    let (got, plain) = (logits(&folded, AdapterSlot::default()), logits(&files, AdapterSlot::default()));
    // Q8_0 rounds the sum again, by much less than the adapter changes.
    let (rounding, effect) = (distance(&got, &want), distance(&plain, &want));
    assert!(rounding < 0.25 * effect, "{rounding} of {effect}");
}

#[test]
fn trits_take_no_additions_and_outputs_are_guarded() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("student.gguf");
    let files = student(&source);
    let path = dir.path().join("adapter.gguf");
    let refused = |tensor: &str, out: &Path, force: bool| {
        adapter(&files, &[tensor]).write(&path, TensorType::F32).unwrap();
        export(&files, &[ScaledAdapter::new(&path)], out, force).unwrap_err()
    };
    let out = dir.path().join("out.gguf");
    let error = refused("blk.1.ffn_down_exps.weight", &out, false);
    assert!(matches!(error, Error::Export(ExportError::Type { ty: TensorType::Tq2_0, .. })), "{error}");
    assert!(error.to_string().contains("--adapter"), "{error}");
    assert!(!out.exists(), "nothing is written");
    assert!(matches!(refused("output.weight", &source, true), Error::OutputIsSource { .. }));
    std::fs::write(&out, b"other work").unwrap();
    assert!(refused("output.weight", &out, false).to_string().contains("out.gguf"));
    assert!(matches!(export(&files, &[], &out, true).unwrap_err(), Error::Export(ExportError::NoAdapter)));
    // Nor does a matrix of any type take a sidecar.
    let beside = AdapterFile { pairs: blank_sidecar(&files, 2).unwrap().pairs, ..adapter(&files, &["output.weight"]) };
    beside.write(&path, TensorType::F32).unwrap();
    let error = export(&files, &[ScaledAdapter::new(&path)], &out, true).unwrap_err();
    assert!(matches!(error, Error::Export(ExportError::Sidecar { .. })), "{error}");
    assert!(error.to_string().contains("`blk.0.ffn_sidecar.weight`") && error.to_string().contains("--adapter"));
    assert_eq!(std::fs::read(&out).unwrap(), b"other work");
    let checkpoint = ModelFiles::open(&fixtures::path("craftsman-mini")).unwrap();
    adapter(&checkpoint, &["output.weight"]).write(&path, TensorType::F32).unwrap();
    let error = export(&checkpoint, &[ScaledAdapter::new(&path)], &out, true).unwrap_err();
    assert!(matches!(error, Error::Export(ExportError::NotGguf { .. })), "{error}");
}
