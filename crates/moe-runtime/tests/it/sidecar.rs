//! The sidecar of the residual stream against the same correction computed by hand, against itself in every cut, and refused
//! where it does not fit.

use std::sync::Arc;

use gguf_bitnet::{Catalog, TensorType};
use mla_attention::{CacheType, CompressedMlaCache, Segments, Sequences};
use moe_runtime::adapters::{AdapterFile, AdapterSet, FactorPair, ScaledAdapter, sidecar_name};
use moe_runtime::forward::{Batch, LayerScratch};
use moe_runtime::{CraftsmanModel, MemoryPlan, ModelFiles, SplitMix64};
use tl_kernels::Pool;

use crate::adapters::{
    TOLERANCE, adapter, assert_nothing_changes_no_bit, assert_same_bits_in_every_cut, assert_swapped_between_steps,
    folded, load, logits, open, refusal, session, write,
};
use crate::golden::{case, max_abs, options, read_case};

/// Sidecars of `rank` for all layers, with random factors.
pub(crate) fn sidecar(files: &ModelFiles, rank: usize, seed: u64) -> AdapterFile {
    let (mut random, hidden) = (SplitMix64::new(seed), files.config.hidden);
    let mut numbers = |n: usize| -> Vec<f32> { (0..n).map(|_| ((random.next_f64() - 0.5) * 0.2) as f32).collect() };
    let pair = |layer| FactorPair {
        tensor: sidecar_name(layer),
        a_shape: vec![rank, hidden],
        b_shape: vec![hidden, rank],
        a: numbers(rank * hidden),
        b: numbers(rank * hidden),
    };
    let pairs = (0..files.config.n_layers).map(pair).collect();
    AdapterFile { architecture: files.config.arch.gguf_name().to_owned(), model: None, alpha: 3.0, pairs }
}

fn set_of(files: &ModelFiles, parts: &[(&AdapterFile, f32)]) -> Arc<AdapterSet> {
    Arc::new(AdapterSet::new(files, parts).expect("the additions fit"))
}

/// The numbers of a tensor.
fn values(catalog: &Catalog, name: &str) -> Option<Vec<f32>> {
    let tensor = catalog.find(name)?;
    let mut values = vec![0.0; tensor.elements()];
    catalog.read_rows(tensor, 0..tensor.rows(), &mut values).expect("the tensor reads");
    Some(values)
}

/// `x` `[n, weight.len()]` normed row by row, in F64.
fn norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f64> {
    let row = |row: &[f32]| -> Vec<f64> {
        let squares = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / row.len() as f64;
        let scale = 1.0 / (squares + f64::from(eps)).sqrt();
        row.iter().zip(weight).map(|(&v, &w)| scale * f64::from(v) * f64::from(w)).collect()
    };
    x.chunks_exact(weight.len()).flat_map(row).collect()
}

/// `x W'` for the rows of `x`, in F64.
fn product(x: &[f64], w: &[f32], cols: usize) -> Vec<f64> {
    let dot = |x: &[f64], w: &[f32]| x.iter().zip(w).map(|(x, &w)| x * f64::from(w)).sum::<f64>();
    x.chunks_exact(cols).flat_map(|x| w.chunks_exact(cols).map(move |w| dot(x, w))).collect()
}

/// The logits of all positions: the halves of each layer from the runtime, which knows of no adapter; the sidecars of all files
/// between them, the last norm and the head in F64.
fn by_hand(model: &CraftsmanModel, catalog: &Catalog, files: &[(&AdapterFile, f32)], tokens: &[u32]) -> Vec<f32> {
    let (config, pool, mut scratch) = (model.config(), Pool::serial(), LayerScratch::default());
    let whole = |name: &str| values(catalog, name);
    let embedding = whole("token_embd.weight").expect("a model has an embedding");
    let row = |token: &u32| &embedding[*token as usize * config.hidden..][..config.hidden];
    let mut x: Vec<f32> = tokens.iter().flat_map(row).copied().collect();
    for layer in model.layers() {
        let shape = [layer.cache_shape()];
        let mut cache = CompressedMlaCache::new(shape, tokens.len(), CacheType::F32).expect("a small cache fits");
        let segments = Segments::one(&cache, tokens.len());
        let mut sequences = Sequences { segments: &segments, caches: std::slice::from_mut(&mut cache), layer: 0 };
        layer
            .attend(Batch { pool: &pool, x: &mut x, scratch: &mut scratch, adapter: None }, &mut sequences, &mut ())
            .expect("it runs");
        let weight = whole(&format!("blk.{}.ffn_norm.weight", layer.index())).expect("a layer has a norm");
        let normed = norm(&x, &weight, config.norm_eps);
        layer
            .feed(Batch { pool: &pool, x: &mut x, scratch: &mut scratch, adapter: None }, 0, &mut ())
            .expect("it runs");
        for (file, scale) in files {
            let name = format!("blk.{}.ffn_sidecar.weight", layer.index());
            let Some(pair) = file.pairs.iter().find(|pair| pair.tensor == name) else { continue };
            let scale = f64::from(*scale) * f64::from(file.alpha) / pair.rank() as f64;
            let ranks = product(&normed, &pair.a, config.hidden);
            let correction = product(&ranks, &pair.b, pair.rank());
            x.iter_mut().zip(correction).for_each(|(x, c)| *x = (f64::from(*x) + scale * c) as f32);
        }
    }
    let last = norm(&x, &whole("output_norm.weight").expect("a model has a last norm"), config.norm_eps);
    let head = whole("output.weight").unwrap_or(embedding);
    product(&last, &head, config.hidden).into_iter().map(|z| z as f32).collect()
}

#[test]
fn a_sidecar_equals_the_same_correction_computed_by_hand() {
    // Latent attention with and without compressed queries, grouped attention with experts, in a dense model and with a norm
    // inside of its networks.
    for name in ["glm-tiny", "no-q-lora", "glm4-moe-gqa", "llama-one-kv", "bitnet-plain"] {
        let (files, tokens) = (open(name), read_case(name).tokens);
        let model = load(&files, &options());
        let plain = logits(&mut session(&model, 64, None), &tokens);
        let [first, second] = [(3, 1), (1, 2)].map(|(rank, seed)| sidecar(&files, rank, seed));
        for parts in [&[(&first, 1.0)][..], &[(&first, 0.5), (&second, -1.5)]] {
            let got = logits(&mut session(&model, 64, Some(&set_of(&files, parts))), &tokens);
            let distance = max_abs(&got, &by_hand(&model, &files.catalog, parts, &tokens));
            assert!(distance <= TOLERANCE, "{name}: {distance}");
            assert!(max_abs(&got, &plain) > 100.0 * TOLERANCE, "{name}: the sidecars count");
        }
    }
}

#[test]
fn sidecars_stand_beside_additions_to_matrices() {
    for name in ["glm-tiny", "glm4-moe-gqa"] {
        let (files, tokens) = (open(name), read_case(name).tokens);
        let model = load(&files, &options());
        let (additions, beside) = (adapter(&files, 2, 1), sidecar(&files, 2, 3));
        let parts = [(&additions, 0.5), (&beside, 1.0)];
        let got = logits(&mut session(&model, 64, Some(&set_of(&files, &parts))), &tokens);
        // One file may hold both.
        let mut both = additions.clone();
        both.pairs.extend(beside.pairs.clone());
        let mut halves = beside.clone();
        halves.alpha *= 0.5;
        let parts = [(&both, 0.5), (&halves, 1.0)];
        let together = logits(&mut session(&model, 64, Some(&set_of(&files, &parts))), &tokens);
        assert!(max_abs(&got, &together) <= TOLERANCE);
        // By hand the additions are a part of the weights, but for the head's, whose product is not computed here.
        let mut of_layers = additions.clone();
        of_layers.pairs.retain(|pair| pair.tensor != "output.weight");
        let parts = [(&of_layers, 0.5), (&beside, 1.0)];
        let got = logits(&mut session(&model, 64, Some(&set_of(&files, &parts))), &tokens);
        let folded = folded(&files, &[(&of_layers, 0.5)]);
        let distance = max_abs(&got, &by_hand(&folded, &files.catalog, &[(&beside, 1.0)], &tokens));
        assert!(distance <= TOLERANCE, "{name}: {distance}");
    }
}

#[test]
fn a_zero_sidecar_changes_no_bit() {
    let files = open("glm-tiny");
    assert_nothing_changes_no_bit(&files, &sidecar(&files, 2, 1), &read_case("glm-tiny").tokens);
}

#[test]
fn the_bits_depend_on_neither_chunks_nor_threads() {
    // Ternary experts on INT8 activations: a sidecar reads the numbers that they were made of.
    let ternary = case("ternary-forward").join("model.gguf");
    for path in [ternary, case("glm-tiny"), case("glm4-moe-gqa"), case("llama-one-kv")] {
        assert_same_bits_in_every_cut(&path, |files| {
            set_of(files, &[(&sidecar(files, 5, 8), 1.0), (&adapter(files, 2, 7), 0.5)])
        });
    }
}

#[test]
fn sidecars_are_swapped_between_the_steps_of_a_session() {
    let files = open("glm-tiny");
    let set = set_of(&files, &[(&sidecar(&files, 2, 1), 1.0)]);
    assert_swapped_between_steps(&files, &set, &read_case("glm-tiny").tokens);
}

#[test]
fn a_file_gives_back_its_sidecars_which_name_their_layers_and_count_as_memory() {
    let (files, dir) = (open("glm-tiny"), tempfile::tempdir().expect("a temporary directory"));
    let path = dir.path().join("sidecar.gguf");
    let model = Some(files.identity(&mut |_, _| {}).expect("the model reads"));
    let whole = AdapterFile { model, ..sidecar(&files, 2, 1) };
    whole.write(&path, TensorType::F32).expect("it is written");
    assert_eq!(AdapterFile::read(&path).expect("it reads"), whole);
    let load = || AdapterSet::load(&files, &[ScaledAdapter::new(&path)], &mut || files.identity(&mut |_, _| {}));
    let set = Arc::new(load().expect("it fits"));
    assert_eq!(*set, *set_of(&files, &[(&whole, 1.0)]));

    // Per layer both factors and a number per rank, in F32.
    let (hidden, layers) = (files.config.hidden as u64, files.config.n_layers as u64);
    assert_eq!(set.bytes(), layers * 4 * (2 * 2 * hidden + 2));
    let plan = || MemoryPlan::new(&files.config, &files.catalog, 64, CacheType::F32, 16);
    assert_eq!(plan().with_adapters(Some(&set)).total_bytes(), plan().total_bytes() + set.bytes());

    // The same numbers in another layer, and beside another matrix of the same shape, are another set.
    let only = |tensor: &str| AdapterFile {
        pairs: vec![FactorPair { tensor: tensor.to_owned(), ..whole.pairs[0].clone() }],
        ..whole.clone()
    };
    let identity = |file: &AdapterFile| set_of(&files, &[(file, 1.0)]).identity();
    let [first, second] = [0, 1].map(|layer| identity(&only(&sidecar_name(layer))));
    assert!(first != second && first == identity(&only(&sidecar_name(0))));

    let other = AdapterFile { model: Some("0123456789abcdef".repeat(4)), ..whole };
    other.write(&path, TensorType::F16).expect("it is written");
    assert!(load().expect_err("of another model").to_string().contains("made for the model 0123456789abcdef"));
}

#[test]
fn sidecars_that_do_not_fit_are_refused() {
    let files = open("glm-tiny");
    let (hidden, layers) = (files.config.hidden, files.config.n_layers);
    let with = |change: &dyn Fn(&mut FactorPair)| {
        let mut changed = sidecar(&files, 2, 1);
        change(&mut changed.pairs[1]);
        changed
    };
    let cases: [(AdapterFile, &str); 9] = [
        (with(&|pair| pair.tensor = sidecar_name(layers)), "no tensor `blk.2.ffn_sidecar.weight`"),
        (with(&|pair| pair.tensor = "blk.01.ffn_sidecar.weight".into()), "no tensor `blk.01.ffn_sidecar.weight`"),
        (with(&|pair| pair.tensor = "blk.18446744073709551616.ffn_sidecar.weight".into()), "no tensor"),
        (with(&|pair| pair.a_shape[1] += 1), "blk.1.ffn_sidecar.weight.lora_a` has the shape"),
        (with(&|pair| pair.b_shape[0] -= 1), "blk.1.ffn_sidecar.weight.lora_b` has the shape"),
        (with(&|pair| pair.a_shape.insert(0, 1)), "has the shape"),
        (with(&|pair| pair.b.truncate(5)), "has the shape"),
        (with(&|pair| pair.b_shape[1] = 0), "rank 0"),
        (with(&|pair| pair.b_shape[1] = hidden + 1), "takes 1 to"),
    ];
    for (file, part) in cases {
        let refused = refusal(&files, &file);
        assert!(refused.contains(part), "{refused}");
    }
    // From a file: a number that is not finite, and a factor alone.
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("sidecar.gguf");
    let keys = [("general.type", "adapter"), ("adapter.type", "lora"), ("general.architecture", "deepseek2")];
    let (a, b) = ("blk.1.ffn_sidecar.weight.lora_a", "blk.1.ffn_sidecar.weight.lora_b");
    let load = || AdapterSet::load(&files, &[ScaledAdapter::new(&path)], &mut || unreachable!("no model is named"));
    write(&path, &keys, &[(a, &[2, hidden], 1.0), (b, &[hidden, 2], 1.0)]);
    load().expect("it fits");
    write(&path, &keys, &[(a, &[2, hidden], 1.0), (b, &[hidden, 2], f32::NAN)]);
    assert!(load().expect_err("a NaN").to_string().contains("NaN or infinite"));
    write(&path, &keys, &[(a, &[2, hidden], 1.0)]);
    assert!(load().expect_err("a factor alone").to_string().contains("has no partner"));
}
