//! Runs that leave protected texts as they are.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use moe_runtime::ModelFiles;
use rlm_refine::adapt::EwcOptions;
use rlm_refine::ptq::{Calibration, NamedText, WindowOptions};
use rlm_refine::train::{OnRefineProgress, RefineProgress, RefineReport, Refiner, TrainOptions};
use tl_kernels::Pool;

use super::{Pair, options, pair};

fn protected_run(
    pair: &Pair,
    ewc: EwcOptions,
    out: &Path,
    progress: &mut OnRefineProgress<'_>,
) -> rlm_refine::Result<RefineReport> {
    let student = ModelFiles::open(&pair.student).unwrap();
    let pool = Pool::new(2).unwrap();
    let text = std::fs::read_to_string(fixtures::path("texts/calibration-chat.jsonl")).unwrap();
    let text = text.lines().take(20).collect::<Vec<_>>().join("\n");
    let windows = WindowOptions { window_tokens: 24, max_tokens: 400, ..WindowOptions::default() };
    let texts = [NamedText { name: "chat".to_owned(), text }];
    let protected = Calibration::new(&pair.teacher, &Pool::serial(), &texts, &[], windows).unwrap();
    let options = TrainOptions { ewc: Some(ewc), ..options() };
    let refiner = Refiner::new(&student, &pair.teacher, &pair.calibration, options, &pool).protecting(&protected);
    refiner.run(out, false, None, progress)
}

#[test]
fn a_penalty_holds_the_student_the_report_says_by_how_much_and_a_stopped_run_ends_with_the_same_bytes() {
    let pair = pair();
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, lambda: f32| {
        let out = dir.path().join(name);
        let report = protected_run(&pair, EwcOptions { lambda, ..EwcOptions::default() }, &out, &mut |_| {}).unwrap();
        (out, report.protection.unwrap())
    };
    let (whole, held) = run("held.gguf", 1000.0);
    let (_, free) = run("free.gguf", 0.0);
    assert!(held.penalty < 0.5 * free.penalty && held.penalty > 0.0, "{} {}", held.penalty, free.penalty);
    assert!(held.windows > 4 && held.tokens > 100 && held.kept > 10_000);
    let [before, after] = held.held_out_kl.unwrap();
    assert!(before > 0.0 && after > 0.0 && before != after);
    assert!(held.drift.iter().any(|tensor| tensor.moved > 0.0 && tensor.penalty > 0.0 && tensor.fisher > 0.0));
    let sum: f64 = held.drift.iter().map(|tensor| tensor.penalty).sum();
    assert!((sum - held.penalty).abs() < 1e-12);

    let out = dir.path().join("stopped.gguf");
    let ewc = EwcOptions { lambda: 1000.0, ..EwcOptions::default() };
    let stopped = catch_unwind(AssertUnwindSafe(|| {
        protected_run(&pair, ewc, &out, &mut |progress| {
            if let RefineProgress::Step(step) = progress {
                assert!(step.point.step <= 2 && step.point.ewc.is_some(), "the process ends here");
            }
        })
    }));
    assert!(stopped.is_err() && !out.exists());
    let report = protected_run(&pair, ewc, &out, &mut |_| {}).unwrap();
    assert_eq!(report.protection.unwrap(), held);
    assert!(std::fs::read(&out).unwrap() == std::fs::read(&whole).unwrap());
}
