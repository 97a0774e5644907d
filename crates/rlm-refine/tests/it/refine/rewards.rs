//! Runs whose steps are taken on the rewards of sampled answers.

use std::path::Path;

use behavior_eval::suite::Suite;
use gguf_bitnet::{GgufFile, TensorSource};
use moe_runtime::ModelFiles;
use rlm_refine::adapt::{GrpoOptions, PolicyRule, Practice};
use rlm_refine::train::{RefineReport, Refiner, TrainModel, TrainOptions};
use tl_kernels::Pool;

use super::{Pair, options, pair};

fn suite(name: &str) -> Suite {
    let suites = fixtures::path("suites");
    Suite::open(&suites.join(format!("{name}.jsonl")), &suites.join(format!("{name}.corpus.jsonl"))).unwrap()
}

fn grpo(rule: PolicyRule) -> GrpoOptions {
    GrpoOptions { prompts: 3, max_new_tokens: 24, rule, ..GrpoOptions::default() }
}

fn rewarded_run(pair: &Pair, rule: PolicyRule, out: &Path) -> rlm_refine::Result<RefineReport> {
    let student = ModelFiles::open(&pair.student).unwrap();
    let (pool, suite) = (Pool::new(2).unwrap(), suite("unseen-training"));
    let options = TrainOptions { steps: 3, grpo: Some(grpo(rule)), ..options() };
    let refiner = Refiner::new(&student, &pair.teacher, &pair.calibration, options, &pool).practising(&suite);
    refiner.run(out, false, None, &mut |_| {})
}

#[test]
fn zero_rewards_change_no_number() {
    let pair = pair();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("zero.gguf");
    let report = rewarded_run(&pair, PolicyRule::ZeroRewards, &out).unwrap();
    assert_eq!((report.dropped_groups, report.steps), (Some(1.0), 3));
    let (old, new) = (GgufFile::open(&pair.student).unwrap(), GgufFile::open(&out).unwrap());
    for (i, info) in old.tensors().iter().enumerate().filter(|(_, info)| !info.name.contains("_shexp")) {
        assert!(old.bytes(i).unwrap()[..] == new.bytes(i).unwrap()[..], "{}", info.name);
    }

    // In memory, every trained value has the same bits.
    let student = ModelFiles::open(&pair.student).unwrap();
    let pool = Pool::new(2).unwrap();
    let mut model = TrainModel::new(&student, &options().groups, &pool).unwrap();
    let before = model.weights.params.clone();
    let rule = grpo(PolicyRule::ZeroRewards);
    let practice = Practice::new([&student, &pair.teacher], &suite("unseen-training"), rule, 0, &pool).unwrap();
    let figures = practice.update(&mut model, 0, None, &mut |_| panic!("no step is taken")).unwrap();
    assert_eq!((figures.reward, figures.dropped), (0.0, 3));
    for (a, b) in before.list().iter().zip(model.weights.params.list()) {
        assert!(a.values.iter().zip(&b.values).all(|(a, b)| a.to_bits() == b.to_bits()), "{}", a.name);
    }
}

#[test]
fn small_groups_and_suites_without_prompts_to_hold_out_are_refused() {
    let pair = pair();
    let student = ModelFiles::open(&pair.student).unwrap();
    let pool = Pool::serial();
    let small = GrpoOptions { group: 1, ..GrpoOptions::default() };
    let error = Practice::new([&student, &pair.teacher], &suite("unseen-training"), small, 0, &pool).unwrap_err();
    assert!(error.to_string().contains("groups of 1") && error.to_string().contains("at least 4"), "{error}");
}
