//! Rows of many sequences in one call: each gets the bits that it has alone, and its cache holds the same positions.

use crate::layers::{bits, gqa, gqa_config, mla, mla_config, odd_mla, run, tokens};
use mla_attention::{Attention, AttentionScratch, CacheError, CacheType, Error, Segments, Sequences};
use tl_kernels::Pool;

fn layers() -> Vec<Attention> {
    vec![
        mla(&odd_mla(), 1),
        mla(&mla_config(64, 4, None, [96, 24, 8, 32]), 2),
        gqa(&gqa_config(6, 2, 10, 6), true, true, 3),
        gqa(&gqa_config(8, 2, 32, 8), false, false, 4),
    ]
}

/// One sequence: its tokens, and the sizes of the segments in which they come, a step each; 0 for a step without it.
struct Script {
    x: Vec<f32>,
    sizes: &'static [usize],
}

/// A prompt in chunks with decoded tokens behind it, beside others that arrive later and end earlier.
fn scripts(layer: &Attention) -> Vec<Script> {
    let sizes: [&[usize]; 7] = [
        &[1, 1, 1, 1, 1, 1],
        &[70, 60, 1, 1, 0, 1],
        &[0, 5, 64, 1, 1, 1],
        &[130, 0, 0, 0, 4, 1],
        &[0, 0, 0, 3, 0, 2],
        &[63, 1, 1, 0, 0, 0],
        &[2, 2, 2, 2, 2, 2],
    ];
    sizes
        .into_iter()
        .zip(50..)
        .map(|(sizes, seed)| Script { x: tokens(layer, sizes.iter().sum(), seed), sizes })
        .collect()
}

/// The output of every script, all of them in common steps; segments in the order of `order`.
fn together(layer: &Attention, pool: &Pool, ty: CacheType, scripts: &[Script], order: &[usize]) -> Vec<Vec<f32>> {
    let width = layer.hidden();
    let mut caches: Vec<_> = scripts.iter().map(|_| layer.new_cache(200, ty).expect("a small cache")).collect();
    let mut outs: Vec<Vec<f32>> = scripts.iter().map(|_| Vec::new()).collect();
    let (mut scratch, mut segments) = (AttentionScratch::new(), Segments::default());
    for step in 0..scripts[0].sizes.len() {
        segments.clear();
        let mut x = Vec::new();
        for &i in order {
            let (first, n) = (caches[i].len(), scripts[i].sizes[step]);
            if n > 0 {
                segments.push(i, first, n);
                x.extend_from_slice(&scripts[i].x[first * width..(first + n) * width]);
            }
        }
        let mut out = vec![f32::NAN; x.len()];
        let mut sequences = Sequences { segments: &segments, caches: &mut caches, layer: 0 };
        layer.forward(pool, &x, &mut sequences, &mut scratch, &mut out).expect("room");
        for segment in segments.list() {
            outs[segment.cache].extend_from_slice(&out[segment.first_row * width..][..segment.n * width]);
        }
    }
    outs
}

#[test]
fn each_sequence_has_the_bits_that_it_has_alone() {
    for (index, layer) in layers().iter().enumerate() {
        let scripts = scripts(layer);
        for ty in [CacheType::F32, CacheType::F16, CacheType::I8] {
            let alone: Vec<_> = scripts.iter().map(|s| bits(&run(layer, &Pool::serial(), ty, &s.x, 1000))).collect();
            for (threads, order) in [(1, [0, 1, 2, 3, 4, 5, 6]), (2, [6, 3, 1, 5, 0, 2, 4]), (7, [4, 0, 6, 2, 5, 1, 3])]
            {
                let pool = Pool::new(threads).expect("a few threads");
                let got = together(layer, &pool, ty, &scripts, &order);
                for (i, (got, alone)) in got.iter().zip(&alone).enumerate() {
                    assert!(bits(got) == *alone, "layer {index}, {ty}, sequence {i}, {threads} threads");
                }
            }
        }
    }
}

/// The negative control of the test above: a sequence that reads the cache of another one has other bits.
#[test]
fn another_cache_gives_other_bits() {
    for layer in layers() {
        let (x, y) = (tokens(&layer, 20, 1), tokens(&layer, 20, 2));
        for ty in [CacheType::F32, CacheType::F16, CacheType::I8] {
            let last = |past: &[f32]| {
                let width = layer.hidden();
                let mixed = [&past[..19 * width], &x[19 * width..]].concat();
                bits(&run(&layer, &Pool::serial(), ty, &mixed, 20)[19 * width..])
            };
            assert!(last(&x) != last(&y), "{ty}");
        }
    }
}

#[test]
fn one_sequence_that_does_not_fit_leaves_all_caches_as_they_are() {
    for layer in layers() {
        let mut caches = [20, 3].map(|n_ctx| layer.new_cache(n_ctx, CacheType::F16).expect("a small cache"));
        let (x, mut out) = (tokens(&layer, 8, 7), vec![0.0; 8 * layer.hidden()]);
        let mut segments = Segments::default();
        segments.push(0, 0, 4);
        segments.push(1, 0, 4);
        let mut sequences = Sequences { segments: &segments, caches: &mut caches, layer: 0 };
        let error = layer.forward(&Pool::serial(), &x, &mut sequences, &mut AttentionScratch::new(), &mut out);
        assert!(matches!(error, Err(Error::Cache(CacheError::Full { have: 3, need: 4 }))), "{error:?}");
        let mut other = [CacheType::F16, CacheType::F32].map(|ty| layer.new_cache(8, ty).expect("a small cache"));
        let mut sequences = Sequences { segments: &segments, caches: &mut other, layer: 0 };
        let error = layer.forward(&Pool::serial(), &x, &mut sequences, &mut AttentionScratch::new(), &mut out);
        assert!(matches!(error, Err(Error::Cache(CacheError::Mismatch { .. }))), "{error:?}");
        let mut sequences = Sequences { segments: &segments, caches: &mut other[..1], layer: 1 };
        let error = layer.forward(&Pool::serial(), &x, &mut sequences, &mut AttentionScratch::new(), &mut out);
        assert!(matches!(error, Err(Error::Cache(CacheError::Mismatch { .. }))), "no second layer: {error:?}");
        assert!(caches.iter().chain(&other).all(|cache| cache.is_empty()));
    }
}
