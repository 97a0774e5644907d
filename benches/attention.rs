//! How much does one more cached position cost? Latent attention of GLM-4.7-Flash: 20 heads, latents of 512 + 64
//! values.
//!
//! `decode` steps one token through several layers whose caches together exceed those of the processor, at a given depth;
//! `prefill` runs a chunk of a prompt at a given depth. Subtract the time at depth 0 to see attention without its projections.

use std::time::Duration;

use benches::{activations, layer, pools};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mla_attention::{
    Attention, AttentionScratch, CacheType, CompressedMlaCache, MlaAttention, MlaConfig, MlaWeights, QueryProjection,
    Rope, RopeStyle, Segments, Sequences,
};
use tl_kernels::Isa;

const HIDDEN: usize = 2048;
const HEADS: usize = 20;
const CACHE_BYTES: usize = 64 << 20;

fn attention() -> Attention {
    let config = MlaConfig {
        hidden: HIDDEN,
        n_heads: HEADS,
        q_lora: Some(768),
        kv_lora: 512,
        qk_nope: 192,
        qk_rope: 64,
        v_head: 256,
        latent_norm_eps: 1e-6,
        rope: Rope::new(1e6, 64, RopeStyle::Interleaved).expect("a sound rope"),
    };
    let weights = MlaWeights {
        q: QueryProjection::LowRank {
            a: layer("Q8_0", 768, HIDDEN),
            a_norm: vec![1.0; 768],
            b: layer("Q8_0", HEADS * 256, 768),
        },
        kv_a: layer("Q8_0", 576, HIDDEN),
        kv_a_norm: vec![1.0; 512],
        k_b: (0..HEADS).map(|_| layer("Q8_0", 512, 192)).collect(),
        v_b: (0..HEADS).map(|_| layer("Q8_0", 256, 512)).collect(),
        out: layer("Q8_0", HIDDEN, HEADS * 256),
    };
    Attention::Mla(MlaAttention::new(config, weights).expect("weights that fit"))
}

/// A cache of `depth` positions with room for `n` more.
fn filled(layer: &Attention, ty: CacheType, depth: usize, n: usize) -> CompressedMlaCache {
    let mut cache = layer.new_cache(depth + n, ty).expect("memory for the cache");
    cache.append(0, depth, [&activations(depth * 512), &activations(depth * 64)]).expect("room");
    cache
}

fn steps(c: &mut Criterion, name: &str, n: usize, depths: &[usize]) {
    let layer = attention();
    let mut group = c.benchmark_group("attention");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    let (x, mut out, mut scratch) = (activations(n * HIDDEN), vec![0.0; n * HIDDEN], AttentionScratch::new());
    for ty in [CacheType::F16, CacheType::I8] {
        for &depth in depths {
            let bytes = (depth + n) * layer.cache_shape().bytes_per_token(ty);
            let layers = (CACHE_BYTES / bytes).clamp(1, 64);
            let mut caches: Vec<_> = (0..layers).map(|_| filled(&layer, ty, depth, n)).collect();
            group.throughput(Throughput::Bytes((layers * bytes) as u64));
            let segments = Segments::one(&caches[0], n);
            for pool in pools() {
                let shape = format!("{name}-{}/{ty}-d{depth}-n{n}-layers{layers}", Isa::current());
                group.bench_function(BenchmarkId::new(shape, pool.threads()), |b| {
                    b.iter(|| {
                        for cache in &mut caches {
                            let caches = std::slice::from_mut(cache);
                            let mut sequences = Sequences { segments: &segments, caches, layer: 0 };
                            layer.forward(&pool, &x, &mut sequences, &mut scratch, &mut out).expect("room");
                            cache.truncate(depth);
                        }
                    });
                });
            }
        }
    }
    group.finish();
}

fn decode(c: &mut Criterion) {
    steps(c, "decode", 1, &[0, 1024, 4096, 8192]);
}

fn prefill(c: &mut Criterion) {
    steps(c, "prefill", 512, &[0, 2048]);
}

criterion_group!(benches, decode, prefill);
criterion_main!(benches);
