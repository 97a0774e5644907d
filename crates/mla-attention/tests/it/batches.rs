//! Outputs have the same bits in chunks of any size and on any number of threads; caches are truncated, forked and
//! filled.

use crate::layers::{
    bits, forward, gqa, gqa_config, gqa_weights, mla, mla_config, mla_weights, odd_mla, run, step, tokens,
};
use mla_attention::{
    Attention, AttentionScratch, CacheError, CacheShape, CacheType, CompressedMlaCache, Error, InnerProjection,
    QueryProjection, Segments, Sequences,
};
use tl_kernels::{ActivationBuffer, Linear, Pool, math};

const TYPES: [CacheType; 3] = [CacheType::F32, CacheType::F16, CacheType::I8];

fn layers() -> Vec<Attention> {
    vec![
        mla(&odd_mla(), 1),
        mla(&mla_config(64, 4, None, [96, 24, 8, 32]), 2),
        gqa(&gqa_config(6, 2, 10, 6), true, true, 3),
    ]
}

fn serial() -> Pool {
    Pool::serial()
}

#[test]
fn chunks_of_any_size_give_the_same_bits() {
    for layer in layers() {
        let x = tokens(&layer, 300, 7);
        for ty in TYPES {
            let whole = bits(&run(&layer, &serial(), ty, &x, 300));
            for chunk in [1, 7, 64, 65, 299] {
                assert_eq!(bits(&run(&layer, &serial(), ty, &x, chunk)), whole, "chunks of {chunk} with {ty:?}");
            }
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for layer in layers() {
        let x = tokens(&layer, 140, 7);
        for ty in TYPES {
            let whole = bits(&run(&layer, &serial(), ty, &x, 140));
            for threads in [2, 3, 8] {
                let pool = Pool::new(threads).expect("a few threads");
                for chunk in [1, 33, 140] {
                    let got = bits(&run(&layer, &pool, ty, &x, chunk));
                    assert_eq!(got, whole, "{threads} threads, chunks of {chunk} with {ty:?}");
                }
            }
        }
    }
}

#[test]
fn a_token_sees_its_past_and_not_its_future() {
    for layer in layers() {
        let width = layer.hidden();
        let mut x = tokens(&layer, 100, 7);
        let before = run(&layer, &serial(), CacheType::F32, &x, 100);
        x[30 * width] += 1.0;
        let after = run(&layer, &serial(), CacheType::F32, &x, 100);
        assert_eq!(bits(&before[..30 * width]), bits(&after[..30 * width]));
        for token in 30..100 {
            assert_ne!(before[token * width..][..width], after[token * width..][..width], "token {token}");
        }
    }
}

#[test]
fn cutting_and_appending_again_equals_a_fresh_run() {
    for layer in layers() {
        let width = layer.hidden();
        let x = tokens(&layer, 100, 7);
        for ty in TYPES {
            let wanted = run(&layer, &serial(), ty, &x, 100);
            let mut cache = layer.new_cache(100, ty).expect("a small cache");
            step(&layer, &serial(), &x[..50 * width], &mut cache);
            step(&layer, &serial(), &tokens(&layer, 40, 8), &mut cache);
            cache.truncate(200);
            assert_eq!(cache.len(), 90, "cutting behind the end changes nothing");
            cache.truncate(50);
            assert_eq!(cache.len(), 50);
            let got = step(&layer, &serial(), &x[50 * width..], &mut cache);
            assert_eq!(bits(&got), bits(&wanted[50 * width..]));

            cache.reset();
            assert!(cache.is_empty());
            assert_eq!(bits(&step(&layer, &serial(), &x, &mut cache)), bits(&wanted));
        }
    }
}

#[test]
fn forks_do_not_see_each_other() {
    for layer in layers() {
        let width = layer.hidden();
        let [x, y] = [7, 8].map(|seed| tokens(&layer, 20, seed));
        for ty in TYPES {
            let mut cache = layer.new_cache(20, ty).expect("a small cache");
            step(&layer, &serial(), &x[..10 * width], &mut cache);
            let mut fork = cache.fork().expect("a small cache");
            assert_eq!((fork.len(), fork.n_ctx(), fork.cache_type()), (10, 20, ty));
            let other = step(&layer, &serial(), &y[10 * width..], &mut fork);
            let own = step(&layer, &serial(), &x[10 * width..], &mut cache);
            assert_eq!(bits(&own), bits(&run(&layer, &serial(), ty, &x, 20)[10 * width..]));
            let mixed = [&x[..10 * width], &y[10 * width..]].concat();
            assert_eq!(bits(&other), bits(&run(&layer, &serial(), ty, &mixed, 20)[10 * width..]));
        }
    }
}

#[test]
fn a_full_cache_says_both_numbers_and_stays_as_it_is() {
    for layer in layers() {
        let width = layer.hidden();
        let x = tokens(&layer, 13, 7);
        let mut cache = layer.new_cache(12, CacheType::F16).expect("a small cache");
        let wanted = run(&layer, &serial(), CacheType::F16, &x, 13);
        step(&layer, &serial(), &x[..10 * width], &mut cache);
        let mut out = vec![0.0; 3 * width];
        let rest = &x[10 * width..];
        let error = forward(&layer, &serial(), rest, &mut cache, (&mut AttentionScratch::new(), &mut out))
            .expect_err("13 tokens in 12 places");
        assert!(matches!(error, Error::Cache(CacheError::Full { have: 12, need: 13 })), "{error:?}");
        assert!(error.to_string().contains("12") && error.to_string().contains("13"), "{error}");
        assert_eq!(cache.len(), 10);
        let got = step(&layer, &serial(), &x[10 * width..12 * width], &mut cache);
        assert_eq!(bits(&got), bits(&wanted[10 * width..12 * width]));
    }
}

#[test]
fn one_scratch_serves_layers_of_any_shape() {
    let layers = layers();
    let mut scratch = AttentionScratch::new();
    for (n, layer) in [(40, 1), (90, 2), (3, 0), (70, 1), (1, 2), (50, 0)].map(|(n, i)| (n, &layers[i])) {
        let x = tokens(layer, n, 7);
        let mut cache = layer.new_cache(n, CacheType::F32).expect("a small cache");
        let mut out = vec![f32::NAN; x.len()];
        forward(layer, &serial(), &x, &mut cache, (&mut scratch, &mut out)).expect("room");
        assert_eq!(bits(&out), bits(&run(layer, &serial(), CacheType::F32, &x, n)));
    }
}

#[test]
fn the_inputs_of_inner_projections_can_be_read() {
    let product = |linear: &Linear, x: &[f32]| {
        let (mut acts, mut y) = (ActivationBuffer::new(), vec![0.0; linear.rows()]);
        acts.set(x, 1, linear.cols());
        linear.forward(&serial(), &acts, &mut y);
        y
    };
    let (mla_shape, gqa_shape) = (odd_mla(), gqa_config(6, 2, 10, 6));
    let (mla_weights, gqa_weights) = (mla_weights(&mla_shape, 1), gqa_weights(&gqa_shape, true, true, 3));
    let layers = [(mla(&mla_shape, 1), mla_weights.out), (gqa(&gqa_shape, true, true, 3), gqa_weights.out)];
    let mut scratch = AttentionScratch::new();
    for (layer, out) in &layers {
        let x = tokens(layer, 5, 7);
        let mut cache = layer.new_cache(5, CacheType::F32).expect("a small cache");
        let mut y = vec![f32::NAN; x.len()];
        forward(layer, &serial(), &x, &mut cache, (&mut scratch, &mut y)).expect("room");
        let mut input = vec![f32::NAN; layer.input_width(InnerProjection::Output).expect("every attention has one")];
        for (t, y) in y.chunks_exact(layer.hidden()).enumerate() {
            layer.write_input(InnerProjection::Output, &scratch, t, &mut input);
            assert_eq!(bits(&product(out, &input)), bits(y), "token {t}");
        }
        let Some(width) = layer.input_width(InnerProjection::Query) else { continue };
        let QueryProjection::LowRank { a, a_norm, .. } = &mla_weights.q else { panic!("the odd shape compresses") };
        let mut query = vec![f32::NAN; width];
        for (t, x) in x.chunks_exact(layer.hidden()).enumerate() {
            layer.write_input(InnerProjection::Query, &scratch, t, &mut query);
            let mut wanted = vec![0.0; width];
            math::rms_norm(&product(a, x), a_norm, mla_shape.latent_norm_eps, &mut wanted);
            assert_eq!(bits(&query), bits(&wanted), "token {t}");
        }
    }
    assert_eq!(layers[1].0.input_width(InnerProjection::Query), None);
}

#[test]
fn no_tokens_are_no_work() {
    for layer in layers() {
        let mut cache = layer.new_cache(4, CacheType::F32).expect("a small cache");
        forward(&layer, &serial(), &[], &mut cache, (&mut AttentionScratch::new(), &mut [])).expect("nothing to do");
        assert!(cache.is_empty());
    }
}

#[test]
fn wrong_buffers_and_wrong_caches_are_refused() {
    let layers = layers();
    let mut scratch = AttentionScratch::new();
    for layer in &layers {
        let x = tokens(layer, 2, 7);
        let mut out = vec![0.0; x.len()];
        let mut cache = layer.new_cache(4, CacheType::F32).expect("a small cache");
        let short_x = forward(layer, &serial(), &x[1..], &mut cache, (&mut scratch, &mut out));
        assert!(matches!(short_x, Err(Error::BufferLength { name: "x", .. })), "{short_x:?}");
        let short_out = forward(layer, &serial(), &x, &mut cache, (&mut scratch, &mut out[1..]));
        assert!(matches!(short_out, Err(Error::BufferLength { name: "out", .. })), "{short_out:?}");
        for other in layers.iter().filter(|other| other.cache_shape() != layer.cache_shape()) {
            let mut cache = other.new_cache(4, CacheType::F32).expect("a small cache");
            let error = forward(layer, &serial(), &x, &mut cache, (&mut scratch, &mut out));
            assert!(matches!(error, Err(Error::Cache(CacheError::Mismatch { .. }))), "{error:?}");
            assert!(cache.is_empty());
        }
    }
}

#[test]
fn the_cache_of_a_model_has_one_length_for_all_layers() {
    let layers = layers();
    let shapes = || layers.iter().map(Attention::cache_shape);
    let mut cache = CompressedMlaCache::new(shapes(), 8, CacheType::F16).expect("a small cache");
    assert_eq!(cache.bytes_per_token(), 2 * ((40 + 6) + (96 + 8) + 2 * (2 * 10)));
    let exact = CompressedMlaCache::new(shapes(), 8, CacheType::F32).expect("a small cache");
    assert_eq!(exact.bytes_per_token(), 2 * cache.bytes_per_token());

    let extend = |layers: &[Attention], cache: &mut CompressedMlaCache| {
        let segments = Segments::one(cache, 5);
        for (index, layer) in layers.iter().enumerate() {
            let (x, mut out) = (tokens(layer, 5, 7), vec![0.0; 5 * layer.hidden()]);
            let mut sequences =
                Sequences { segments: &segments, caches: std::slice::from_mut(&mut *cache), layer: index };
            layer.forward(&serial(), &x, &mut sequences, &mut AttentionScratch::new(), &mut out).expect("room");
        }
    };
    extend(&layers, &mut cache);
    assert_eq!((cache.len(), cache.n_ctx(), cache.layout().shapes().len()), (5, 8, 3));
    assert!(cache.check_room(3).is_ok());
    assert!(matches!(cache.check_room(4), Err(CacheError::Full { have: 8, need: 9 })));

    let fork = cache.fork().expect("a small cache");
    cache.truncate(2);
    assert_eq!((cache.len(), fork.len()), (2, 5));
    cache.reset();
    extend(&layers[..1], &mut cache);
    assert_eq!((cache.layer_len(0), cache.len()), (5, 0), "a position counts when every layer holds it");
    cache.reset();
    assert!(cache.is_empty() && cache.layer_len(0) == 0 && !fork.is_empty());
}

#[test]
fn f16_caches_differ_from_f32_ones_by_their_rounding_only() {
    for layer in layers() {
        let x = tokens(&layer, 60, 7);
        let [exact, rounded] = [CacheType::F32, CacheType::F16].map(|ty| run(&layer, &serial(), ty, &x, 60));
        let error = crate::layers::distance(&rounded, &exact, layer.hidden());
        assert!(error > 1e-6 && error < 5e-3, "relative difference {error}");
    }
}

#[test]
fn glm_flash_stores_54144_bytes_per_token() {
    let shape = CacheShape::Latent { kv_lora: 512, qk_rope: 64 };
    assert_eq!(47 * shape.bytes_per_token(CacheType::F16), 54_144);
    assert_eq!(47 * shape.bytes_per_token(CacheType::I8), 30_268);
    let grouped = CacheShape::Kv { n_kv_heads: 2, head_dim: 64 };
    assert_eq!(grouped.bytes_per_token(CacheType::I8), 2 * 2 * (64 + 4), "one scale per head, of keys and of values");
    let oversized = CompressedMlaCache::new([shape; 47], usize::MAX / 4, CacheType::F16);
    assert!(matches!(oversized, Err(CacheError::Memory { .. })));
}
