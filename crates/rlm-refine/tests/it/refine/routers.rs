//! The repair of routers behind a run.

use std::collections::BTreeMap;

use gguf_bitnet::{GgufFile, TensorSource};
use moe_runtime::ModelFiles;
use rlm_refine::train::{Refiner, RouterLabels, RouterMethod, TrainModel, TrainOptions, repair_routers};
use tl_kernels::Pool;

use super::{options, pair_of, run};
use crate::events::events;

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
    for method in [RouterMethod::Ridge, RouterMethod::Hinge, RouterMethod::Contrastive] {
        let [taught, shuffled] =
            [RouterLabels::Teacher, RouterLabels::Shuffled { seed: 3 }].map(|labels| gain(method, labels));
        assert!(taught > 0.0 && shuffled <= 0.0, "{method}: {taught} with the teacher's labels, {shuffled} shuffled");
    }
}
