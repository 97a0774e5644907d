//! Where do look-ups or tiles beat unpacking rows? The kernels for ternary weights side by side, one token, one matrix in
//! the caches and one larger than any cache. Throughput is in weights, because the layouts differ in bytes.

use std::time::Duration;

use benches::{activations, levels, pools};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ternary_core::{ActMode, Bytes, Packing, Scales, TernaryTensor};
use tl_kernels::{ActivationBuffer, Isa, KernelKind, Linear};

const COLS: usize = 2048;

/// A layer of `[rows, COLS]` whose rows repeat after 64.
fn layer(packing: Packing, kernel: KernelKind, rows: usize) -> Linear {
    let row_bytes = packing.row_bytes(COLS).expect("whole blocks");
    let mut bytes = vec![0; 64 * row_bytes];
    for (i, block) in bytes.chunks_exact_mut(packing.block_bytes()).enumerate() {
        let mut trits = [0; 256];
        trits.iter_mut().enumerate().for_each(|(j, t)| *t = ((i * 61 + j * 7 + j / 11) % 3) as i8 - 1);
        packing.encode(&trits, ternary_core::f16::from_f32(0.02), block);
    }
    let bytes: Vec<u8> = bytes.iter().copied().cycle().take(rows * row_bytes).collect();
    let tensor =
        TernaryTensor::new(packing, rows, COLS, Bytes::from(bytes), Scales::PerBlock).expect("the length fits");
    let linear = Linear::ternary(tensor, ActMode::A8Block).expect("the shape is sound");
    linear.with_kernel(kernel).expect("the codes are valid")
}

fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("lookup");
    group.sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(500));
    let mut acts = ActivationBuffer::new();
    acts.set(&activations(COLS), 1, COLS);
    acts.quantize(ActMode::A8Block);
    for rows in [1536, 1536 * 200] {
        let mut y = vec![0.0; rows];
        for (packing, kernel) in [
            (Packing::Tq2_0, KernelKind::I2s),
            (Packing::Tq1_0, KernelKind::I2s),
            (Packing::Tq2_0, KernelKind::Tiles),
            (Packing::Tq1_0, KernelKind::Tiles),
            (Packing::Tq2_0, KernelKind::Tl1),
            (Packing::Tq2_0, KernelKind::Tl2),
        ] {
            let linear = layer(packing, kernel, rows);
            group.throughput(Throughput::Elements((rows * COLS) as u64));
            for isa in levels() {
                let linear = linear.clone().with_isa(isa).expect("only supported levels");
                for pool in pools() {
                    if rows > 1536 && isa == Isa::Scalar || rows == 1536 && pool.threads() > 1 {
                        continue;
                    }
                    let name = format!("{isa}/{}-{kernel}-{rows}x{COLS}", packing.name());
                    let id = BenchmarkId::new(name, pool.threads());
                    group.bench_function(id, |b| b.iter(|| linear.forward(&pool, &acts, &mut y)));
                }
            }
        }
    }
    group.finish();
}

criterion_group!(benches, lookup);
criterion_main!(benches);
