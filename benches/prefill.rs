//! How close do many tokens come to the speed of arithmetic? Elements are multiply-adds. Ternary weights are measured in
//! the layout of their file and as tiles, for which some levels make token tables.

use std::time::Duration;

use benches::{TYPES, activations, layer, levels, pools};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tl_kernels::{ActivationBuffer, Isa, KernelKind, Linear};

const ROWS: usize = 1536;
const COLS: usize = 2048;
const TOKENS: usize = 126;

/// Ternary weights as tiles.
fn tiles(ty: &str) -> Linear {
    layer(ty, ROWS, COLS).with_kernel(KernelKind::Tiles).expect("ternary weights and block activations")
}

fn prefill(c: &mut Criterion) {
    let mut group = c.benchmark_group("prefill");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements((ROWS * COLS * TOKENS) as u64));
    let of_files = TYPES.map(|ty| (ty.to_owned(), layer(ty, ROWS, COLS)));
    let tiles = ["TQ2_0", "TQ1_0"].map(|ty| (format!("{ty}-tiles"), tiles(ty)));
    for (name, linear) in of_files.into_iter().chain(tiles) {
        let mut acts = ActivationBuffer::new();
        acts.set(&activations(TOKENS * COLS), TOKENS, COLS);
        acts.quantize(linear.act_mode());
        let mut y = vec![0.0; TOKENS * ROWS];
        for isa in levels() {
            let linear = linear.clone().with_isa(isa).expect("only supported levels");
            for pool in pools() {
                if isa == Isa::Scalar && pool.threads() > 1 {
                    continue;
                }
                let id = BenchmarkId::new(format!("{isa}/{name}-{ROWS}x{COLS}x{TOKENS}"), pool.threads());
                group.bench_function(id, |b| b.iter(|| linear.forward(&pool, &acts, &mut y)));
            }
        }
    }
    group.finish();
}

criterion_group!(benches, prefill);
criterion_main!(benches);
