//! Experts that are trained one after the other: what they gain, what a stop or a cut leaves as it is, what is refused.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use gguf_bitnet::{GgufFile, Parts, Shard, TensorSource};
use moe_runtime::ModelFiles;
use rlm_refine::train::{
    SequentialExpertDistiller, SequentialOptions, SequentialProgress, SequentialReport, TrainModel,
};
use tl_kernels::Pool;

use super::{LOSS, Pair, pair_of};
use crate::events::events;

const OPTIONS: SequentialOptions = SequentialOptions { steps: 12, windows_per_step: 12, lr: 1e-3, seed: 0 };

fn distill(
    pair: &Pair,
    options: SequentialOptions,
    (out, shard): (&Path, Option<Shard>),
    threads: usize,
    progress: &mut dyn FnMut(SequentialProgress),
) -> rlm_refine::Result<SequentialReport> {
    let student = ModelFiles::open(&pair.student).unwrap();
    let pool = Pool::new(threads).unwrap();
    let distiller = SequentialExpertDistiller::new(&student, &pair.teacher, &pair.calibration, options, &pool);
    distiller.run(out, shard, false, progress)
}

/// Mean divergence from the teacher on windows that no expert was trained on.
fn divergence(pair: &Pair, student: &Path) -> f64 {
    let held_out = rlm_refine::train::held_out_windows(pair.calibration.windows());
    let (files, pool) = (ModelFiles::open(student).unwrap(), Pool::new(2).unwrap());
    let model = |files| TrainModel::new(files, &[], &pool).unwrap();
    let mut targets = model(&pair.teacher).targets(&held_out).unwrap();
    model(&files).loss(&held_out, &mut targets, LOSS).unwrap().mean_kl()
}

#[test]
fn experts_learn_what_the_teachers_compute_and_nothing_else_changes() {
    let pair = pair_of(60_000, 6000);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("distilled.gguf");
    let mut report = None;
    let seen = events(|| report = Some(distill(&pair, OPTIONS, (&out, None), 2, &mut |_| {}).unwrap()));
    let experts = report.unwrap().experts;
    assert_eq!(experts.len(), 4 * 8);
    let kept = experts.iter().filter(|expert| expert.is_kept).count();
    assert!(kept > 24, "{kept} of 32 experts: {experts:?}");
    for expert in experts.iter().filter(|expert| expert.is_kept) {
        let [before, after] = expert.error.unwrap();
        assert!(after < before && expert.changed_trits < 0.2 && expert.tokens > 0, "{expert:?}");
    }
    assert!(experts.iter().any(|expert| expert.changed_trits > 0.0));
    let (before, after) = (divergence(&pair, &pair.student), divergence(&pair, &out));
    assert!(after < 0.95 * before, "{before} {after}");

    let (old, new) = (GgufFile::open(&pair.student).unwrap(), GgufFile::open(&out).unwrap());
    assert_eq!(old.tensors(), new.tensors());
    for (i, info) in old.tensors().iter().enumerate() {
        let changed = old.bytes(i).unwrap()[..] != new.bytes(i).unwrap()[..];
        assert_eq!(changed, info.name.contains("_exps"), "{}", info.name);
    }
    assert_eq!(new.metadata().str("craftsman.bitnet.weight_encoding").unwrap(), Some("distilled_ternary"));

    let announced: Vec<_> = seen.iter().filter(|(name, _)| name == "ExpertDistilled").map(|(_, f)| f).collect();
    assert_eq!(announced.len(), experts.len());
    for (fields, expert) in announced.into_iter().zip(&experts) {
        let [before, after] = expert.error.unwrap();
        for (field, value) in [
            ("layer", expert.layer.to_string()),
            ("expert", expert.expert.to_string()),
            ("trits", expert.trits.to_string()),
            ("changed_trits", format!("{:?}", expert.changed_trits)),
            ("tokens", expert.tokens.to_string()),
            ("error_before", format!("{before:?}")),
            ("error_after", format!("{after:?}")),
            ("is_kept", expert.is_kept.to_string()),
        ] {
            assert_eq!(fields[field], value, "{field}");
        }
    }
}

/// Writes the teacher into `dir` with the routed experts of each layer exchanged, by their names in the checkpoint.
fn exchange_experts(dir: &Path) {
    let teacher = fixtures::path("craftsman-mini");
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(teacher.join(name), dir.join(name)).unwrap();
    }
    let mut bytes = std::fs::read(teacher.join("model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for i in 0..header {
        if bytes[..i].ends_with(b".experts.") && bytes[i].is_ascii_digit() {
            bytes[i] = b'0' + (bytes[i] - b'0' + 1) % 8;
        }
    }
    std::fs::write(dir.join("model.safetensors"), bytes).unwrap();
}

#[test]
fn experts_of_another_teacher_gain_nothing() {
    let pair = pair_of(30_000, 3000);
    let dir = tempfile::tempdir().unwrap();
    exchange_experts(dir.path());
    let control = Pair { teacher: ModelFiles::open(dir.path()).unwrap(), ..pair };
    let out = dir.path().join("control.gguf");
    distill(&control, OPTIONS, (&out, None), 2, &mut |_| {}).unwrap();
    let truth = Pair { teacher: ModelFiles::open(&fixtures::path("craftsman-mini")).unwrap(), ..control };
    let (before, after) = (divergence(&truth, &truth.student), divergence(&truth, &out));
    assert!(after > before, "{before} {after}");
}

#[test]
fn a_stop_a_cut_and_the_threads_leave_the_bytes_as_they_are() {
    let pair = pair_of(18_000, 1200);
    let dir = tempfile::tempdir().unwrap();
    let options = SequentialOptions { steps: 3, windows_per_step: 4, ..OPTIONS };
    let whole = dir.path().join("whole.gguf");
    distill(&pair, options, (&whole, None), 2, &mut |_| {}).unwrap();
    let whole = std::fs::read(whole).unwrap();

    let out = dir.path().join("stopped.gguf");
    let stopped = catch_unwind(AssertUnwindSafe(|| {
        distill(&pair, options, (&out, None), 1, &mut |progress| {
            if let SequentialProgress::Expert(expert) = progress {
                assert!(expert.layer < 3, "the process ends here");
            }
        })
    }));
    assert!(stopped.is_err() && !out.exists());
    let mut layers = Vec::new();
    let mut note = |progress| {
        if let SequentialProgress::Expert(expert) = progress {
            layers.push(expert.layer);
        }
    };
    distill(&pair, options, (&out, None), 1, &mut note).unwrap();
    assert_eq!(layers, [4; 8], "the layers before are not trained again");
    assert!(std::fs::read(&out).unwrap() == whole);

    let parts: Vec<PathBuf> = (1..=2).map(|number| dir.path().join(format!("{number}.part"))).collect();
    for (number, part) in parts.iter().enumerate() {
        let shard = format!("{}/2", number + 1).parse().unwrap();
        let report = distill(&pair, options, (part, Some(shard)), 2, &mut |_| {}).unwrap();
        assert_eq!(report.experts.len(), 2 * 8, "each part trains two of the four layers");
    }
    let parts = Parts::open(&parts).unwrap();
    let joined: Vec<u8> = (0..parts.units()).flat_map(|unit| parts.read(unit).unwrap()).collect();
    assert!(joined == whole);
}

#[test]
fn a_student_without_ternary_experts_is_refused() {
    let pair = pair_of(18_000, 1200);
    let dir = tempfile::tempdir().unwrap();
    let dense = Pair { student: fixtures::path("craftsman-mini"), ..pair };
    let out = dir.path().join("distilled.gguf");
    let error = distill(&dense, OPTIONS, (&out, None), 1, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("bitnet quantize"), "{error}");
}
