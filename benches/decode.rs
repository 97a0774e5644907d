//! How much time does one decoded token take at a depth of context, against the bytes that it must read?

use std::sync::Arc;
use std::time::Duration;

use benches::model::{LAYERS, SyntheticModel, tokens};
use benches::pools;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mla_attention::CacheType;
use moe_runtime::{CraftsmanModel, LoadOptions, Session};
use tl_kernels::Isa;

fn decode(c: &mut Criterion) {
    let file = SyntheticModel::full_width();
    let files = file.open();
    let mut group = c.benchmark_group("decode");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for pool in pools() {
        let threads = pool.threads();
        let options = LoadOptions { pool: Arc::new(pool), ..LoadOptions::default() };
        let model = Arc::new(CraftsmanModel::from_files(&files, &options).expect("a file of our own"));
        for depth in [0, 1024, 4096] {
            let tokens = tokens(depth + 1, files.config.vocab);
            let mut session = Session::new(model.clone(), depth + 1, CacheType::F16).expect("memory for the cache");
            if depth > 0 {
                session.prefill(&tokens[..depth], &mut ()).expect("the prompt fits");
            }
            let cache = session.cache().bytes_per_token() * depth;
            let bytes = files.weight_bytes_per_token() + cache as u64;
            group.throughput(Throughput::Bytes(bytes));
            let shape = format!("{}/phase2-{LAYERS}-layers-at-{depth}", Isa::current());
            group.bench_function(BenchmarkId::new(shape, threads), |b| {
                b.iter(|| {
                    session.step(&tokens[depth..], &mut ()).expect("one token fits");
                    session.truncate(depth);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
