//! Adapters against weights with the same product added, against themselves in every cut, and refused where they do not
//! fit.

use std::path::Path;
use std::sync::Arc;

use gguf_bitnet::{GgufWriter, LogicalTensor, Metadata, RowOrder, TensorClass, TensorInfo, TensorType};
use mla_attention::CacheType;
use moe_runtime::adapters::{
    AdapterError, AdapterFile, AdapterSet, AdapterSlot, FactorPair, OpenAdapters, ScaledAdapter,
};
use moe_runtime::models::mapper;
use moe_runtime::{CraftsmanModel, Error, LoadOptions, ModelFiles, Session, SplitMix64};
use ternary_core::{ActMode, Bytes};
use tl_kernels::Pool;

use crate::golden::{case, max_abs, options, read_case};
use crate::memory_source::MemorySource;

/// The matrices that take additions: not those whose rows are read in another order than they are stored in.
fn is_supported(tensor: &LogicalTensor) -> bool {
    use TensorClass::{Attention, DenseFfn, Head, RoutedExpert, SharedExpert};
    if tensor.parts.iter().any(|part| part.order != RowOrder::AsStored) {
        return false;
    }
    let per_head = tensor.class == Attention && tensor.shape.len() == 3;
    matches!(tensor.class, Attention | DenseFfn | SharedExpert | RoutedExpert | Head) && !per_head
}

/// Random additions of `rank` to all matrices that take them.
pub(crate) fn adapter(files: &ModelFiles, rank: usize, seed: u64) -> AdapterFile {
    let mut random = SplitMix64::new(seed);
    let mut numbers =
        |n: usize, size: f64| -> Vec<f32> { (0..n).map(|_| ((random.next_f64() - 0.5) * size) as f32).collect() };
    let pairs = files.catalog.tensors().iter().filter(|t| is_supported(t)).map(|tensor| {
        let (stack, [outputs, inputs]) = tensor.shape.split_last_chunk().expect("a matrix");
        let of = |shape: [usize; 2]| [stack, &shape].concat();
        let n: usize = stack.iter().product();
        FactorPair {
            tensor: tensor.name.clone(),
            a_shape: of([rank, *inputs]),
            b_shape: of([*outputs, rank]),
            a: numbers(n * rank * inputs, 0.2),
            b: numbers(n * outputs * rank, 0.2),
        }
    });
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort_by(|a, b| a.tensor.cmp(&b.tensor));
    let architecture = files.config.arch.gguf_name().to_owned();
    AdapterFile { architecture, model: None, alpha: 3.0, pairs }
}

/// Adds `scale * alpha / rank * B A` to the weights, computed in F64.
fn fold(values: &mut [f32], pair: &FactorPair, scale: f32, file: &AdapterFile) {
    let rank = pair.rank();
    let (inputs, outputs) = (*pair.a_shape.last().expect("a shape"), pair.b_shape[pair.b_shape.len() - 2]);
    let scale = f64::from(scale) * f64::from(file.alpha) / rank as f64;
    let factors = pair.a.chunks(rank * inputs).zip(pair.b.chunks(outputs * rank));
    for (matrix, (a, b)) in values.chunks_mut(outputs * inputs).zip(factors) {
        for (o, row) in matrix.chunks_mut(inputs).enumerate() {
            for (i, w) in row.iter_mut().enumerate() {
                let product = |r: usize| f64::from(b[o * rank + r]) * f64::from(a[r * inputs + i]);
                *w = (f64::from(*w) + scale * (0..rank).map(product).sum::<f64>()) as f32;
            }
        }
    }
}

/// The model with its weights in F32 and the additions of `adapters` folded into them.
pub(crate) fn folded(files: &ModelFiles, adapters: &[(&AdapterFile, f32)]) -> Arc<CraftsmanModel> {
    let mut source = MemorySource::default();
    for tensor in files.catalog.tensors() {
        let mut values = vec![0.0; tensor.elements()];
        files.catalog.read_rows(tensor, 0..tensor.rows(), &mut values).expect("the tensor reads");
        for (file, scale) in adapters {
            if let Some(pair) = file.pairs.iter().find(|pair| pair.tensor == tensor.name) {
                fold(&mut values, pair, *scale, file);
            }
        }
        source.push(&tensor.name, &tensor.shape, TensorType::F32, &values);
    }
    let catalog = mapper(&files.config).map(Arc::new(source)).expect("canonical names map");
    Arc::new(CraftsmanModel::from_catalog(files.config.clone(), &catalog, &options()).expect("it loads"))
}

pub(crate) fn session(model: &Arc<CraftsmanModel>, chunk: usize, set: Option<&Arc<AdapterSet>>) -> Session {
    let n_ctx = model.config().n_ctx.min(128);
    let session = Session::new(model.clone(), n_ctx, CacheType::F32).expect("a small cache fits").with_chunk(chunk);
    session.with_adapters(AdapterSlot::new(set.cloned()))
}

/// The logits of all positions.
pub(crate) fn logits(session: &mut Session, tokens: &[u32]) -> Vec<f32> {
    let mut logits = Vec::new();
    let mut sink = |_, row: &[f32]| {
        logits.extend_from_slice(row);
        Ok(())
    };
    session.step_rows(tokens, 0, &mut (), &mut sink).expect("the model runs");
    logits
}

pub(crate) fn open(name: &str) -> ModelFiles {
    ModelFiles::open(&case(name)).expect("the case opens")
}

pub(crate) fn load(files: &ModelFiles, options: &LoadOptions) -> Arc<CraftsmanModel> {
    Arc::new(CraftsmanModel::from_files(files, options).expect("the case loads"))
}

/// Sums of low-rank products differ from products of sums in the last bits only; the logits of the cases reach 4.
pub(crate) const TOLERANCE: f32 = 2e-4;

#[test]
fn an_adapter_equals_weights_with_its_product_added() {
    // Latent attention with and without compressed queries, grouped attention, two shared experts, a dense model.
    for name in ["glm-tiny", "no-q-lora", "glm4-moe-gqa", "shared2", "llama-one-kv"] {
        let (files, tokens) = (open(name), read_case(name).tokens);
        let model = load(&files, &options());
        let (first, second) = (adapter(&files, 2, 1), adapter(&files, 1, 2));
        let plain = logits(&mut session(&model, 64, None), &tokens);
        for parts in [&[(&first, 1.0)][..], &[(&first, 0.5), (&second, -1.5)]] {
            let set = Arc::new(AdapterSet::new(&files, parts).expect("the additions fit"));
            let got = logits(&mut session(&model, 64, Some(&set)), &tokens);
            let want = logits(&mut session(&folded(&files, parts), 64, None), &tokens);
            let distance = max_abs(&got, &want);
            assert!(distance <= TOLERANCE, "{name}: {distance}");
            assert!(max_abs(&got, &plain) > 100.0 * TOLERANCE, "{name}: the additions count");
        }
    }
}

/// Compares the bits of a model with additions of nothing, such as `whole` without one factor or with a strength of 0, with those
/// of the model alone.
pub(crate) fn assert_nothing_changes_no_bit(files: &ModelFiles, whole: &AdapterFile, tokens: &[u32]) {
    let model = load(files, &options());
    let plain = logits(&mut session(&model, 64, None), tokens);
    let with = |file: &AdapterFile, scale| Arc::new(AdapterSet::new(files, &[(file, scale)]).expect("it fits"));
    let [mut no_a, mut no_b] = [whole.clone(), whole.clone()];
    no_a.pairs.iter_mut().for_each(|pair| pair.a.fill(0.0));
    no_b.pairs.iter_mut().for_each(|pair| pair.b.fill(0.0));
    for (file, scale) in [(&no_a, 1.0), (&no_b, 1.0), (whole, 0.0)] {
        let set = with(file, scale);
        assert_eq!(set.bytes(), 0, "additions of zero are left out");
        assert_eq!(logits(&mut session(&model, 64, Some(&set)), tokens), plain);
    }
    assert_ne!(logits(&mut session(&model, 64, Some(&with(whole, 1.0))), tokens), plain);
}

#[test]
fn a_zero_adapter_changes_no_bit() {
    let files = open("glm-tiny");
    assert_nothing_changes_no_bit(&files, &adapter(&files, 2, 1), &read_case("glm-tiny").tokens);
}

/// Runs the model at `path` with the adapters that `make` makes for it, on INT8 activations, in every cut and on several threads.
pub(crate) fn assert_same_bits_in_every_cut(path: &Path, make: impl Fn(&ModelFiles) -> Arc<AdapterSet>) {
    let files = ModelFiles::open(path).expect("the case opens");
    let set = make(&files);
    let tokens: Vec<u32> = (0..40).map(|i| (i * 7 + 3) % 60).collect();
    let run = |threads: usize, chunk: usize| {
        let pool = Arc::new(Pool::new(threads).expect("threads start"));
        let act_mode = Some(ActMode::A8Block);
        let model = load(&files, &LoadOptions { act_mode, pool, ..LoadOptions::default() });
        logits(&mut session(&model, chunk, Some(&set)), &tokens)
    };
    let want = run(1, 64);
    for (threads, chunk) in [(1, 1), (3, 64), (2, 7)] {
        assert_eq!(run(threads, chunk), want, "{}: {threads} threads, chunks of {chunk}", path.display());
    }
}

#[test]
fn the_bits_depend_on_neither_chunks_nor_threads_nor_the_sizes_of_batches() {
    // Ternary experts on INT8 activations, whose gathered rows have codes only, and dense ones.
    let ternary = case("ternary-forward").join("model.gguf");
    for path in [ternary, case("glm-tiny"), case("glm4-moe-gqa")] {
        assert_same_bits_in_every_cut(&path, |files| {
            Arc::new(AdapterSet::new(files, &[(&adapter(files, 2, 7), 1.0)]).expect("the additions fit"))
        });
    }
}

/// Puts `set` into a session between two steps, and takes it out again.
pub(crate) fn assert_swapped_between_steps(files: &ModelFiles, set: &Arc<AdapterSet>, tokens: &[u32]) {
    let model = load(files, &options());
    let (head, tail) = tokens.split_at(tokens.len() / 2);

    let mut swapped = session(&model, 64, None);
    let before = logits(&mut swapped, head);
    let mut forked = swapped.fork().expect("a small cache fits");
    assert!(swapped.adapters().swap(Some(set.clone())).is_none());
    let after = logits(&mut swapped, tail);
    // A session that starts at this point, with the cache of the tokens before, computes the same.
    forked = forked.with_adapters(AdapterSlot::new(Some(set.clone())));
    assert_eq!(logits(&mut forked, tail), after);
    // Other tokens before, or no adapter behind, give other numbers.
    let mut whole = session(&model, 64, Some(set));
    let all = logits(&mut whole, tokens);
    assert_ne!(all[..before.len()], before);
    assert_ne!(all[before.len()..], after);
    let plain = logits(&mut session(&model, 64, None), tokens);
    assert_eq!(plain[..before.len()], before);
    assert_ne!(plain[before.len()..], after);
    // Taken out again, the session is as it was.
    swapped.reset();
    assert!(swapped.adapters().swap(None).is_some());
    assert_eq!(logits(&mut swapped, tokens), plain);
}

#[test]
fn adapters_are_swapped_between_the_steps_of_a_session() {
    let files = open("glm-tiny");
    let set = Arc::new(AdapterSet::new(&files, &[(&adapter(&files, 2, 1), 1.0)]).expect("the additions fit"));
    assert_swapped_between_steps(&files, &set, &read_case("glm-tiny").tokens);
}

#[test]
fn the_identity_of_a_set_covers_numbers_strengths_and_places() {
    let files = open("glm-tiny");
    let identity = |file: &AdapterFile, scale| AdapterSet::new(&files, &[(file, scale)]).expect("it fits").identity();
    let whole = adapter(&files, 2, 1);
    let own = identity(&whole, 1.0);
    assert_eq!(identity(&whole.clone(), 1.0), own);
    let mut number = whole.clone();
    number.pairs[0].b[0] += 1.0;
    // The same numbers at another matrix of the same shape.
    let find = |name: &str| whole.pairs.iter().position(|pair| pair.tensor == name).expect("the model has it");
    let (gate, up) = (find("blk.1.ffn_gate_exps.weight"), find("blk.1.ffn_up_exps.weight"));
    let only = |at: usize, name: usize| {
        let pair = FactorPair { tensor: whole.pairs[name].tensor.clone(), ..whole.pairs[at].clone() };
        AdapterFile { pairs: vec![pair], ..whole.clone() }
    };
    let all = [own, identity(&whole, 0.5), identity(&number, 1.0), identity(&only(gate, gate), 1.0)];
    let all: std::collections::BTreeSet<_> = all.into_iter().chain([identity(&only(gate, up), 1.0)]).collect();
    assert_eq!(all.len(), 5);
}

#[test]
fn the_identity_of_the_model_is_asked_once_and_only_if_it_counts() {
    let (files, dir) = (open("glm-tiny"), tempfile::tempdir().expect("a temporary directory"));
    let path = dir.path().join("adapter.gguf");
    let own = files.identity(&mut |_, _| {}).expect("the model reads");
    for (model, want) in [(None, 0), (Some(own.clone()), 1)] {
        AdapterFile { model, ..adapter(&files, 2, 1) }.write(&path, TensorType::F32).expect("it is written");
        let mut asked = 0;
        let mut identity = || {
            asked += 1;
            Ok(own.clone())
        };
        AdapterSet::load(&files, &[ScaledAdapter::new(&path), ScaledAdapter::new(&path)], &mut identity).expect("fits");
        assert_eq!(asked, want);
    }
}

#[test]
fn a_step_computes_with_one_set_while_another_thread_swaps() {
    let (files, tokens) = (open("glm-tiny"), read_case("glm-tiny").tokens);
    let model = load(&files, &options());
    let set = Arc::new(AdapterSet::new(&files, &[(&adapter(&files, 2, 1), 1.0)]).expect("the additions fit"));
    let [without, with] = [None, Some(&set)].map(|set| logits(&mut session(&model, 1, set), &tokens));
    assert_ne!(without, with);
    let slot = AdapterSlot::default();
    // One token per batch gives the other thread as many chances as there are tokens.
    let mut running = session(&model, 1, None).with_adapters(slot.clone());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                slot.swap(Some(set.clone()));
                slot.swap(None);
            }
        });
        for _ in 0..20 {
            running.reset();
            let got = logits(&mut running, &tokens);
            assert!(got == without || got == with, "a step mixed two sets");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_file_gives_back_what_was_written() {
    let (files, dir) = (open("glm-tiny"), tempfile::tempdir().expect("a temporary directory"));
    let path = dir.path().join("adapter.gguf");
    let model = Some(files.identity(&mut |_, _| {}).expect("the model reads"));
    let adapter = AdapterFile { model, ..adapter(&files, 2, 1) };
    adapter.write(&path, TensorType::F32).expect("it is written");
    assert_eq!(AdapterFile::read(&path).expect("it reads"), adapter);
    let from_file = AdapterSet::load(&files, &[ScaledAdapter::new(&path)], &mut || files.identity(&mut |_, _| {}))
        .expect("it fits");
    assert_eq!(from_file, AdapterSet::new(&files, &[(&adapter, 1.0)]).expect("it fits"));
    // Half precision costs half the bytes and keeps three digits.
    adapter.write(&path, TensorType::F16).expect("it is written");
    let half = AdapterFile::read(&path).expect("it reads");
    let pairs = half.pairs.iter().zip(&adapter.pairs);
    assert!(half != adapter && pairs.clone().all(|(h, a)| max_abs(&h.a, &a.a) < 1e-4 && max_abs(&h.b, &a.b) < 1e-4));
    // The file is an adapter for every verb, not a model.
    let refused = ModelFiles::open(&path).expect_err("no model").to_string();
    assert!(refused.contains("adapter"), "{refused}");
}

#[test]
fn an_adapter_is_checked_added_up_and_named_as_it_was_when_it_was_opened() {
    let (files, dir) = (open("glm-tiny"), tempfile::tempdir().expect("a temporary directory"));
    let path = dir.path().join("adapter.gguf");
    let [first, second] = [1, 2].map(|seed| adapter(&files, 2, seed));
    let mut no_name = || unreachable!("no model is named");
    let put = |adapter: &AdapterFile| adapter.write(&path, TensorType::F32).expect("it is written");
    put(&first);
    let opened = OpenAdapters::open(&[ScaledAdapter::new(&path)]).expect("it opens");
    let identity = opened.identity("model").expect("it is hashed");
    std::fs::remove_file(&path).expect("it is there");
    put(&second);
    assert_eq!(opened.read(&files, &mut no_name).expect("it reads"), [(first.clone(), 1.0)]);
    let set = opened.set(&files, &mut no_name).expect("it fits");
    assert_eq!(set, AdapterSet::new(&files, &[(&first, 1.0)]).expect("it fits"));
    assert_eq!(opened.identity("model").expect("it is hashed"), identity);
    let now = OpenAdapters::open(&[ScaledAdapter::new(&path)]).expect("it opens");
    assert_ne!(now.identity("model").expect("it is hashed"), identity, "the file at the path is another one");
}

/// The sentence about an adapter that does not fit the model.
pub(crate) fn refusal(files: &ModelFiles, adapter: &AdapterFile) -> String {
    AdapterSet::new(files, &[(adapter, 1.0)]).expect_err("it does not fit").to_string()
}

#[test]
fn adapters_that_do_not_fit_are_refused() {
    let (files, dir) = (open("glm-tiny"), tempfile::tempdir().expect("a temporary directory"));
    let whole = adapter(&files, 2, 1);
    let with = |change: &dyn Fn(&mut FactorPair)| {
        let mut changed = whole.clone();
        let name = "blk.1.ffn_up_exps.weight";
        change(changed.pairs.iter_mut().find(|pair| pair.tensor == name).expect("experts are changed"));
        changed
    };
    // Factors of the shapes that a tensor asks for.
    let fitting = |name: &str| {
        let (stack, [outputs, inputs]) =
            files.catalog.find(name).expect("it exists").shape.split_last_chunk().expect("a matrix");
        let (a_shape, b_shape) = ([stack, &[1, *inputs]].concat(), [stack, &[*outputs, 1]].concat());
        let ones = |shape: &[usize]| vec![1.0; shape.iter().product()];
        FactorPair { tensor: name.to_owned(), a: ones(&a_shape), b: ones(&b_shape), a_shape, b_shape }
    };
    let cases = [
        (with(&|pair| pair.tensor = "blk.9.ffn_up_exps.weight".into()), "no tensor `blk.9.ffn_up_exps.weight`"),
        (with(&|pair| *pair = fitting("blk.1.ffn_gate_inp.weight")), "cannot change `blk.1.ffn_gate_inp.weight`"),
        (with(&|pair| *pair = fitting("blk.1.attn_k_b.weight")), "cannot change `blk.1.attn_k_b.weight`"),
        (with(&|pair| *pair = fitting("token_embd.weight")), "cannot change `token_embd.weight`"),
        (
            with(&|pair| *pair = FactorPair { tensor: "output_norm.weight".into(), ..fitting("output.weight") }),
            "cannot change",
        ),
        (with(&|pair| pair.a_shape[2] += 1), "blk.1.ffn_up_exps.weight.lora_a` has the shape"),
        (with(&|pair| pair.b_shape[1] -= 1), "blk.1.ffn_up_exps.weight.lora_b` has the shape"),
        (with(&|pair| pair.a_shape = pair.a_shape[1..].to_vec()), "has the shape"),
        (with(&|pair| pair.a.truncate(5)), "has the shape"),
        (with(&|pair| pair.b_shape[2] = 0), "rank 0"),
        (with(&|pair| pair.b_shape[2] = 100_000), "rank 100000"),
    ];
    for (adapter, part) in cases {
        let refused = refusal(&files, &adapter);
        assert!(refused.contains(part), "{refused}");
    }
    for scale in [f32::NAN, f32::INFINITY] {
        assert!(AdapterSet::new(&files, &[(&whole, scale)]).is_err());
    }
    // Of another model, of another architecture.
    let path = dir.path().join("adapter.gguf");
    let strangers = [
        (
            AdapterFile { model: Some("0123456789abcdef".repeat(4)), ..whole.clone() },
            "made for the model 0123456789abcdef",
        ),
        (AdapterFile { architecture: "llama".into(), ..whole.clone() }, "architecture llama"),
    ];
    for (adapter, part) in strangers {
        adapter.write(&path, TensorType::F32).expect("it is written");
        let refused = AdapterSet::load(&files, &[ScaledAdapter::new(&path)], &mut || files.identity(&mut |_, _| {}))
            .expect_err("a stranger")
            .to_string();
        assert!(refused.contains(part) && refused.contains("adapter.gguf"), "{refused}");
    }
    // Dimensions are compared with the model's before a number is read.
    let FactorPair { tensor, a_shape, b_shape, .. } = &whole.pairs[0];
    let (names, wide) = ([".lora_a", ".lora_b"].map(|end| format!("{tensor}{end}")), [a_shape[0], a_shape[1] + 1]);
    let keys = [("general.type", "adapter"), ("adapter.type", "lora"), ("general.architecture", &whole.architecture)];
    write(&path, &keys, &[(&names[0], &wide, f32::NAN), (&names[1], b_shape, 1.0)]);
    let refused = AdapterSet::load(&files, &[ScaledAdapter::new(&path)], &mut || unreachable!("no model is named"));
    let refused = refused.expect_err("another shape").to_string();
    assert!(refused.contains("the model asks for"), "{refused}");
}

/// Name, shape and the one value of a tensor.
pub(crate) type Filled<'a> = (&'a str, &'a [usize], f32);

/// Writes an adapter of `tensors` with these metadata, as another program might.
pub(crate) fn write(path: &Path, metadata: &[(&str, &str)], tensors: &[Filled<'_>]) {
    let mut keys = Metadata::default();
    metadata.iter().for_each(|(key, value)| drop(keys.insert(*key, *value)));
    let tensors = tensors.iter().map(|(name, shape, value)| {
        let bytes: Vec<u8> = (0..shape.iter().product()).flat_map(|_: usize| value.to_le_bytes()).collect();
        let info =
            TensorInfo { name: (*name).into(), shape: shape.to_vec(), ty: TensorType::F32, bytes: bytes.len() as u64 };
        (info, Bytes::from(bytes))
    });
    GgufWriter::write_file(path, &keys, &tensors.collect::<Vec<_>>()).expect("it is written");
}

#[test]
fn damaged_files_are_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("adapter.gguf");
    let good = [("general.type", "adapter"), ("adapter.type", "lora"), ("general.architecture", "deepseek2")];
    let (a, b): (Filled<'_>, Filled<'_>) = (("w.lora_a", &[2, 8], 1.0), ("w.lora_b", &[4, 2], 1.0));
    let refused = |metadata: &[(&str, &str)], tensors: &[Filled<'_>]| {
        write(&path, metadata, tensors);
        match AdapterFile::read(&path).expect_err("it is refused") {
            Error::InModel { error, .. } => *error,
            other => other,
        }
    };
    write(&path, &good, &[a, b]);
    AdapterFile::read(&path).expect("it reads");
    for missing in 0..2 {
        let mut metadata = good.to_vec();
        metadata.remove(missing);
        assert!(matches!(refused(&metadata, &[a, b]), Error::Adapter(AdapterError::Kind { .. })));
        metadata.push((good[missing].0, "model"));
        assert!(matches!(refused(&metadata, &[a, b]), Error::Adapter(AdapterError::Kind { .. })));
    }
    assert!(matches!(refused(&good[..2], &[a, b]), Error::Source(_)), "no architecture");
    assert!(matches!(refused(&good, &[a]), Error::Adapter(AdapterError::Unpaired { .. })));
    assert!(matches!(refused(&good, &[b]), Error::Adapter(AdapterError::Unpaired { .. })));
    assert!(matches!(refused(&good, &[a, b, ("w", &[1], 1.0)]), Error::Adapter(AdapterError::NoFactor { .. })));
    assert!(matches!(refused(&good, &[]), Error::Adapter(AdapterError::Empty)));
    let invocation = [good[0], good[1], good[2], ("adapter.alora.invocation_tokens", "1")];
    assert!(matches!(refused(&invocation, &[a, b]), Error::Adapter(AdapterError::Invocation { .. })));
    for shapes in
        [[&[2, 8][..], &[4, 3]], [&[2, 8], &[1, 4, 2]], [&[2, 2, 8], &[3, 4, 2]], [&[8], &[4]], [&[2, 2, 8], &[4]]]
    {
        let tensors = [("w.lora_a", shapes[0], 1.0), ("w.lora_b", shapes[1], 1.0)];
        assert!(matches!(refused(&good, &tensors), Error::Adapter(AdapterError::Shape { .. })), "{shapes:?}");
    }
    for value in [f32::NAN, f32::INFINITY] {
        assert!(matches!(refused(&good, &[a, (b.0, b.1, value)]), Error::Adapter(AdapterError::NotFinite { .. })));
    }
}
