//! Runs that are refused before they start.

use std::path::{Path, PathBuf};

use gguf_bitnet::{Array, GgufFile, GgufWriter, TensorInfo, TensorSource, TensorType, Value};
use moe_runtime::ModelFiles;
use rlm_refine::synth::{Shape, SyntheticModel};
use rlm_refine::train::{Group, Refiner, RouterLabels, RouterMethod, TrainModel, TrainOptions, repair_routers};
use ternary_core::Bytes;
use tl_kernels::Pool;

use super::{Pair, options, pair, quantized, run};
use crate::students::student;

#[test]
fn a_log_that_would_replace_a_model_or_the_output_is_refused() {
    let pair = pair();
    let dir = tempfile::tempdir().unwrap();
    let student = ModelFiles::open(&pair.student).unwrap();
    let out = dir.path().join("refined.gguf");
    let pool = Pool::serial();
    let before = std::fs::read(&pair.student).unwrap();
    // The curve of `refined.jsonl` would lie at `refined.svg`.
    let curve = dir.path().join("refined.svg");
    for (log, out) in [(&pair.student, &out), (&out, &out), (&curve, &out), (&dir.path().join("refined.jsonl"), &curve)]
    {
        let refiner = Refiner::new(&student, &pair.teacher, &pair.calibration, options(), &pool);
        let error = refiner.run(out, true, Some(log), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("choose another name for the log"), "{error}");
    }
    assert!(std::fs::read(&pair.student).unwrap() == before);
}

/// A copy of a student whose tensor `name` has another type, with zeros as its bytes.
fn with_type(student: &Path, name: &str, ty: TensorType) -> PathBuf {
    let file = GgufFile::open(student).unwrap();
    let tensors = file.tensors().iter().enumerate().map(|(i, info)| {
        if info.name != name {
            return (info.clone(), file.bytes(i).unwrap());
        }
        let bytes = ty.tensor_bytes(&info.shape).unwrap();
        (TensorInfo { ty, bytes, ..info.clone() }, Bytes::from(vec![0; usize::try_from(bytes).unwrap()]))
    });
    let out = student.with_extension(format!("{}.gguf", ty.name()));
    GgufWriter::write_file(&out, file.metadata(), &tensors.collect::<Vec<_>>()).unwrap();
    out
}

#[test]
fn types_that_are_not_written_are_refused_before_the_job_starts() {
    let dir = tempfile::tempdir().unwrap();
    let pair = pair();
    let i2_s = ModelFiles::open(&fixtures::path("goldens/bitnet-i2s/model.gguf")).unwrap();
    let q4_0 = ModelFiles::open(&with_type(&pair.student, "output.weight", TensorType::Q4_0)).unwrap();
    let cases = [
        (&i2_s, &i2_s, Group::Scales, "I2_S"),
        (&i2_s, &i2_s, Group::LatentTrits, "I2_S"),
        (&q4_0, &pair.teacher, Group::Head, "read but not written"),
    ];
    for (student, teacher, group, expected) in cases {
        let out = dir.path().join("refined.gguf");
        let options = TrainOptions { groups: vec![group], ..options() };
        let pool = Pool::serial();
        let refiner = Refiner::new(student, teacher, &pair.calibration, options, &pool);
        let error = refiner.run(&out, false, None, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("--train"), "{error}");
        assert!(!out.with_extension("gguf.partial").exists());
    }
}

#[test]
fn routers_of_types_that_no_repair_writes_are_refused_before_the_job_starts() {
    let dir = tempfile::tempdir().unwrap();
    let pair = pair();
    let out = dir.path().join("refined.gguf");
    let pool = Pool::serial();
    let teacher = TrainModel::new(&pair.teacher, &[], &pool).unwrap();
    let windows = pair.calibration.windows();
    for ty in [TensorType::Q4_0, TensorType::Tq2_0] {
        let student = ModelFiles::open(&with_type(&pair.student, "blk.1.ffn_gate_inp.weight", ty)).unwrap();
        let options = TrainOptions { repair: Some(RouterMethod::Ridge), groups: vec![Group::Norms], ..options() };
        let refiner = Refiner::new(&student, &pair.teacher, &pair.calibration, options, &pool);
        let error = refiner.run(&out, false, None, &mut |_| panic!("nothing is read")).unwrap_err().to_string();
        assert!(error.contains("`blk.1.ffn_gate_inp.weight`") && error.contains(ty.name()), "{error}");
        assert!(error.contains("--repair-routers") && !out.with_extension("gguf.partial").exists(), "{error}");
        let mut model = TrainModel::new(&student, &[], &pool).unwrap();
        let windows = [&windows[..1], &windows[1..2]];
        let repaired = repair_routers(&mut model, &teacher, windows, RouterMethod::Ridge, RouterLabels::Teacher);
        assert_eq!(repaired.unwrap_err().to_string(), error);
    }
}

#[test]
fn a_teacher_that_chooses_another_number_of_experts_is_refused() {
    let pair = pair();
    let dir = tempfile::tempdir().unwrap();
    let file = GgufFile::open(&pair.student).unwrap();
    let mut metadata = file.metadata().clone();
    let key = metadata.iter().map(|(key, _)| key.to_owned()).find(|key| key.ends_with(".expert_used_count")).unwrap();
    metadata.insert(&key, 1u32);
    let tensors = file.tensors().iter().enumerate().map(|(i, info)| (info.clone(), file.bytes(i).unwrap()));
    let other = dir.path().join("other.gguf");
    GgufWriter::write_file(&other, &metadata, &tensors.collect::<Vec<_>>()).unwrap();
    let other = Pair { teacher: ModelFiles::open(&other).unwrap(), ..pair };
    let error = run(&other, options(), &dir.path().join("refined.gguf"), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("differ in number of experts per token: 1 and 2"), "{error}");
}

#[test]
fn a_teacher_with_another_meaning_of_a_token_is_refused() {
    let pair = pair();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("refined.gguf");
    let file = GgufFile::open(&pair.student).unwrap();
    let mut metadata = file.metadata().clone();
    let Some(Array::String(tokens)) = metadata.array("tokenizer.ggml.tokens").unwrap() else { panic!("a vocabulary") };
    let mut tokens = tokens.clone();
    tokens.swap(700, 701);
    metadata.insert("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)));
    let tensors = file.tensors().iter().enumerate().map(|(i, info)| (info.clone(), file.bytes(i).unwrap()));
    let other = dir.path().join("other.gguf");
    GgufWriter::write_file(&other, &metadata, &tensors.collect::<Vec<_>>()).unwrap();
    let (student, teacher) = (ModelFiles::open(&pair.student).unwrap(), ModelFiles::open(&other).unwrap());
    let pool = Pool::serial();
    let refiner = Refiner::new(&student, &teacher, &pair.calibration, options(), &pool);
    let error = refiner.run(&out, false, None, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("differ in token 700"), "{error}");
}

/// As that of GLM-4.7-Flash, whose embedding has more rows than its tokenizer has tokens.
#[test]
fn a_checkpoint_with_rows_behind_its_last_token_teaches_its_student() {
    let dir = tempfile::tempdir().unwrap();
    let mini = fixtures::path("craftsman-mini");
    let mut shape = Shape::open("mini", Some(2)).unwrap();
    let tokens = ModelFiles::open(&mini).unwrap().config.vocab;
    shape.json["vocab_size"] = (tokens + 3).into();
    let config = dir.path().join("shape.json");
    std::fs::write(&config, shape.json.to_string()).unwrap();
    let model =
        SyntheticModel { shape: Shape::open(config.to_str().unwrap(), None).unwrap(), seed: 1, tokenizer: None };
    let checkpoint = dir.path().join("teacher");
    model.write_checkpoint(&Pool::serial(), &checkpoint, &mut |_, _| {}).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(mini.join(name), checkpoint.join(name)).unwrap();
    }
    let teacher = ModelFiles::open(&checkpoint).unwrap();
    let student = dir.path().join("student.gguf");
    std::fs::write(&student, quantized(&teacher)).unwrap();
    assert_eq!(ModelFiles::open(&student).unwrap().tokenizer().unwrap().token_text(2048), Some("[PAD2048]"));
    let pair = Pair { teacher, student, ..pair() };
    let options = TrainOptions { steps: 1, ..options() };
    assert_eq!(run(&pair, options, &dir.path().join("refined.gguf"), &mut |_| {}).unwrap().steps, 1);
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let pair = pair();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("refined.gguf");
    let pool = Pool::serial();
    let refuse = |student: &Path, groups: Vec<Group>, out: &Path, expected: &str| {
        let files = ModelFiles::open(student).unwrap();
        let options = TrainOptions { groups, ..options() };
        let refiner = Refiner::new(&files, &pair.teacher, &pair.calibration, options, &pool);
        let error = refiner.run(out, true, None, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refuse(&pair.student, vec![Group::Scales], &pair.student, "belongs to the model");
    refuse(&fixtures::path("craftsman-mini"), vec![Group::Norms], &out, "no GGUF of one file");
    refuse(&fixtures::path("craftsman-mini"), vec![Group::Scales], &out, "no weights of the groups");
    let other = student(dir.path());
    refuse(&other, vec![Group::Scales], &out, "differ in number of layers: 5 and 2");
    assert!(!out.exists() && !dir.path().join("refined.gguf.partial").exists());
}
