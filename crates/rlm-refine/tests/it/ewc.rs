//! The penalty on moves of numbers that matter for protected texts: its numbers, its effect, its controls.

use std::path::Path;

use moe_runtime::ModelFiles;
use rlm_refine::adapt::{EwcOptions, EwcRegularizer, FisherKind};
use rlm_refine::train::optim::{Optimizer, OptimizerOptions};
use rlm_refine::train::{Group, Kind, LossOptions, LossScale, SparseTargets, TrainModel, rate_factor};
use safetensors::SafeTensors;
use tl_kernels::Pool;

use crate::directions::dot;
use crate::events::events;
use crate::students::student;

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).unwrap();
    tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

const DENSE: [Group; 7] = [
    Group::Router,
    Group::Norms,
    Group::SharedExperts,
    Group::DenseNetwork,
    Group::Attention,
    Group::Head,
    Group::Embedding,
];

/// The tiny checkpoint's information over the three windows of `gen_gradients.py`.
fn tiny<'a>(model: &mut TrainModel<'a>) -> EwcRegularizer {
    let inputs = std::fs::read(fixtures::path("goldens/glm-tiny/golden.safetensors")).unwrap();
    let inputs = SafeTensors::deserialize(&inputs).unwrap();
    let ids = inputs.tensor("input_ids").unwrap();
    let ids: Vec<u32> = ids.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect();
    let vocab = model.files().config.vocab as u32;
    let mut ewc = EwcRegularizer::new(EwcOptions { decay: 0.9, ..EwcOptions::default() }, &model.weights.params);
    for (number, window) in ids.chunks_exact(8).take(3).enumerate() {
        let labels: Vec<u32> = (0..8).map(|t| (7 * t + 3 * number as u32) % vocab).collect();
        ewc.add_window(model, window, &labels).unwrap();
    }
    ewc
}

#[test]
fn the_information_and_the_penalty_are_those_of_pytorch() {
    let bytes = std::fs::read(fixtures::path("goldens/gradients/fisher.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let files = ModelFiles::open(&fixtures::path("goldens/glm-tiny")).unwrap();
    let pool = Pool::new(2).unwrap();
    let mut model = TrainModel::new(&files, &DENSE, &pool).unwrap();
    let ewc = tiny(&mut model);
    let mut compared = 0;
    for (number, param) in model.weights.params.list().iter().enumerate() {
        let record = floats(&golden, &param.name);
        let (largest, stride) = (f64::from(record[0]), (param.values.len() / 16).max(1));
        let ours = ewc.fisher(number);
        assert!(largest > 0.0 && ours.len() == param.values.len(), "{}", param.name);
        for (expected, ours) in record[1..].iter().zip(ours.iter().step_by(stride)) {
            assert!((ours - f64::from(*expected)).abs() <= 2e-3 * largest, "{}: {ours} {expected}", param.name);
            compared += 1;
        }
    }
    assert!(compared > 400, "{compared}");

    let penalty = golden.tensor("penalty").unwrap();
    let expected = f64::from_le_bytes(penalty.data().try_into().unwrap());
    let mut moved = model.weights.params.clone();
    for param in moved.list_mut() {
        let step = 0.01 * param.values.iter().fold(0.0f32, |most, w| most.max(w.abs()));
        param.values.iter_mut().for_each(|w| *w += step);
    }
    let ours = ewc.penalty(&moved);
    assert!((ours - expected).abs() < 2e-3 * expected, "{ours} {expected}");
    assert!(ewc.penalty(&model.weights.params) == 0.0, "nothing has moved");
}

#[test]
fn the_gradient_of_the_penalty_follows_its_differences_for_all_numbers_and_for_the_kept_ones() {
    let files = ModelFiles::open(&fixtures::path("goldens/glm-tiny")).unwrap();
    let pool = Pool::new(2).unwrap();
    let windows = [vec![3, 1, 4, 1, 5, 9, 2, 6], vec![2, 7, 1, 8, 2, 8]];
    for keep in [None, Some(500)] {
        let mut model = TrainModel::new(&files, &[Group::Norms, Group::Router], &pool).unwrap();
        let options = EwcOptions { lambda: 3.0, keep, ..EwcOptions::default() };
        let mut ewc = EwcRegularizer::new(options, &model.weights.params);
        ewc.add_phase(&mut model, &windows).unwrap();
        assert_eq!(keep.is_some(), ewc.kept() == 500);
        let mut moved = model.weights.params.clone();
        moved
            .list_mut()
            .iter_mut()
            .flat_map(|p| &mut p.values)
            .enumerate()
            .for_each(|(i, w)| *w += 0.01 * (i % 5) as f32);
        let value = ewc.add_gradient(&mut moved);
        assert!(value > 0.0 && value == ewc.penalty(&moved));
        let gradient: Vec<f32> = moved.list().iter().flat_map(|param| param.gradient.clone()).collect();
        for seed in 0..8u64 {
            let mut random = moe_runtime::SplitMix64::new(seed);
            let along: Vec<f32> = gradient.iter().map(|_| (random.next_f64() - 0.5) as f32).collect();
            let at = |step: f32| {
                let mut params = moved.clone();
                let values = params.list_mut().iter_mut().flat_map(|p| &mut p.values);
                values.zip(&along).for_each(|(w, v)| *w += step * v);
                ewc.penalty(&params)
            };
            let wanted = dot(&gradient, &along);
            let error = (at(0.01) - at(-0.01)) / 0.02 - wanted;
            assert!(error.abs() <= 1e-3 * wanted.abs(), "{error} of {wanted}");
        }
    }
}

#[test]
fn phases_add_up_and_are_announced() {
    let files = ModelFiles::open(&fixtures::path("goldens/glm-tiny")).unwrap();
    let pool = Pool::new(2).unwrap();
    let mut model = TrainModel::new(&files, &[Group::Norms], &pool).unwrap();
    let first = [vec![3, 1, 4, 1, 5, 9, 2, 6]];
    let second = [vec![2, 7, 1, 8, 2, 8]];
    let of = |model: &mut TrainModel<'_>, phases: &[&[Vec<u32>]]| {
        let mut ewc = EwcRegularizer::new(EwcOptions { decay: 0.5, ..EwcOptions::default() }, &model.weights.params);
        phases.iter().for_each(|windows| ewc.add_phase(model, windows).unwrap());
        ewc
    };
    let mut both = None;
    let mut seen = events(|| both = Some(of(&mut model, &[&first, &second])));
    let both = both.unwrap();
    let once = of(&mut model, &[&[first[0].clone(), second[0].clone()]]);
    assert_eq!((both.fisher(0), both.measured()), (once.fisher(0), (2, 14)), "a second phase replaces nothing");
    assert_ne!(both.fisher(0), of(&mut model, &[&second]).fisher(0), "the first phase counts");
    assert!(both.mean() > 0.0);
    seen.retain(|(name, _)| name == "EwcFisherUpdated");
    let fields = &seen[1].1;
    assert_eq!((seen.len(), fields["windows"].as_str(), fields["tokens"].as_str()), (2, "2", "14"));
    assert_eq!(fields["mean"].parse::<f64>().unwrap(), both.mean());
    assert_eq!(fields["kept"].parse::<usize>().unwrap(), both.kept());
    assert!(fields["largest"].parse::<f64>().unwrap() > both.mean() && fields["decay"] == "0.5");
}

#[test]
fn scales_and_latents_of_a_student_have_information() {
    let dir = tempfile::tempdir().unwrap();
    let files = ModelFiles::open(&student(dir.path())).unwrap();
    let pool = Pool::new(2).unwrap();
    let mut model = TrainModel::new(&files, &[Group::Scales, Group::LatentTrits], &pool).unwrap();
    let mut ewc = EwcRegularizer::new(EwcOptions::default(), &model.weights.params);
    ewc.add_phase(&mut model, &[vec![3, 1, 4, 1, 5, 9, 2, 6]]).unwrap();
    let kinds = [Kind::LogScales, Kind::Latents];
    let is_measured = |kind| {
        let of_kind = model.weights.params.list().iter().enumerate().filter(|(_, param)| param.kind == kind);
        of_kind.flat_map(|(number, _)| ewc.fisher(number)).any(|f| f > 0.0)
    };
    assert!(kinds.into_iter().all(is_measured));
}

/// Windows of 32 tokens of a fixture's text, as the mini teacher cuts it.
fn windows(files: &ModelFiles, name: &str, skip: usize, n: usize) -> Vec<Vec<u32>> {
    let text = std::fs::read_to_string(fixtures::path(name)).unwrap();
    let text: String = text.chars().skip(skip).take(40_000).collect();
    let tokens = files.tokenizer().unwrap().encode(&text, false).unwrap();
    tokens.chunks_exact(32).take(n).map(<[u32]>::to_vec).collect()
}

/// Mean divergence of the mini teacher's predictions for the protected text from what they were, and the loss on the other text,
/// behind a few steps towards the other text.
fn trained(path: &Path, fisher: Option<FisherKind>) -> [f64; 2] {
    let files = ModelFiles::open(path).unwrap();
    let pool = Pool::new(2).unwrap();
    let [protected, judged] = [0, 20_000].map(|skip| windows(&files, "texts/calibration-chat.jsonl", skip, 24));
    let other = windows(&files, "texts/calibration.txt", 0, 6);
    let frozen = TrainModel::new(&files, &[], &pool).unwrap();
    let mut model = TrainModel::new(&files, &[Group::Norms, Group::SharedExperts], &pool).unwrap();
    let options = fisher.map(|fisher| EwcOptions { lambda: 30.0, fisher, ..EwcOptions::default() });
    let ewc = options.map(|options| {
        let mut ewc = EwcRegularizer::new(options, &model.weights.params);
        ewc.add_phase(&mut model, &protected).unwrap();
        ewc
    });
    // The other text is learned token by token, which a model of both would not do.
    let loss = LossOptions { kl: 0.0, ce: 1.0 };
    let none = || SparseTargets { rows: vec![(Vec::new(), Vec::new()); 32 * other.len()] };
    let mut optimizer = Optimizer::new(OptimizerOptions::default(), &model.weights.params);
    for _ in 0..12 {
        model.weights.params.clear_gradients();
        model.loss_and_gradients(&other, &mut none(), LossScale::of(loss, &other)).unwrap();
        if let Some(ewc) = &ewc {
            ewc.add_gradient(&mut model.weights.params);
        }
        optimizer.step(&pool, &mut model.weights.params, &|param| 1e-3 * rate_factor(param.group, param.kind));
    }
    let kl = LossOptions { kl: 1.0, ce: 0.0 };
    let forgotten = model.loss(&judged, &mut frozen.targets(&judged).unwrap(), kl).unwrap().mean_kl();
    [forgotten, model.loss(&other, &mut none(), loss).unwrap().value(loss)]
}

#[test]
fn true_information_protects_a_text_better_than_the_same_numbers_at_other_places() {
    let path = fixtures::path("craftsman-mini");
    let kinds = [None, Some(FisherKind::Measured), Some(FisherKind::Shuffled), Some(FisherKind::Uniform)];
    let [none, measured, shuffled, uniform] = kinds.map(|fisher| trained(&path, fisher));
    let all =
        format!("[forgotten, loss]: none {none:?}, measured {measured:?}, shuffled {shuffled:?}, uniform {uniform:?}");
    assert!(measured[0] < 0.8 * none[0], "{all}");
    assert!(measured[0] < 0.9 * shuffled[0] && measured[0] < 0.9 * uniform[0], "{all}");
}
