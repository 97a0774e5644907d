//! How close does one token come to the speed of memory? Matrices are larger than any cache.

use std::time::Duration;

use benches::{TYPES, activations, layer, levels, pools, read_all, rows_for};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tl_kernels::{ActivationBuffer, Isa};

const COLS: usize = 2048;
const MATRIX_BYTES: usize = 160 << 20;

fn read(c: &mut Criterion) {
    let mut words = vec![1u64; MATRIX_BYTES / 8];
    let mut group = c.benchmark_group("read");
    group.throughput(Throughput::Bytes(MATRIX_BYTES as u64)).sample_size(10);
    for pool in pools() {
        let id = BenchmarkId::new("memory/160MiB", pool.threads());
        group.bench_function(id, |b| b.iter(|| read_all(&pool, &mut words)));
    }
    group.finish();
}

fn gemv(c: &mut Criterion) {
    let mut group = c.benchmark_group("gemv");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for ty in TYPES {
        let rows = rows_for(ty, COLS, MATRIX_BYTES);
        let linear = layer(ty, rows, COLS);
        group.throughput(Throughput::Bytes(linear.bytes().len() as u64));
        let mut acts = ActivationBuffer::new();
        acts.set(&activations(COLS), 1, COLS);
        acts.quantize(linear.act_mode());
        let mut y = vec![0.0; rows];
        for isa in levels() {
            let linear = linear.clone().with_isa(isa).expect("only supported levels");
            for pool in pools() {
                if isa == Isa::Scalar && pool.threads() > 1 {
                    continue;
                }
                let id = BenchmarkId::new(format!("{isa}/{ty}-{rows}x{COLS}"), pool.threads());
                group.bench_function(id, |b| b.iter(|| linear.forward(&pool, &acts, &mut y)));
            }
        }
    }
    group.finish();
}

criterion_group!(benches, read, gemv);
criterion_main!(benches);
