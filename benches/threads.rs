//! How much time does it take to hand work to all threads, as often as for one decoded token?
//!
//! 470 hand-overs of 8 tasks, which are empty or take some microseconds. Ids `handover/POOL/TASK/THREADS`. `rayon`
//! runs inside one `install`, like a step that stays within rayon's pool; `rayon-installs` enters the pool for each
//! hand-over.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rayon::prelude::*;
use tl_kernels::Pool;

/// Hand-overs per token of a model with 47 layers.
const HANDOVERS: usize = 470;
const TASKS: usize = 8;

/// Some floating-point work that the compiler cannot remove.
fn work(rounds: usize) {
    let mut x = 1.0f32;
    for i in 0..rounds {
        x = black_box(x * 1.0001 + i as f32);
    }
    black_box(x);
}

fn bench(c: &mut Criterion) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let ours = Pool::new(threads).expect("the system has that many processors");
    let rayon = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start");
    let mut group = c.benchmark_group("handover");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    for (name, rounds) in [("empty", 0), ("microseconds", 500)] {
        let id = |pool: &str| BenchmarkId::new(format!("{pool}/{name}"), threads);
        let rayons = || (0..TASKS).into_par_iter().with_max_len(1).for_each(|_| work(rounds));
        group.bench_function(id("pool"), |b| {
            b.iter(|| (0..HANDOVERS).for_each(|_| ours.run(TASKS, &|_| work(rounds))));
        });
        group.bench_function(id("rayon"), |b| b.iter(|| rayon.install(|| (0..HANDOVERS).for_each(|_| rayons()))));
        group.bench_function(id("rayon-installs"), |b| {
            b.iter(|| (0..HANDOVERS).for_each(|_| rayon.install(rayons)));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
