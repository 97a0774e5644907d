//! Runs whose steps are taken on the rewards of sampled answers.

use std::path::Path;

use behavior_eval::suite::Suite;
use gguf_bitnet::{GgufFile, TensorSource};
use moe_runtime::ModelFiles;
use rlm_refine::adapt::{GrpoOptions, PolicyRule, Practice};
use rlm_refine::train::{Group, Params, RefineReport, Refiner, TrainModel, TrainOptions, refuse_taught, taught_suites};
use tl_kernels::Pool;

use super::{Pair, options, pair};
use crate::events::events;

fn suite(name: &str) -> Suite {
    let suites = fixtures::path("suites");
    Suite::open(&suites.join(format!("{name}.jsonl")), &suites.join(format!("{name}.corpus.jsonl"))).unwrap()
}

fn grpo(rule: PolicyRule) -> GrpoOptions {
    GrpoOptions { prompts: 3, max_new_tokens: 24, rule, ..GrpoOptions::default() }
}

fn rewarded_run(pair: &Pair, grpo: GrpoOptions, lr: f32, out: &Path) -> rlm_refine::Result<RefineReport> {
    let student = ModelFiles::open(&pair.student).unwrap();
    let (pool, suite) = (Pool::new(2).unwrap(), suite("unseen-training"));
    let options = TrainOptions { steps: 3, lr, grpo: Some(grpo), ..options() };
    let refiner = Refiner::new(&student, &pair.teacher, &pair.calibration, options, &pool).practising(&suite);
    refiner.run(out, false, None, &mut |_| {})
}

#[test]
fn zero_rewards_change_no_number() {
    let pair = pair();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("zero.gguf");
    let mut report = None;
    let seen = events(|| report = Some(rewarded_run(&pair, grpo(PolicyRule::ZeroRewards), 1e-3, &out).unwrap()));
    let report = report.unwrap();
    // A step on rewards measures no loss and no divergence on windows, and announces none.
    let states: Vec<_> = seen.iter().filter(|(name, _)| name == "DistillationCheckpoint").collect();
    assert_eq!(states.len(), 3);
    for (_, fields) in states {
        let has = ["tokens", "held_out_kl", "loss", "kl"].map(|field| fields.contains_key(field));
        assert_eq!(has, [true, true, false, false], "{fields:?}");
    }
    assert_eq!((report.dropped_groups, report.steps), (Some(1.0), 3));
    // The suite counts as taught all the same: the student must not be judged on the prompts that it practised on.
    let (files, practised) = (ModelFiles::open(&out).unwrap(), suite("unseen-training"));
    assert_eq!(taught_suites(files.gguf().unwrap().metadata()).unwrap(), [practised.identity()]);
    let error = refuse_taught(&files, practised.identity()).unwrap_err().to_string();
    assert!(error.contains("zero.gguf was trained on this suite") && error.contains("--grpo"), "{error}");
    refuse_taught(&files, suite("unseen-held-out").identity()).unwrap();
    refuse_taught(&ModelFiles::open(&pair.student).unwrap(), practised.identity()).unwrap();

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
    let figures = practice.update(&mut model, 0, None, &mut |_, _| panic!("no step is taken")).unwrap();
    assert_eq!((figures.reward, figures.dropped), (0.0, 3));
    for (a, b) in before.list().iter().zip(model.weights.params.list()) {
        assert!(a.values.iter().zip(&b.values).all(|(a, b)| a.to_bits() == b.to_bits()), "{}", a.name);
    }
}

#[test]
fn each_update_announces_its_rewards_and_each_of_its_steps() {
    let pair = pair();
    let student = ModelFiles::open(&pair.student).unwrap();
    let pool = Pool::new(2).unwrap();
    let options = GrpoOptions { prompts: 4, ..grpo(PolicyRule::Grpo) };
    let practice = Practice::new([&student, &pair.teacher], &suite("unseen-training"), options, 0, &pool).unwrap();
    let mut model = TrainModel::new(&student, &[Group::Norms], &pool).unwrap();
    let (mut figures, mut losses) = (None, Vec::new());
    let seen = events(|| {
        let mut step = |_: &mut Params, loss: f64| {
            losses.push(loss);
            Ok(0.5 + losses.len() as f64)
        };
        figures = Some(practice.update(&mut model, 0, Some(0.125), &mut step).unwrap());
    });
    let figures = figures.unwrap();
    assert!(figures.groups == 4 && figures.dropped < 4 && figures.reward > 0.0, "{figures:?}");
    let of = |event: &str| seen.iter().filter(|(name, _)| name == event).map(|(_, fields)| fields).collect::<Vec<_>>();
    let [computed] = of("GrpoRewardComputed")[..] else { panic!("one event: {seen:?}") };
    let expected = [
        ("update", "1".to_owned()),
        ("groups", "4".to_owned()),
        ("dropped", figures.dropped.to_string()),
        ("reward", format!("{:?}", figures.reward)),
        ("kl", format!("{:?}", figures.kl)),
        ("beta", "0.125".to_owned()),
    ];
    for (field, value) in expected {
        assert_eq!(computed[field], value, "{field}");
    }
    // Two passes over the answers, and the factor of the penalty falls while the student stands still.
    let updated = of("AdapterUpdated");
    assert!(updated.len() == 2 && losses.len() == 2 && figures.beta < 0.125, "{figures:?}");
    for (i, fields) in updated.into_iter().enumerate() {
        let answers = 4 * (figures.groups - figures.dropped);
        let got = ["update", "epoch", "answers", "loss", "gradient"].map(|field| fields[field].clone());
        let loss = format!("{:?}", losses[i]);
        assert_eq!(got, ["1", &*(i + 1).to_string(), &*answers.to_string(), &*loss, &*format!("{:?}", 1.5 + i as f64)]);
        assert!(fields["tokens"].parse::<usize>().unwrap() >= answers);
    }
}

#[test]
fn a_value_that_is_not_finite_stops_a_run_on_rewards_and_no_state_is_saved() {
    let pair = pair();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("broken.gguf");
    let error = rewarded_run(&pair, GrpoOptions { epochs: 3, ..grpo(PolicyRule::Grpo) }, 1e25, &out).unwrap_err();
    assert!(error.to_string().contains(": a value of ") && error.to_string().contains("group `"), "{error}");
    assert!(!out.exists() && !dir.path().join("broken.gguf.partial").join("state.3").exists());
}

#[test]
fn small_groups_and_suites_without_prompts_to_hold_out_are_refused_before_anything_is_read() {
    let (pair, dir, pool) = (pair(), tempfile::tempdir().unwrap(), Pool::serial());
    let student = ModelFiles::open(&pair.student).unwrap();
    let out = dir.path().join("refused.gguf");
    let refusal = |suite: &Suite, options: GrpoOptions| {
        let options = TrainOptions { steps: 1, grpo: Some(options), ..super::options() };
        let refiner = Refiner::new(&student, &pair.teacher, &pair.calibration, options, &pool).practising(suite);
        let error = refiner.run(&out, false, None, &mut |_| panic!("nothing is read")).unwrap_err();
        assert!(!dir.path().join("refused.gguf.partial").exists());
        error.to_string()
    };
    let small = refusal(&suite("unseen-training"), GrpoOptions { group: 1, ..GrpoOptions::default() });
    assert!(small.contains("groups of 1") && small.contains("at least 4"), "{small}");
    let file = |name: &str| fixtures::path("goldens/artifact").join(name);
    let three = Suite::open(&file("suite.jsonl"), &file("suite.corpus.jsonl")).unwrap();
    let few = refusal(&three, GrpoOptions::default());
    assert!(few.contains("at least 5 prompts with labels") && few.contains("--grpo-suite"), "{few}");
}
