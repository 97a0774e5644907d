//! Runs that train an adapter: the student stays, and the adapter brings it closer to its teacher.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use gguf_bitnet::{GgufFile, TensorSource, TensorType};
use moe_runtime::ModelFiles;
use moe_runtime::adapters::{AdapterFile, OpenAdapters, ScaledAdapter};
use rlm_refine::adapt::{AdaptOptions, adapt};
use rlm_refine::train::{Group, RefineProgress, RouterMethod, TrainOptions, blank_adapter, blank_sidecar, groups_of};
use tl_kernels::Pool;

use super::{Pair, options, pair, run};

fn adapter_options(adapter: AdapterFile) -> TrainOptions {
    TrainOptions { groups: groups_of(&adapter), adapter: Some(Arc::new(adapter)), lr: 3e-3, ..options() }
}

/// The adapter of a file, which must belong to the student.
fn read(student: &ModelFiles, path: &Path) -> AdapterFile {
    let opened = OpenAdapters::open(&[ScaledAdapter::new(path)]).unwrap();
    opened.read(student, &mut || student.identity(&mut |_, _| {})).unwrap().remove(0).0
}

fn student(pair: &Pair) -> ModelFiles {
    ModelFiles::open(&pair.student).unwrap()
}

/// Additions to matrices, sidecars, and both in one adapter, all of which add nothing.
fn blanks(student: &ModelFiles) -> [AdapterFile; 3] {
    let (additions, sidecars) = (blank_adapter(student, 2).unwrap(), blank_sidecar(student, 8).unwrap());
    let mut both = additions.clone();
    both.pairs.extend(sidecars.pairs.clone());
    [additions, sidecars, both]
}

#[test]
fn adapters_learn_from_nothing_and_go_on_from_their_files() {
    let pair = pair();
    let kinds = [vec![Group::Adapter], vec![Group::Sidecar], vec![Group::Adapter, Group::Sidecar]];
    for (blank, groups) in blanks(&student(&pair)).into_iter().zip(kinds) {
        learns_and_goes_on(&pair, blank, &groups);
    }
}

fn learns_and_goes_on(pair: &Pair, blank: AdapterFile, groups: &[Group]) {
    let dir = tempfile::tempdir().unwrap();
    let (student, before) = (student(pair), std::fs::read(&pair.student).unwrap());
    let trained = |adapter: AdapterFile, out: &Path| {
        let options = TrainOptions { steps: 10, windows_per_step: 8, ..adapter_options(adapter) };
        let report = run(pair, options, out, &mut |_| {}).unwrap();
        assert!(report.trained.iter().map(|(group, _)| group).eq(groups) && report.trained.iter().all(|(_, n)| *n > 0));
        assert!(report.memory.trained.iter().map(|(group, _)| group).eq(groups), "{:?}", report.memory);
        let [Some(before), Some(after)] = report.held_out_kl else { panic!("held-out windows are measured") };
        [before, after]
    };
    let (first, second) = (dir.path().join("first.gguf"), dir.path().join("second.gguf"));
    let of_first = trained(blank, &first);
    assert!(of_first[1] < 0.97 * of_first[0], "{of_first:?}");
    assert!(std::fs::read(&pair.student).unwrap() == before, "the student stays");
    let file = GgufFile::open(&first).unwrap();
    assert!(file.tensors().iter().all(|info| info.ty == TensorType::F16 && info.name.contains(".lora_")));
    for key in ["teacher_blake3", "refinement_blake3", "refinement"] {
        assert!(file.metadata().contains_key(&format!("craftsman.provenance.{key}")), "{key}");
    }
    // The file computes what training measured last, but for F16 rounding, and training goes on from there.
    let of_second = trained(read(&student, &first), &second);
    assert!((of_second[0] - of_first[1]).abs() < 0.002 * of_first[1], "{of_first:?} {of_second:?}");
    assert!(of_second[1] < of_second[0], "{of_second:?}");
}

#[test]
fn an_adapter_of_the_residuals_is_trained_further() {
    let pair = pair();
    let dir = tempfile::tempdir().unwrap();
    let student = student(&pair);
    let made = AdaptOptions { rank: 1, calibration: pair.calibration.clone() };
    let adapter = adapt(&pair.teacher, &student, &Pool::new(2).unwrap(), &made, &mut |_, _| {}).unwrap().adapter;
    let out = dir.path().join("adapter.gguf");
    let blank = run(&pair, adapter_options(blank_adapter(&student, 1).unwrap()), &out, &mut |_| {}).unwrap();
    std::fs::remove_file(&out).unwrap();
    let report = run(&pair, adapter_options(adapter.clone()), &out, &mut |_| {}).unwrap();
    let [of_residuals, of_blank] = [report, blank].map(|report| report.held_out_kl.map(Option::unwrap));
    assert!(of_residuals[0] < of_blank[0] && of_residuals[1] < of_residuals[0], "{of_residuals:?} {of_blank:?}");
    assert!(read(&student, &out).pairs.iter().map(|pair| &pair.tensor).eq(adapter.pairs.iter().map(|p| &p.tensor)));
}

#[test]
fn a_stopped_training_of_an_adapter_ends_with_the_same_bytes() {
    let pair = pair();
    let dir = tempfile::tempdir().unwrap();
    let [.., both] = blanks(&student(&pair));
    let options = || adapter_options(both.clone());
    let whole = dir.path().join("whole.gguf");
    run(&pair, options(), &whole, &mut |_| {}).unwrap();
    let stops: [fn(&RefineProgress) -> bool; 2] = [
        |progress| matches!(progress, RefineProgress::Step(step) if step.point.step > 2),
        |progress| matches!(progress, RefineProgress::Write(..)),
    ];
    for (i, stops) in stops.into_iter().enumerate() {
        let out = dir.path().join(format!("{i}.gguf"));
        let stopped = catch_unwind(AssertUnwindSafe(|| {
            run(&pair, options(), &out, &mut |progress| assert!(!stops(&progress), "the process ends here"))
        }));
        assert!(stopped.is_err() && !out.exists());
        run(&pair, options(), &out, &mut |_| {}).unwrap();
        assert!(std::fs::read(&out).unwrap() == std::fs::read(&whole).unwrap(), "stop {i}");
    }
    // Another start is another job.
    let out = dir.path().join("other.gguf");
    run(&pair, adapter_options(blank_adapter(&student(&pair), 2).unwrap()), &out, &mut |_| {}).unwrap();
    assert!(std::fs::read(&out).unwrap() != std::fs::read(&whole).unwrap());
}

#[test]
fn an_adapter_is_trained_by_itself() {
    let pair = pair();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("refined.gguf");
    let adapter = || adapter_options(blank_adapter(&student(&pair), 1).unwrap());
    let cases = [
        (TrainOptions { groups: vec![Group::Norms, Group::Adapter], ..adapter() }, "leave out other groups"),
        (TrainOptions { repair: Some(RouterMethod::Ridge), ..adapter() }, "leave out --repair-routers"),
        (TrainOptions { groups: vec![Group::Norms], ..adapter() }, "--train adapter"),
        (TrainOptions { adapter: None, ..adapter() }, "--train sidecar"),
        (TrainOptions { groups: vec![Group::Sidecar], ..adapter() }, "additions of the groups adapter, and sidecar"),
        (TrainOptions { groups: vec![Group::Adapter, Group::Sidecar], ..adapter() }, "leave out --train"),
        (TrainOptions { groups: vec![Group::Norms, Group::Sidecar], adapter: None, ..options() }, "--train sidecar"),
    ];
    for (options, expected) in cases {
        let error = run(&pair, options, &out, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains(expected) && !out.with_extension("gguf.partial").exists(), "{error}");
    }
    let mut other = blank_adapter(&student(&pair), 1).unwrap();
    other.pairs[0].tensor = "blk.1.ffn_gate_inp.weight".to_owned();
    let error = run(&pair, adapter_options(other), &out, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("`blk.1.ffn_gate_inp.weight"), "{error}");
    for rank in [0, 500] {
        assert!(blank_adapter(&student(&pair), rank).unwrap_err().to_string().contains("rank"));
    }
    for rank in [0, student(&pair).config.hidden + 1] {
        assert!(blank_sidecar(&student(&pair), rank).unwrap_err().to_string().contains("rank"));
    }
    assert!(blank_adapter(&pair.teacher, 1).unwrap_err().to_string().contains("no ternary"));
}
