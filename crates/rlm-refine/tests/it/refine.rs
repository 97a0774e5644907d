//! Runs that refine a student: what they change, what survives a stop, what they refuse.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use gguf_bitnet::{Array, GgufFile, TensorSource};
use moe_runtime::ModelFiles;
use rlm_refine::ptq::{CALIBRATION_SPANS, Calibration, NamedText, WindowOptions};
use rlm_refine::train::ops::loss::Target;
use rlm_refine::train::optim::{Optimizer, OptimizerOptions};
use rlm_refine::train::{
    Group, LossOptions, OnRefineProgress, RefineProgress, RefineReport, Refiner, Targets, TrainModel, TrainOptions,
    rate_factor,
};
use rlm_refine::{Method, Preset, QuantizeOptions, Quantizer, Recipe};
use ternary_core::Rounding;
use tl_kernels::Pool;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::students::student;

/// The mini teacher of the fixtures, its student by least squares, and short windows.
struct Pair {
    _dir: tempfile::TempDir,
    teacher: ModelFiles,
    student: PathBuf,
    calibration: Calibration,
}

fn pair() -> Pair {
    let dir = tempfile::tempdir().unwrap();
    let teacher = ModelFiles::open(&fixtures::path("craftsman-mini")).unwrap();
    let path = dir.path().join("student.gguf");
    let options = QuantizeOptions {
        recipe: Recipe { preset: Preset::Quality, ..Recipe::default() },
        method: Method::Round(Rounding::LeastSquares),
        max_memory_bytes: None,
        allow_zero: false,
    };
    let quantizer = Quantizer::new(&teacher, options, 2).unwrap();
    quantizer.run(&Pool::new(2).unwrap(), &path, false, &mut |_, _, _| {}).unwrap();
    let text = std::fs::read_to_string(fixtures::path("texts/calibration.txt")).unwrap();
    let text = NamedText { name: "text".to_owned(), text: text.chars().take(18_000).collect() };
    let windows = WindowOptions { window_tokens: 24, max_tokens: 1200, ..WindowOptions::default() };
    let calibration = Calibration::new(&teacher, &Pool::serial(), &[text], &[], windows).unwrap();
    Pair { _dir: dir, teacher, student: path, calibration }
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

/// The numbers of an event.
type Numbers = BTreeMap<&'static str, f64>;

/// Keeps the numbers of the events of one name, with the thread that they come from.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Vec<(ThreadId, Numbers)>>>);

struct Fields(Numbers);

impl Visit for Fields {
    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name(), value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name(), value as f64);
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.name() == "DistillationCheckpoint"
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(BTreeMap::new());
        event.record(&mut fields);
        self.0.lock().unwrap().push((std::thread::current().id(), fields.0));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn each_state_is_announced_with_its_figures() {
    let pair = pair();
    let dir = tempfile::tempdir().unwrap();
    let listener = Listener::default();
    // A listener of this thread alone would miss events whose place in the code another test has reached first.
    tracing::subscriber::set_global_default(listener.clone()).unwrap();
    let options = TrainOptions { checkpoint_steps: 2, steps: 3, ..options() };
    run(&pair, options, &dir.path().join("refined.gguf"), &mut |_| {}).unwrap();
    let own = std::thread::current().id();
    let all = listener.0.lock().unwrap().clone();
    let events: Vec<_> = all.into_iter().filter(|(thread, _)| *thread == own).map(|(_, fields)| fields).collect();
    let steps: Vec<f64> = events.iter().map(|event| event["step"]).collect();
    assert_eq!(steps, [2.0, 3.0]);
    for event in &events {
        assert!(event["tokens"] > 0.0 && event["loss"] > 0.0 && event["kl"] > 0.0 && event["held_out_kl"] > 0.0);
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
    let files = ModelFiles::open(&out).unwrap();
    let pool = Pool::new(2).unwrap();
    let model = TrainModel::new(&files, &[], &pool).unwrap();
    assert!(model.weights.changed_trits().is_none());
    let file = files.gguf().unwrap();
    assert_eq!(file.metadata().str("craftsman.bitnet.weight_encoding").unwrap(), Some("distilled_ternary"));
}

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
        let logits = teacher.logits(&teacher.hidden(windows).unwrap()).unwrap();
        Teacher { rows: logits.chunks_exact(pair.teacher.config.vocab).map(<[f32]>::to_vec).collect(), shift }
    };
    let held_out = &pair.calibration.windows()[6..10];
    let divergence = |shift| {
        let groups = [Group::Scales, Group::Norms, Group::SharedExperts];
        let mut model = TrainModel::new(&files, &groups, &pool).unwrap();
        let mut optimizer = Optimizer::new(OptimizerOptions::default(), &model.weights.params);
        let before = model.loss(held_out, &mut targets(held_out, 0)).unwrap().mean_kl();
        for _ in 0..6 {
            model.weights.params.clear_gradients();
            let loss = LossOptions { kl: 1.0, ce: 0.0 };
            model.loss_and_gradients(windows, &mut targets(windows, shift), loss, 1.0).unwrap();
            optimizer.step(&pool, &mut model.weights.params, &|param| 1e-3 * rate_factor(param.group, param.kind));
        }
        (before, model.loss(held_out, &mut targets(held_out, 0)).unwrap().mean_kl())
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
    assert!(error.contains("step 2") && error.contains("group `") && error.contains("step 1"), "{error}");
    assert!(dir.path().join("refined.gguf.partial").join("state.1").is_file());
    assert!(!out.exists());
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
    refuse(&other, vec![Group::Scales], &out, "the student knows 512 tokens, the teacher 2048");
    assert!(!out.exists() && !dir.path().join("refined.gguf.partial").exists());
}
