//! How long until a mapped file is ready for its first token? The file is in the page cache.

use std::time::Duration;

use benches::model::{LAYERS, SyntheticModel};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use moe_runtime::{CraftsmanModel, LoadOptions};
use tl_kernels::Isa;

fn load(c: &mut Criterion) {
    let file = SyntheticModel::full_width();
    let bytes = std::fs::metadata(file.path()).expect("a file of our own").len();
    let mut group = c.benchmark_group("load");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Bytes(bytes));
    let shape = format!("{}/phase2-{LAYERS}-layers", Isa::current());
    group.bench_function(BenchmarkId::new(shape, 1), |b| {
        b.iter(|| CraftsmanModel::from_files(&file.open(), &LoadOptions::default()).expect("a file of our own"));
    });
    group.finish();
}

criterion_group!(benches, load);
criterion_main!(benches);
