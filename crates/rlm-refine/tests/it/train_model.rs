//! Whole models in training: numbers of the runtime, of PyTorch, and of differences.

use std::sync::Arc;

use behavior_eval::model::LanguageModel;
use gguf_bitnet::TensorClass;
use mla_attention::CacheType;
use moe_runtime::adapters::{AdapterFile, AdapterSet, AdapterSlot, FactorPair, sidecar_name};
use moe_runtime::{CraftsmanModel, LoadOptions, ModelFiles};
use rlm_refine::measure::TextScorer;
use rlm_refine::train::ops::loss::Target;
use rlm_refine::train::optim::{AdamW, Muon};
use rlm_refine::train::{
    Group, Kind, LossOptions, LossScale, RouteDistance, RouterTargets, SparseTargets, Targets, TrainModel,
    blank_adapter, blank_sidecar,
};
use safetensors::SafeTensors;
use ternary_core::ActMode;
use tl_kernels::Pool;

use crate::directions::{assert_model_gradient, dot, samples};
use crate::students::student;

/// Every group of weights that are not ternary.
const DENSE: [Group; 7] = [
    Group::Router,
    Group::Norms,
    Group::SharedExperts,
    Group::DenseNetwork,
    Group::Attention,
    Group::Head,
    Group::Embedding,
];

/// Logits of a teacher, `[n, vocab]`.
struct Logits<'a> {
    rows: &'a [f32],
    vocab: usize,
}

impl Targets for Logits<'_> {
    fn targets(&mut self, first: usize, n: usize, take: &mut dyn FnMut(usize, Target<'_>)) -> rlm_refine::Result<()> {
        for position in first..first + n {
            take(position, Target::Full(&self.rows[position * self.vocab..][..self.vocab]));
        }
        Ok(())
    }
}

fn tokens(n: usize, vocab: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 7919 + 13) % vocab) as u32).collect()
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).unwrap();
    tensor.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn runtime_logits(files: &ModelFiles, tokens: &[u32], adapters: AdapterSlot) -> Vec<f32> {
    let options = LoadOptions { act_mode: Some(ActMode::F32), ..LoadOptions::default() };
    let model = Arc::new(CraftsmanModel::from_files(files, &options).unwrap());
    let mut scorer = TextScorer::new(model, tokens.len(), CacheType::F32).unwrap().with_adapters(adapters);
    let mut logits = Vec::new();
    scorer.logits(tokens, 0, &mut |_, row| logits.extend_from_slice(row)).unwrap();
    logits
}

#[test]
fn logits_are_those_of_the_runtime_for_every_kind_of_layer() {
    let pool = Pool::new(2).unwrap();
    let mut cases: Vec<_> = [
        "glm-tiny",
        "glm-tiny-top4",
        "glm4-moe-gqa",
        "deepseek-v2-groups",
        "no-q-lora",
        "bitnet-plain",
        "llama-tied-odd",
    ]
    .iter()
    .map(|case| fixtures::path(format!("goldens/{case}")))
    .collect();
    let dir = tempfile::tempdir().unwrap();
    cases.push(student(dir.path()));
    for path in cases {
        let files = ModelFiles::open(&path).unwrap();
        let tokens = tokens(24, files.config.vocab);
        let model = TrainModel::new(&files, &[Group::Scales, Group::LatentTrits], &pool).unwrap();
        let windows = [tokens.clone(), tokens[..9].to_vec()];
        let ours = model.targets(&windows).unwrap().logits(0, 24 + 9);
        let theirs = windows.each_ref().map(|window| runtime_logits(&files, window, AdapterSlot::default())).concat();
        let largest = theirs.iter().fold(0.0f32, |m, z| m.max(z.abs()));
        let error = ours.iter().zip(&theirs).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(ours.len() == theirs.len() && error <= 1e-4 * largest, "{}: {error} of {largest}", path.display());
    }
}

#[test]
fn gradients_and_a_step_are_those_of_pytorch() {
    let bytes = std::fs::read(fixtures::path("goldens/gradients/glm-tiny.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let inputs = std::fs::read(fixtures::path("goldens/glm-tiny/golden.safetensors")).unwrap();
    let inputs = SafeTensors::deserialize(&inputs).unwrap();
    let ids = inputs.tensor("input_ids").unwrap();
    let ids: Vec<u32> = ids.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect();
    let files = ModelFiles::open(&fixtures::path("goldens/glm-tiny")).unwrap();
    let pool = Pool::new(2).unwrap();
    let mut model = TrainModel::new(&files, &DENSE, &pool).unwrap();
    let vocab = files.config.vocab;
    let mut teacher = floats(&inputs, "logits");
    teacher.chunks_exact_mut(vocab).for_each(|row| row.rotate_right(1));
    let mut targets = Logits { rows: &teacher, vocab };
    let options = LossOptions { kl: 1.0, ce: 0.1 };
    let windows = [ids];
    let scale = LossScale::of(options, &windows);
    let sums = model.loss_and_gradients(&windows, &mut targets, scale).unwrap();
    let expected = golden.tensor("loss").unwrap();
    let expected: Vec<f64> =
        expected.data().as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
    for (ours, theirs) in [sums.value(options), sums.mean_kl()].iter().zip(&expected) {
        assert!((ours - theirs).abs() < 1e-5 * theirs, "{ours} {theirs}");
    }
    let mut compared = 0;
    for param in model.weights.params.list() {
        let record = floats(&golden, &param.name);
        let (largest, rest) = (record[0], &record[1..]);
        let (gradients, stepped) = rest.split_at(rest.len() / 2);
        let stride = (param.values.len() / 16).max(1);
        for (i, (expected, stepped)) in gradients.iter().zip(stepped).enumerate() {
            let (at, gradient) = (i * stride, param.gradient[i * stride]);
            assert!((gradient - expected).abs() <= 1e-3 * largest, "{} [{at}]: {gradient} {expected}", param.name);
            assert!((param.values[at] - 0.05 * gradient - stepped).abs() <= 1e-5, "{} [{at}] after a step", param.name);
            compared += 1;
        }
    }
    // Routed experts are trained as trits only, so all but four tensors of the file are compared.
    assert_eq!(model.weights.params.list().len(), files.catalog.tensors().len() - 4);
    assert!(compared > 400, "{compared}");
}

#[test]
fn adamw_and_muon_step_as_their_references() {
    let bytes = std::fs::read(fixtures::path("goldens/gradients/optimisers.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    for (label, cols) in [("", 10), ("tall.", 6)] {
        let start = floats(&golden, &format!("{label}start"));
        let (mut adamw, mut muon) = (start.clone(), start.clone());
        let mut state = [(); 3].map(|()| vec![0.0; start.len()]);
        for i in 0..3 {
            let gradient = floats(&golden, &format!("{label}gradient.{i}"));
            let [mean, squares, momentum] = &mut state;
            let rule = AdamW { weight_decay: 0.1, ..AdamW::default() };
            rule.step(0.01, i + 1, &mut adamw, &gradient, [mean, squares]);
            let rule = Muon { weight_decay: 0.1, ..Muon::default() };
            rule.step(&Pool::serial(), 0.01, cols, [&mut muon, momentum], &gradient);
            for (ours, name) in [(&adamw, "adamw"), (&muon, "muon")] {
                let theirs = floats(&golden, &format!("{label}{name}.{i}"));
                let error = ours.iter().zip(&theirs).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
                assert!(error <= 1e-6, "{label}{name} step {i}: {error}");
            }
        }
        assert!(dot(&adamw, &start) != dot(&start, &start));
    }
}

/// Checks every group that a model has, along directions through all tensors of the group; `prepare` changes it first.
fn assert_group_gradients(path: &std::path::Path, groups: &[Group], prepare: impl Fn(&mut TrainModel<'_>)) {
    let files = ModelFiles::open(path).unwrap();
    let pool = Pool::new(2).unwrap();
    let windows = [tokens(10, files.config.vocab), tokens(7, files.config.vocab)];
    let rows = (0..17).map(|i| (vec![i, i + 20, i + 40], vec![0.5, 0.2, 0.1])).collect();
    let options = LossOptions { kl: 1.0, ce: 0.3 };
    let mut targets = SparseTargets { rows };
    let mut model = TrainModel::new(&files, groups, &pool).unwrap();
    prepare(&mut model);
    model.loss_and_gradients(&windows, &mut targets, LossScale::of(options, &windows)).unwrap();
    let known = model.weights.params.clone();
    let model = std::cell::RefCell::new(model);
    for &group in groups {
        let of_group = || known.list().iter().filter(|param| param.group == group);
        let values: Vec<f32> = of_group().flat_map(|param| &param.values).copied().collect();
        let gradient: Vec<f32> = of_group().flat_map(|param| &param.gradient).copied().collect();
        assert!(dot(&gradient, &gradient) > 0.0, "{}: {group} has a gradient", path.display());
        let what = format!("{}: {group}", path.display());
        assert_model_gradient(&what, &values, &gradient, |values| {
            let mut model = model.borrow_mut();
            let mut rest = values;
            for param in model.weights.params.list_mut().iter_mut().filter(|param| param.group == group) {
                let (head, tail) = rest.split_at(param.values.len());
                param.values.copy_from_slice(head);
                rest = tail;
            }
            let mut targets = SparseTargets { rows: targets.rows.clone() };
            let loss = model.loss(&windows, &mut targets, options).unwrap().value(options);
            let own = known.list();
            model.weights.params.list_mut().iter_mut().zip(own).for_each(|(p, own)| p.values.clone_from(&own.values));
            loss
        });
    }
}

#[test]
fn gradients_of_every_group_follow_differences_of_the_loss() {
    let case = |name: &str| fixtures::path(format!("goldens/{name}"));
    // Routers are left out: a step of theirs moves tokens to other experts, where the loss jumps.
    let groups =
        [Group::Norms, Group::SharedExperts, Group::DenseNetwork, Group::Attention, Group::Head, Group::Embedding];
    assert_group_gradients(&case("glm4-moe-gqa"), &groups, |_| {});
    assert_group_gradients(&case("no-q-lora"), &groups[..5], |_| {});
    let dir = tempfile::tempdir().unwrap();
    let student = student(dir.path());
    assert_group_gradients(&student, &[Group::Scales], |_| {});
    assert_group_gradients(&student, &[Group::Scales, Group::LatentTrits], |model| {
        model.weights.hardness = 0.0;
        let latents = model.weights.params.list_mut().iter_mut().filter(|p| p.kind == Kind::Latents);
        latents.for_each(|p| p.values.iter_mut().for_each(|u| *u *= 0.7));
    });
}

/// An adapter of rank 2 for every matrix of a model that takes one, with random factors.
fn adapter_of_all(files: &ModelFiles) -> AdapterFile {
    let takes = [
        TensorClass::Attention,
        TensorClass::DenseFfn,
        TensorClass::SharedExpert,
        TensorClass::RoutedExpert,
        TensorClass::Head,
    ];
    let mut pairs = Vec::new();
    for (seed, tensor) in (0..).zip(files.catalog.tensors()).filter(|(_, tensor)| takes.contains(&tensor.class)) {
        let (stack, matrix) = tensor.shape.split_at(tensor.shape.len() - 2);
        let [a_shape, b_shape] = [[2, matrix[1]], [matrix[0], 2]].map(|shape| [stack, &shape[..]].concat());
        // As large as the matrix, so that wide ones are not drowned.
        let size = (0.3 / (matrix[0] + matrix[1]) as f32).sqrt();
        let factor = |seed, shape: &[usize]| -> Vec<f32> {
            samples(seed, shape.iter().product()).iter().map(|v| size * v).collect()
        };
        let (a, b) = (factor(2 * seed, &a_shape), factor(2 * seed + 1, &b_shape));
        pairs.push(FactorPair { tensor: tensor.name.clone(), a_shape, b_shape, a, b });
    }
    // Additions count half.
    AdapterFile { architecture: files.config.arch.gguf_name().to_owned(), model: None, alpha: 1.0, pairs }
}

/// Compares a model with `adapter` in training with the runtime, and the gradient of the adapter with differences. The runtime has
/// `of_runtime` of the additions.
fn assert_trained_as_computed(path: &std::path::Path, group: Group, adapter: &AdapterFile, of_runtime: &AdapterFile) {
    let (pool, files) = (Pool::new(2).unwrap(), ModelFiles::open(path).unwrap());
    let mut model = TrainModel::new(&files, &[group], &pool).unwrap();
    model.weights.add_adapter(adapter, 0).unwrap();
    let tokens = tokens(24, files.config.vocab);
    let ours = model.targets(std::slice::from_ref(&tokens)).unwrap();
    let set = AdapterSet::new(&files, &[(of_runtime, 1.0)]).unwrap();
    let theirs = runtime_logits(&files, &tokens, AdapterSlot::new(Some(Arc::new(set))));
    let plain = runtime_logits(&files, &tokens, AdapterSlot::default());
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    let largest = theirs.iter().fold(0.0f32, |m, z| m.max(z.abs()));
    let error = distance(&ours.logits(0, 24), &theirs);
    assert!(error <= 1e-4 * largest, "{}: {error} of {largest}", path.display());
    assert!(distance(&plain, &theirs) > 1e-2 * largest, "the additions count");
    assert_group_gradients(path, &[group], |model| model.weights.add_adapter(adapter, 0).unwrap());
}

#[test]
fn an_adapter_in_training_computes_what_the_runtime_computes_with_it_and_its_gradient_follows_differences() {
    let dir = tempfile::tempdir().unwrap();
    let case = |name: &str| fixtures::path(format!("goldens/{name}"));
    for path in [case("glm4-moe-gqa"), case("no-q-lora"), student(dir.path())] {
        let adapter = adapter_of_all(&ModelFiles::open(&path).unwrap());
        // The head of a teacher has no addition, so that of the runtime is left out here.
        let mut without_head = adapter.clone();
        without_head.pairs.retain(|pair| pair.tensor != "output.weight");
        assert!(without_head.pairs.len() + 1 == adapter.pairs.len(), "{}", path.display());
        assert_trained_as_computed(&path, Group::Adapter, &adapter, &without_head);
    }
}

/// Sidecars of rank 3 for every layer of a model, with random factors.
fn sidecars_of_all(files: &ModelFiles) -> AdapterFile {
    let hidden = files.config.hidden;
    let size = (0.15 / hidden as f32).sqrt();
    let pairs = (0..files.config.n_layers).map(|layer| {
        let factor = |seed| -> Vec<f32> { samples(seed, 3 * hidden).iter().map(|v| size * v).collect() };
        let [a, b] = [0, 1].map(|i| factor(1000 + 2 * layer as u64 + i));
        FactorPair { tensor: sidecar_name(layer), a_shape: vec![3, hidden], b_shape: vec![hidden, 3], a, b }
    });
    let (architecture, pairs) = (files.config.arch.gguf_name().to_owned(), pairs.collect());
    AdapterFile { architecture, model: None, alpha: 2.0, pairs }
}

#[test]
fn a_sidecar_in_training_computes_what_the_runtime_computes_with_it_and_its_gradient_follows_differences() {
    let dir = tempfile::tempdir().unwrap();
    let case = |name: &str| fixtures::path(format!("goldens/{name}"));
    // Latent attention with and without compressed queries, grouped attention, dense models, trits.
    let cases = ["glm-tiny", "no-q-lora", "glm4-moe-gqa", "llama-tied-odd", "bitnet-plain"].map(case);
    for path in cases.into_iter().chain([student(dir.path())]) {
        let sidecars = sidecars_of_all(&ModelFiles::open(&path).unwrap());
        assert_trained_as_computed(&path, Group::Sidecar, &sidecars, &sidecars);
    }
}

#[test]
fn sidecars_are_trained_beside_additions_to_matrices() {
    let dir = tempfile::tempdir().unwrap();
    let path = student(dir.path());
    let files = ModelFiles::open(&path).unwrap();
    let mut both = adapter_of_all(&files);
    both.pairs.extend(sidecars_of_all(&files).pairs);
    let groups = [Group::Adapter, Group::Sidecar];
    assert_group_gradients(&path, &groups, |model| model.weights.add_adapter(&both, 0).unwrap());
    // Kept or computed again, on any number of threads.
    let windows = [tokens(20, files.config.vocab), tokens(13, files.config.vocab)];
    let gradients = |keeps_activations: bool, threads: usize| -> Vec<Vec<f32>> {
        let pool = Pool::new(threads).unwrap();
        let mut model = TrainModel::new(&files, &groups, &pool).unwrap();
        model.weights.add_adapter(&both, 0).unwrap();
        model.keeps_activations = keeps_activations;
        let mut targets = SparseTargets { rows: (0..33).map(|i| (vec![i, i + 20], vec![0.6, 0.3])).collect() };
        let scale = LossScale::of(LossOptions { kl: 1.0, ce: 0.5 }, &windows);
        model.loss_and_gradients(&windows, &mut targets, scale).unwrap();
        model.weights.params.list().iter().map(|param| param.gradient.clone()).collect()
    };
    assert!(gradients(false, 1) == gradients(true, 2));
}

#[test]
fn an_addition_of_nothing_changes_no_number_and_can_be_trained() {
    let dir = tempfile::tempdir().unwrap();
    let files = ModelFiles::open(&student(dir.path())).unwrap();
    let pool = Pool::new(2).unwrap();
    let windows = [tokens(20, files.config.vocab)];
    for blank in [blank_adapter(&files, 1).unwrap(), blank_sidecar(&files, 4).unwrap()] {
        let mut model = TrainModel::new(&files, &[], &pool).unwrap();
        let plain = model.hidden(&windows).unwrap();
        model.weights.add_adapter(&blank, 5).unwrap();
        assert_eq!(model.hidden(&windows).unwrap(), plain);
        let mut targets = SparseTargets { rows: vec![(vec![3], vec![1.0]); 20] };
        let scale = LossScale::of(LossOptions { kl: 1.0, ce: 0.0 }, &windows);
        model.loss_and_gradients(&windows, &mut targets, scale).unwrap();
        let moved = |kind| {
            let of_kind = model.weights.params.list().iter().filter(|param| param.kind == kind);
            of_kind.map(|param| dot(&param.gradient, &param.gradient)).sum::<f64>()
        };
        assert!(moved(Kind::FactorA) == 0.0 && moved(Kind::FactorB) > 0.0);
    }
}

/// So large that the term outweighs the divergence of the predictions.
const TERM: f32 = 50.0;

#[test]
fn activations_that_are_kept_or_computed_again_give_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let case = |name: &str| fixtures::path(format!("goldens/{name}"));
    let of_latents = [Group::Scales, Group::LatentTrits, Group::Norms, Group::SharedExperts];
    let of_matrices =
        [Group::Router, Group::Attention, Group::DenseNetwork, Group::Norms, Group::Head, Group::Embedding];
    for (path, groups) in [
        (student(dir.path()), &of_latents[..]),
        (case("glm4-moe-gqa"), &of_matrices),
        (case("no-q-lora"), &of_matrices),
    ] {
        let files = ModelFiles::open(&path).unwrap();
        let windows = [tokens(20, files.config.vocab), tokens(13, files.config.vocab)];
        let gradients = |keeps_activations: bool, drops_pages: bool, threads: usize| -> Vec<Vec<f32>> {
            let pool = Pool::new(threads).unwrap();
            let mut model = TrainModel::new(&files, groups, &pool).unwrap();
            model.keeps_activations = keeps_activations;
            model.weights.drops_pages = drops_pages;
            let mut targets = SparseTargets { rows: (0..33).map(|i| (vec![i, i + 20], vec![0.6, 0.3])).collect() };
            let scale = LossScale::of(LossOptions { kl: 1.0, ce: 0.5 }, &windows);
            model.loss_and_gradients(&windows, &mut targets, scale).unwrap();
            model.weights.params.list().iter().map(|param| param.gradient.clone()).collect()
        };
        let again = gradients(false, true, 1);
        assert!(again.iter().flatten().any(|g| *g != 0.0), "{}", path.display());
        assert!(again == gradients(true, false, 2), "{}", path.display());
    }
}

#[test]
fn the_gradient_of_the_routers_term_follows_differences() {
    let pool = Pool::new(2).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let teacher = ModelFiles::open(&fixtures::path("goldens/glm-tiny")).unwrap();
    let files = ModelFiles::open(&student(dir.path())).unwrap();
    let teacher = TrainModel::new(&teacher, &[], &pool).unwrap();
    // Of few tokens: a step that moves one to another expert makes the loss jump.
    let windows = [tokens(4, files.config.vocab), tokens(3, files.config.vocab)];
    let mut targets = RouterTargets::new(&teacher, &windows, TERM).unwrap();
    let mut model = TrainModel::new(&files, &[Group::Norms], &pool).unwrap();
    let before = targets.distance(&model, &windows).unwrap();
    assert!(before.divergence > 0.0, "{before:?}");
    assert_eq!(targets.distance(&teacher, &windows).unwrap(), RouteDistance { divergence: 0.0, agreement: 1.0 });
    let options = LossOptions { kl: 1.0, ce: 0.0 };
    model.loss_and_gradients(&windows, &mut targets, LossScale::of(options, &windows)).unwrap();
    let params = model.weights.params.list().to_vec();
    let values: Vec<f32> = params.iter().flat_map(|param| &param.values).copied().collect();
    let gradient: Vec<f32> = params.iter().flat_map(|param| &param.gradient).copied().collect();
    let (model, targets) = (std::cell::RefCell::new(model), std::cell::RefCell::new(targets));
    assert_model_gradient("routes", &values, &gradient, |values| {
        let (mut model, mut targets) = (model.borrow_mut(), targets.borrow_mut());
        let mut rest = values;
        for param in model.weights.params.list_mut() {
            let (head, tail) = rest.split_at(param.values.len());
            param.values.copy_from_slice(head);
            rest = tail;
        }
        let loss = model.loss(&windows, &mut *targets, options).unwrap().value(options);
        loss + f64::from(TERM) * targets.distance(&model, &windows).unwrap().divergence
    });
}
