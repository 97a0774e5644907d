//! Runs that refine a student: what they change, what survives a stop, what they refuse.

mod adapters;
mod lessons;
mod protection;
mod recordings;
mod refusals;
mod rewards;
mod routers;
mod sequential;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use gguf_bitnet::{Array, GgufFile, TensorSource};
use moe_runtime::ModelFiles;
use rlm_refine::ptq::{CALIBRATION_SPANS, Calibration, NamedText, WindowOptions};
use rlm_refine::train::ops::loss::Target;
use rlm_refine::train::optim::{Optimizer, OptimizerOptions};
use rlm_refine::train::{
    Group, LossOptions, LossScale, OnRefineProgress, RefineProgress, RefineReport, Refiner, RouterMethod, Targets,
    TrainModel, TrainOptions, blank_adapter, blank_sidecar, rate_factor,
};
use rlm_refine::{Method, Preset, QuantizeOptions, Quantizer, Recipe};
use ternary_core::Rounding;
use tl_kernels::Pool;

use crate::events::events;

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
    BYTES.get_or_init(|| quantized(teacher))
}

/// The file of a teacher's student by least squares.
fn quantized(teacher: &ModelFiles) -> Vec<u8> {
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
    let options = || TrainOptions { steps: 8, windows_per_step: 8, ..options() };
    let mut report = None;
    let seen = events(|| {
        report = Some(run(&pair, TrainOptions { groups, ..options() }, &out, &mut |_| {}).unwrap());
    });
    let report = report.unwrap();
    assert_distilled_events(&seen, &report);
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

/// One event per routed expert, whose trits are together those of the report, and one for the phase.
fn assert_distilled_events(seen: &[(String, BTreeMap<String, String>)], report: &RefineReport) {
    let of = |event: &str| seen.iter().filter(|(name, _)| name == event).map(|(_, fields)| fields).collect::<Vec<_>>();
    let experts = of("ExpertDistilled");
    let number = |fields: &BTreeMap<String, String>, field: &str| fields[field].parse::<f64>().unwrap();
    let places: BTreeSet<(&str, &str)> = experts.iter().map(|f| (&*f["layer"], &*f["expert"])).collect();
    assert!(experts.len() == 4 * 8 && places.len() == 32, "four layers of eight experts: {places:?}");
    let all: f64 = experts.iter().map(|fields| number(fields, "trits")).sum();
    let changed: f64 = experts.iter().map(|fields| number(fields, "trits") * number(fields, "changed_trits")).sum();
    assert!((changed / all - report.changed_trits.unwrap()).abs() < 1e-9 && changed > 0.0);
    let [phase] = of("DistillationPhaseComplete")[..] else { panic!("one event: {seen:?}") };
    assert_eq!(phase["steps"], report.steps.to_string());
    assert_eq!(phase["tokens"], report.tokens.to_string());
    assert_eq!(phase["output_bytes"], report.output_bytes.to_string());
    let figures = [report.held_out_kl[0], report.held_out_kl[1], report.changed_trits];
    for (field, figure) in ["held_out_kl_before", "held_out_kl", "changed_trits"].into_iter().zip(figures) {
        assert_eq!(phase[field], format!("{:?}", figure.unwrap()), "{field}");
    }
}

#[test]
fn a_reward_of_positions_changes_what_is_learned() {
    let pair = pair();
    let dir = tempfile::tempdir().unwrap();
    let [plain, rewarded] = [0.0, 0.5].map(|reward_scale| {
        let out = dir.path().join(format!("{reward_scale}.gguf"));
        let options = TrainOptions { steps: 1, groups: vec![Group::Norms], reward_scale, ..options() };
        let report = run(&pair, options, &out, &mut |_| {}).unwrap();
        (report.held_out_kl, std::fs::read(out).unwrap())
    });
    assert_eq!(plain.0[0], rewarded.0[0], "figures are those of the loss without rewards");
    assert!(plain.1 != rewarded.1 && plain.0[1] != rewarded.0[1]);
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
    let divergence = |groups: &[Group], lr: f32, shift| {
        let mut model = TrainModel::new(&files, groups, &pool).unwrap();
        if groups.contains(&Group::Adapter) {
            model.weights.add_adapter(&blank_adapter(&files, 2).unwrap(), 0).unwrap();
        }
        if groups.contains(&Group::Sidecar) {
            model.weights.add_adapter(&blank_sidecar(&files, 8).unwrap(), 0).unwrap();
        }
        let mut optimizer = Optimizer::new(OptimizerOptions::default(), &model.weights.params);
        let before = model.loss(held_out, &mut targets(held_out, 0), LOSS).unwrap().mean_kl();
        for _ in 0..6 {
            model.weights.params.clear_gradients();
            model.loss_and_gradients(windows, &mut targets(windows, shift), LossScale::of(LOSS, windows)).unwrap();
            optimizer.step(&pool, &mut model.weights.params, &|param| lr * rate_factor(param.group, param.kind));
        }
        (before, model.loss(held_out, &mut targets(held_out, 0), LOSS).unwrap().mean_kl())
    };
    // A sidecar, whose first half starts at 0, has learned little after six steps.
    for (groups, lr, most) in [
        (&[Group::Scales, Group::Norms, Group::SharedExperts][..], 1e-3, 0.95),
        (&[Group::Adapter], 1e-2, 0.95),
        (&[Group::Sidecar], 1e-2, 0.99),
    ] {
        let (before, taught) = divergence(groups, lr, 0);
        let (_, shuffled) = divergence(groups, lr, 17);
        assert!(
            taught < most * before && shuffled > before,
            "{groups:?}: {before}, {taught} with the teacher, {shuffled} shuffled"
        );
    }
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
        assert!(matches!(progress, RefineProgress::Memory(_) | RefineProgress::Hash(..)), "nothing is computed again");
    });
    assert_eq!(again.unwrap(), report);
    assert!(report.steps == 4 && report.tokens > 0 && report.repair.is_some());
    assert!(report.trained.iter().all(|(group, _)| *group != Group::Router), "{:?}", report.trained);
    assert_eq!(std::fs::read(&log).unwrap(), lines);
    assert!(std::fs::read(&out).unwrap() == whole && !out.with_extension("gguf.partial").exists());
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
