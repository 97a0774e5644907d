//! Runs that refine a student: what they change, what survives a stop, what they refuse.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use gguf_bitnet::{Array, GgufFile, GgufWriter, TensorInfo, TensorSource, TensorType, Value};
use moe_runtime::ModelFiles;
use rlm_refine::ptq::{CALIBRATION_SPANS, Calibration, NamedText, WindowOptions};
use rlm_refine::train::ops::loss::Target;
use rlm_refine::train::optim::{Optimizer, OptimizerOptions};
use rlm_refine::train::{
    Group, LossOptions, LossScale, OnRefineProgress, RefineProgress, RefineReport, Refiner, RouterLabels, RouterMethod,
    Targets, TrainModel, TrainOptions, rate_factor, repair_routers,
};
use rlm_refine::{Method, Preset, QuantizeOptions, Quantizer, Recipe};
use ternary_core::{Bytes, Rounding};
use tl_kernels::Pool;

use crate::events::events;
use crate::students::student;

/// The mini teacher of the fixtures, its student by least squares, and short windows.
struct Pair {
    _dir: tempfile::TempDir,
    teacher: ModelFiles,
    student: PathBuf,
    calibration: Calibration,
}

fn pair() -> Pair {
    pair_of(18_000, 1200)
}

/// With windows of at most so many tokens from so many characters.
fn pair_of(chars: usize, max_tokens: usize) -> Pair {
    let dir = tempfile::tempdir().unwrap();
    let teacher = ModelFiles::open(&fixtures::path("craftsman-mini")).unwrap();
    let path = dir.path().join("student.gguf");
    std::fs::write(&path, student_bytes(&teacher)).unwrap();
    let text = std::fs::read_to_string(fixtures::path("texts/calibration.txt")).unwrap();
    let text = NamedText { name: "text".to_owned(), text: text.chars().take(chars).collect() };
    let windows = WindowOptions { window_tokens: 24, max_tokens, ..WindowOptions::default() };
    let calibration = Calibration::new(&teacher, &Pool::serial(), &[text], &[], windows).unwrap();
    Pair { _dir: dir, teacher, student: path, calibration }
}

/// The student's file, which is made once for all tests.
fn student_bytes(teacher: &ModelFiles) -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("student.gguf");
        let options = QuantizeOptions {
            recipe: Recipe { preset: Preset::Quality, ..Recipe::default() },
            method: Method::Round(Rounding::LeastSquares),
            max_memory_bytes: None,
            allow_zero: false,
        };
        let quantizer = Quantizer::new(teacher, options, 2).unwrap();
        quantizer.run(&Pool::new(2).unwrap(), &path, false, &mut |_, _, _| {}).unwrap();
        std::fs::read(&path).unwrap()
    })
}

fn options() -> TrainOptions {
    TrainOptions {
        steps: 4,
        windows_per_step: 2,
        checkpoint_steps: 1,
        eval_steps: 2,
        lr: 1e-3,
        ..TrainOptions::default()
    }
}

fn run(
    pair: &Pair,
    options: TrainOptions,
    out: &Path,
    progress: &mut OnRefineProgress<'_>,
) -> rlm_refine::Result<RefineReport> {
    let student = ModelFiles::open(&pair.student).unwrap();
    let pool = Pool::new(2).unwrap();
    let refiner = Refiner::new(&student, &pair.teacher, &pair.calibration, options, &pool);
    refiner.run(out, false, Some(&out.with_extension("jsonl")), progress)
}

#[test]
fn a_run_lowers_the_divergence_changes_only_what_it_trains_and_keeps_its_origin() {
    let pair = pair();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("refined.gguf");
    let report = run(&pair, TrainOptions { steps: 10, windows_per_step: 8, ..options() }, &out, &mut |_| {}).unwrap();
    let [Some(before), Some(after)] = report.held_out_kl else { panic!("held-out windows are measured") };
    assert!(after < 0.97 * before, "{before} {after}");
    assert!(gguf_bitnet::verify(&out, &mut |_, _| {}).unwrap().defects.is_empty());

    let (old, new) = (GgufFile::open(&pair.student).unwrap(), GgufFile::open(&out).unwrap());
    assert_eq!(old.tensors(), new.tensors());
    for (i, info) in old.tensors().iter().enumerate() {
        let is_trained = ["norm", "_shexp", "_exps"].iter().any(|part| info.name.contains(part));
        let changed = old.bytes(i).unwrap()[..] != new.bytes(i).unwrap()[..];
        assert_eq!(changed, is_trained, "{}", info.name);
        if info.ty.is_ternary() {
            let codes = |file: &GgufFile| -> Vec<Vec<u8>> {
                file.bytes(i).unwrap().chunks_exact(66).map(|block| block[..64].to_vec()).collect()
            };
            assert_eq!(codes(&old), codes(&new), "trits stay");
        }
    }
    let spans = |file: &GgufFile| match file.metadata().array(CALIBRATION_SPANS).unwrap() {
        Some(Array::U64(spans)) => spans.clone(),
        _ => Vec::new(),
    };
    assert!(pair.calibration.spans.iter().all(|span| spans(&new).contains(span)));
    for key in ["refined_from_blake3", "teacher_blake3", "refinement_blake3", "refinement"] {
        assert!(new.metadata().contains_key(&format!("craftsman.provenance.{key}")), "{key}");
    }
    let log = std::fs::read_to_string(out.with_extension("jsonl")).unwrap();
    assert_eq!(log.lines().count(), 11);
    assert!(std::fs::read_to_string(out.with_extension("svg")).unwrap().contains("<polyline"));
}

#[test]
fn each_state_is_announced_with_its_figures() {
    let pair = pair();
    let dir = tempfile::tempdir().unwrap();
    let options = TrainOptions { checkpoint_steps: 2, steps: 3, ..options() };
    let out = dir.path().join("refined.gguf");
    let mut seen = events(|| {
        run(&pair, options, &out, &mut |_| {}).unwrap();
    });
    seen.retain(|(name, _)| name == "DistillationCheckpoint");
    let number = |i: usize, field: &str| seen[i].1[field].parse::<f64>().unwrap();
    assert_eq!([number(0, "step"), number(1, "step")], [2.0, 3.0]);
    assert_eq!(seen.len(), 2);
    for (i, field) in (0..2).flat_map(|i| ["tokens", "loss", "kl", "held_out_kl"].map(|field| (i, field))) {
        assert!(number(i, field) > 0.0, "{field}");
    }
}

#[test]
fn a_stopped_run_ends_with_the_same_bytes() {
    let pair = pair();
    let dir = tempfile::tempdir().unwrap();
    let groups = vec![Group::Scales, Group::Norms, Group::SharedExperts, Group::LatentTrits];
    let options = || TrainOptions { groups: groups.clone(), soft_share: 0.5, ..options() };
    let whole = dir.path().join("whole.gguf");
    run(&pair, options(), &whole, &mut |_| {}).unwrap();
    for stop in [1, 3] {
        let out = dir.path().join(format!("stopped-{stop}.gguf"));
        let stopped = catch_unwind(AssertUnwindSafe(|| {
            run(&pair, options(), &out, &mut |progress| {
                if let RefineProgress::Step(step) = progress {
                    assert!(step.point.step <= stop, "the process ends here");
                }
            })
        }));
        assert!(stopped.is_err() && !out.exists());
        let mut steps = Vec::new();
        let mut note = |progress| {
            if let RefineProgress::Step(step) = progress {
                steps.push(step.point.step);
            }
        };
        run(&pair, options(), &out, &mut note).unwrap();
        assert_eq!(steps.first(), Some(&(stop + 1)), "the steps before are not taken again");
        assert!(std::fs::read(&out).unwrap() == std::fs::read(&whole).unwrap(), "stopped after step {stop}");
        let log = |path: &Path| std::fs::read_to_string(path.with_extension("jsonl")).unwrap();
        assert_eq!(log(&out), log(&whole));
    }
}

/// A run that ends at the first tensor that it has written.
fn stop_at_first_tensor(pair: &Pair, options: TrainOptions, out: &Path) {
    let stopped = catch_unwind(AssertUnwindSafe(|| {
        run(pair, options, out, &mut |progress| {
            assert!(!matches!(progress, RefineProgress::Write(..)), "the process ends here");
        })
    }));
    assert!(stopped.is_err() && !out.exists());
}

#[test]
fn a_run_stopped_while_it_was_written_ends_with_the_same_bytes() {
    let pair = pair();
    let dir = tempfile::tempdir().unwrap();
    for (name, repair) in [("trained", None), ("repaired", Some(RouterMethod::Ridge))] {
        let options = || TrainOptions { steps: 1, repair, ..options() };
        let whole = dir.path().join(format!("{name}-whole.gguf"));
        let report = run(&pair, options(), &whole, &mut |_| {}).unwrap();
        let whole = std::fs::read(whole).unwrap();
        for is_noted in [true, false] {
            let out = dir.path().join(format!("{name}-{is_noted}.gguf"));
            stop_at_first_tensor(&pair, options(), &out);
            let journal = out.with_extension("gguf.partial").join("journal.jsonl");
            let lines = std::fs::read_to_string(&journal).unwrap();
            assert!(lines.lines().rev().nth(1).unwrap().contains(r#"{"repair":"#), "{lines}");
            if !is_noted {
                // As if the process had ended behind the unit of the repair, in front of the tensor's line.
                let end = lines.trim_end().rfind('\n').unwrap() + 1;
                std::fs::write(&journal, &lines[..end]).unwrap();
            }
            let mut first = None;
            let mut note = |progress| match progress {
                RefineProgress::Step(_) => panic!("no step is taken again"),
                RefineProgress::Write(done, total) => drop(first.get_or_insert((done, total))),
                _ => {}
            };
            assert_eq!(run(&pair, options(), &out, &mut note).unwrap(), report, "{name}");
            assert!(first.is_some_and(|(done, total)| done < total), "most tensors are missing: {first:?}");
            assert!(std::fs::read(&out).unwrap() == whole, "{name}, the tensor noted: {is_noted}");
        }
    }
}

#[test]
fn distillation_changes_trits_and_says_so() {
    let pair = pair();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("distilled.gguf");
    let groups = vec![Group::Scales, Group::LatentTrits];
    let report =
        run(&pair, TrainOptions { groups, steps: 8, windows_per_step: 8, ..options() }, &out, &mut |_| {}).unwrap();
    assert!(report.changed_trits.is_some_and(|share| share > 0.0 && share < 0.2), "{report:?}");
    let [Some(before), Some(after)] = report.held_out_kl else { panic!("held-out windows are measured") };
    assert!(after < before, "{before} {after}");
    // The file computes what training measured last: its numbers lose F16 rounding only.
    let again = dir.path().join("again.gguf");
    let groups = vec![Group::Norms];
    let next = TrainOptions { groups, steps: 1, ..options() };
    let distilled = Pair { student: out.clone(), ..pair };
    let [Some(of_file), _] = run(&distilled, next, &again, &mut |_| {}).unwrap().held_out_kl else {
        panic!("held-out windows are measured")
    };
    assert!((of_file - after).abs() < 0.002 * after && (of_file - before).abs() > 0.02 * before, "{of_file} {after}");
    let files = ModelFiles::open(&out).unwrap();
    let file = files.gguf().unwrap();
    assert_eq!(file.metadata().str("craftsman.bitnet.weight_encoding").unwrap(), Some("distilled_ternary"));
}

const LOSS: LossOptions = LossOptions { kl: 1.0, ce: 0.0 };

/// The teacher's logits, each position's moved to another.
struct Teacher {
    rows: Vec<Vec<f32>>,
    shift: usize,
}

impl Targets for Teacher {
    fn targets(&mut self, first: usize, n: usize, take: &mut dyn FnMut(usize, Target<'_>)) -> rlm_refine::Result<()> {
        let all = self.rows.len();
        (first..first + n).for_each(|i| take(i, Target::Full(&self.rows[(i + self.shift) % all])));
        Ok(())
    }
}

#[test]
fn a_shuffled_teacher_teaches_nothing() {
    let pair = pair();
    let pool = Pool::new(2).unwrap();
    let files = ModelFiles::open(&pair.student).unwrap();
    let teacher = TrainModel::new(&pair.teacher, &[], &pool).unwrap();
    let windows = &pair.calibration.windows()[..6];
    let targets = |windows: &[Vec<u32>], shift| {
        let logits = teacher.targets(windows).unwrap().logits(0, windows.iter().map(Vec::len).sum());
        Teacher { rows: logits.chunks_exact(pair.teacher.config.vocab).map(<[f32]>::to_vec).collect(), shift }
    };
    let held_out = &pair.calibration.windows()[6..10];
    let divergence = |shift| {
        let groups = [Group::Scales, Group::Norms, Group::SharedExperts];
        let mut model = TrainModel::new(&files, &groups, &pool).unwrap();
        let mut optimizer = Optimizer::new(OptimizerOptions::default(), &model.weights.params);
        let before = model.loss(held_out, &mut targets(held_out, 0), LOSS).unwrap().mean_kl();
        for _ in 0..6 {
            model.weights.params.clear_gradients();
            model.loss_and_gradients(windows, &mut targets(windows, shift), LossScale::of(LOSS, windows)).unwrap();
            optimizer.step(&pool, &mut model.weights.params, &|param| 1e-3 * rate_factor(param.group, param.kind));
        }
        (before, model.loss(held_out, &mut targets(held_out, 0), LOSS).unwrap().mean_kl())
    };
    let (before, taught) = divergence(0);
    let (_, shuffled) = divergence(17);
    assert!(taught < 0.95 * before && shuffled > before, "{before}: {taught} with the teacher, {shuffled} shuffled");
}

#[test]
fn a_number_that_is_not_finite_stops_the_run_and_its_state_stays() {
    let pair = pair();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("refined.gguf");
    let mut rate = options();
    rate.lr = 1e25;
    let error = run(&pair, rate, &out, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("step 1: a value of ") && error.contains("group `scales`"), "{error}");
    assert!(error.contains("the student itself"), "{error}");
    assert!(!dir.path().join("refined.gguf.partial").join("state.1").exists(), "such a state is not saved");
    assert!(!out.exists());
}

/// Puts a finished job back to the moment behind the rename of its output: `copy` is its directory before the commit.
fn undo_cleanup(out: &Path, copy: &Path) {
    let partial = out.with_extension("gguf.partial");
    std::fs::create_dir(&partial).unwrap();
    for entry in std::fs::read_dir(copy).unwrap().flatten().filter(|entry| entry.file_name() != "data") {
        std::fs::copy(entry.path(), partial.join(entry.file_name())).unwrap();
    }
    let journal = partial.join("journal.jsonl");
    let mut lines = std::fs::read_to_string(&journal).unwrap();
    let bytes = std::fs::metadata(out).unwrap().len();
    let record = format!(r#"{{"commit":{{"name":"refined.gguf","bytes":{bytes}}}}}"#);
    let check = lines.lines().last().unwrap().split('"').nth(3).unwrap();
    let check = blake3::hash(format!("{check}{record}").as_bytes()).to_hex();
    lines += &format!("{{\"check\":\"{}\",\"record\":{record}}}\n", &check[..16]);
    std::fs::write(&journal, lines).unwrap();
}

#[test]
fn a_run_that_was_killed_while_it_was_committed_reports_its_steps_and_writes_its_log() {
    let pair = pair();
    let dir = tempfile::tempdir().unwrap();
    let (out, copy) = (dir.path().join("refined.gguf"), dir.path().join("copy"));
    let options = || TrainOptions { repair: Some(RouterMethod::Ridge), ..options() };
    let report = run(&pair, options(), &out, &mut |progress| {
        if matches!(progress, RefineProgress::Write(done, total) if done == total) {
            std::fs::create_dir(&copy).unwrap();
            for entry in std::fs::read_dir(out.with_extension("gguf.partial")).unwrap().flatten() {
                std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
            }
        }
    });
    let report = report.unwrap();
    let (log, whole) = (out.with_extension("jsonl"), std::fs::read(&out).unwrap());
    let lines = std::fs::read(&log).unwrap();
    std::fs::remove_file(&log).unwrap();
    undo_cleanup(&out, &copy);
    let again = run(&pair, options(), &out, &mut |progress| {
        assert!(matches!(progress, RefineProgress::Hash(..)), "nothing is computed again");
    });
    assert_eq!(again.unwrap(), report);
    assert!(report.steps == 4 && report.tokens > 0 && report.repair.is_some());
    assert!(report.trained.iter().all(|(group, _)| *group != Group::Router), "{:?}", report.trained);
    assert_eq!(std::fs::read(&log).unwrap(), lines);
    assert!(std::fs::read(&out).unwrap() == whole && !out.with_extension("gguf.partial").exists());
}

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
fn without_held_out_windows_no_router_is_repaired_and_no_figure_is_made_up() {
    let dir = tempfile::tempdir().unwrap();
    let few = pair_of(2000, 240);
    assert!(few.calibration.windows().len() < 13);
    let out = dir.path().join("refined.gguf");
    let repair = TrainOptions { repair: Some(RouterMethod::Ridge), ..options() };
    let error = run(&few, repair, &out, &mut |_| panic!("nothing is read")).unwrap_err().to_string();
    assert!(error.contains("give at least 13") && !out.with_extension("gguf.partial").exists(), "{error}");

    let report = run(&few, TrainOptions { steps: 1, ..options() }, &out, &mut |_| {}).unwrap();
    assert_eq!(report.held_out_kl, [None, None]);
    let log = std::fs::read_to_string(out.with_extension("jsonl")).unwrap();
    assert!(log.lines().count() == 1 && log.contains(r#""step":1"#) && !log.contains("held_out_kl"), "{log}");
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

#[test]
fn the_gradient_of_a_step_does_not_depend_on_how_its_windows_are_cut_into_passes() {
    let pair = pair();
    let pool = Pool::new(2).unwrap();
    let files = ModelFiles::open(&pair.student).unwrap();
    let teacher = TrainModel::new(&pair.teacher, &[], &pool).unwrap();
    // Of very different lengths, as conversations are.
    let windows = [pair.calibration.windows()[0].clone(), pair.calibration.windows()[1][..5].to_vec()];
    let loss = LossOptions { kl: 1.0, ce: 0.5 };
    let gradient = |passes: &[&[Vec<u32>]]| -> Vec<f32> {
        let mut model = TrainModel::new(&files, &[Group::Norms], &pool).unwrap();
        for pass in passes {
            let mut targets = teacher.targets(pass).unwrap();
            model.loss_and_gradients(pass, &mut targets, LossScale::of(loss, &windows)).unwrap();
        }
        model.weights.params.list().iter().flat_map(|param| param.gradient.clone()).collect()
    };
    let (whole, cut) = (gradient(&[&windows]), gradient(&[&windows[..1], &windows[1..]]));
    let largest = whole.iter().fold(0.0f32, |m, d| m.max(d.abs()));
    assert!(whole.iter().zip(&cut).all(|(a, b)| (a - b).abs() < 1e-4 * largest) && largest > 0.0);
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

#[test]
fn routers_are_repaired_towards_the_teacher_and_only_they_change() {
    let pair = pair_of(60_000, 6000);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("repaired.gguf");
    for method in RouterMethod::ALL {
        let mut report = None;
        let options = TrainOptions { groups: Vec::new(), steps: 0, repair: Some(method), ..options() };
        let student = ModelFiles::open(&pair.student).unwrap();
        let pool = Pool::new(2).unwrap();
        let refiner = Refiner::new(&student, &pair.teacher, &pair.calibration, options, &pool);
        let seen = events(|| report = Some(refiner.run(&out, true, None, &mut |_| {}).unwrap()));
        let repair = report.unwrap().repair.unwrap();
        assert_eq!((repair.method, repair.routers.len()), (method, 4));
        let kept: Vec<usize> = repair.routers.iter().filter(|r| r.is_kept).map(|r| r.layer).collect();
        assert!(
            !kept.is_empty() && repair.routers.iter().all(|r| r.is_kept == (r.agreement_after > r.agreement_before))
        );
        for router in &repair.routers {
            let is_own = |name: &str, fields: &BTreeMap<String, String>| {
                name == "RouterValidated" && fields["layer"] == router.layer.to_string()
            };
            let (_, fields) = seen.iter().find(|(name, fields)| is_own(name, fields)).unwrap();
            assert_eq!(fields["agreement_after"], format!("{:?}", router.agreement_after));
            assert_eq!(fields["agreement_before"], format!("{:?}", router.agreement_before));
            assert_eq!(fields["is_kept"], router.is_kept.to_string());
            assert!(fields["method"].contains(method.name()) && fields["tokens"].parse::<usize>().unwrap() > 500);
        }
        let (old, new) = (GgufFile::open(&pair.student).unwrap(), GgufFile::open(&out).unwrap());
        for (i, info) in old.tensors().iter().enumerate() {
            let is_repaired = kept.iter().any(|layer| info.name == format!("blk.{layer}.ffn_gate_inp.weight"));
            assert_eq!(old.bytes(i).unwrap()[..] != new.bytes(i).unwrap()[..], is_repaired, "{}", info.name);
        }
    }
}

#[test]
fn shuffled_labels_of_routers_repair_nothing() {
    let pair = pair_of(60_000, 6000);
    let pool = Pool::new(2).unwrap();
    let files = ModelFiles::open(&pair.student).unwrap();
    let teacher = TrainModel::new(&pair.teacher, &[], &pool).unwrap();
    let windows = pair.calibration.windows();
    let (fit, held_out) = windows.split_at(windows.len() * 3 / 4);
    let gain = |method, labels| {
        let mut student = TrainModel::new(&files, &[], &pool).unwrap();
        let routers = repair_routers(&mut student, &teacher, [fit, held_out], method, labels).unwrap();
        assert!(routers.iter().all(|r| r.is_kept == (r.agreement_after > r.agreement_before)), "{routers:?}");
        routers.iter().map(|r| r.agreement_after - r.agreement_before).sum::<f64>()
    };
    // The other methods start from the ridge.
    for method in [RouterMethod::Ridge, RouterMethod::Hinge] {
        let [taught, shuffled] =
            [RouterLabels::Teacher, RouterLabels::Shuffled { seed: 3 }].map(|labels| gain(method, labels));
        assert!(taught > 0.0 && shuffled <= 0.0, "{method}: {taught} with the teacher's labels, {shuffled} shuffled");
    }
}
