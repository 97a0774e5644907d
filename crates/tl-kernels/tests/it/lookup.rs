//! The lookup kernels TL1 and TL2 on every level of this machine against the scalar oracle, bit for bit: packings,
//! shapes, batches, pools, extremes. A level that the machine lacks gets a line in the output.

use crate::common::{Random, levels, pool_of, product};
use half::f16;
#[cfg(not(target_family = "wasm"))]
use proptest::prelude::*;
use ternary_core::{ActMode, BLOCK, Bytes, I2sLayout, Packing, Rounding, Scales, TernaryTensor, oracle};
use tl_kernels::{Error, Isa, KernelKind, Linear, Pool, selftest};

const LOOKUP: [KernelKind; 2] = [KernelKind::Tl1, KernelKind::Tl2];
const MODES: [ActMode; 2] = [ActMode::A8Block, ActMode::A8Token];

fn tensor(packing: Packing, rows: usize, cols: usize, seed: u64) -> TernaryTensor {
    let weights = Random(seed).floats(rows * cols);
    TernaryTensor::quantize(packing, Rounding::AbsMean, rows, cols, &weights, None).unwrap()
}

/// Both kernels on every level give the bits of the oracle.
#[track_caller]
fn assert_oracle(tensor: &TernaryTensor, x: &[f32], n: usize, mode: ActMode, levels: &[Isa], pool: &Pool) {
    let mut expected = vec![0.0; n * tensor.rows()];
    oracle::gemm(tensor, x, n, mode, &mut expected).unwrap();
    for kernel in LOOKUP {
        let linear = Linear::ternary(tensor.clone(), mode).unwrap().with_kernel(kernel).unwrap();
        for &isa in levels {
            let got = product(&linear.clone().with_isa(isa).unwrap(), pool, x, n);
            let (rows, cols, packing) = (tensor.rows(), tensor.cols(), tensor.packing().name());
            for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let what = format!("{kernel} {isa} {packing} {mode:?} [{rows}, {cols}] x {n}: value {i}");
                assert_eq!(got.to_bits(), expected.to_bits(), "{what} is {got:?}, not {expected:?}");
            }
        }
    }
}

#[test]
fn products_equal_the_oracle_for_every_packing_and_length() {
    let levels = levels();
    for (i, blocks) in [1, 2, 3, 6, 8, 40].into_iter().enumerate() {
        let (rows, cols) = (1 + blocks % 5, blocks * BLOCK);
        for packing in Packing::ALL {
            let packed = tensor(packing, rows, cols, i as u64);
            for scales in [Scales::PerBlock, Scales::PerTensor(0.37)] {
                let packed = TernaryTensor::new(packing, rows, cols, packed.bytes().clone(), scales).unwrap();
                for mode in MODES {
                    for n in [1, 3] {
                        assert_oracle(&packed, &Random(9).floats(n * cols), n, mode, &levels, &Pool::serial());
                    }
                }
            }
        }
    }
}

#[test]
fn products_equal_the_oracle_for_every_number_of_rows() {
    let levels = levels();
    for rows in (1..=40).chain([63, 64, 65, 128, 130]) {
        let packed = tensor(Packing::Tq2_0, rows, BLOCK, rows as u64);
        assert_oracle(&packed, &Random(5).floats(BLOCK), 1, ActMode::A8Block, &levels, &Pool::serial());
    }
}

#[test]
fn i2s_tensors_become_lookups_too() {
    let (rows, cols) = (7, 512);
    let trits: Vec<i8> =
        Random(4).floats(rows * cols).iter().map(|x| if x.abs() < 0.7 { 0 } else { x.signum() as i8 }).collect();
    for layout in I2sLayout::ALL {
        let bytes = layout.encode(&trits, 0.123).unwrap();
        let packed = TernaryTensor::from_i2s(layout, rows, cols, &bytes).unwrap();
        assert_oracle(&packed, &Random(8).floats(cols), 1, ActMode::A8Token, &levels(), &Pool::serial());
    }
}

/// The bounds of the byte sums: every addition at its largest, of both signs, and signs that alternate.
#[test]
fn extremes_of_the_sums_are_exact() {
    let patterns: [fn(usize) -> i8; 6] = [
        |_| 1,
        |_| -1,
        |_| 0,
        |i| if i % 2 == 0 { 1 } else { -1 },
        |i| if i % 3 == 0 { 1 } else { -1 },
        |i| if i / 32 % 2 == 0 { 1 } else { -1 },
    ];
    let levels = levels();
    for blocks in [1, 2, 40] {
        let cols = blocks * BLOCK;
        let mut bytes = Vec::new();
        for pattern in patterns {
            let mut trits = [0; BLOCK];
            trits.iter_mut().enumerate().for_each(|(i, t)| *t = pattern(i));
            let mut block = vec![0; Packing::Tq1_0.block_bytes()];
            Packing::Tq1_0.encode(&trits, f16::ONE, &mut block);
            bytes.extend(block.repeat(blocks));
        }
        let rows = patterns.len();
        let packed = TernaryTensor::new(Packing::Tq1_0, rows, cols, Bytes::from(bytes), Scales::PerBlock).unwrap();
        for pattern in patterns {
            let x: Vec<f32> = (0..cols).map(|i| 127.0 * f32::from(pattern(i))).collect();
            for mode in MODES {
                assert_oracle(&packed, &x, 1, mode, &levels, &Pool::serial());
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_batch_pool_or_slice() {
    let (rows, cols, n) = (301, 512, 19);
    let packed = tensor(Packing::Tq2_0, rows, cols, 3);
    let x = Random(6).floats(n * cols);
    for kernel in LOOKUP {
        let linear = Linear::ternary(packed.clone(), ActMode::A8Block).unwrap().with_kernel(kernel).unwrap();
        let one_by_one: Vec<f32> = x.chunks_exact(cols).flat_map(|x| product(&linear, &Pool::serial(), x, 1)).collect();
        for (n, threads) in [(1, 2), (2, 7), (8, 2), (9, 1), (19, 7)] {
            let got = product(&linear, &pool_of(threads), &x[..n * cols], n);
            assert_eq!(got, one_by_one[..n * rows], "{kernel} x {n} on {threads} threads");
        }
        for (start, end) in [(0, 5), (60, 70), (64, 128), (5, 300), (300, 301)] {
            let part = linear.slice_rows(start, end).unwrap();
            assert_eq!(part.kernel(), kernel);
            assert_eq!(product(&part, &Pool::serial(), &x[..cols], 1), one_by_one[start..end]);
            let inner = part.slice_rows(1.min(end - start - 1), end - start).unwrap();
            let first = start + 1.min(end - start - 1);
            assert_eq!(product(&inner, &Pool::serial(), &x[..cols], 1), one_by_one[first..end]);
        }
    }
}

#[test]
fn the_self_test_accepts_lookups_on_every_level() {
    for kernel in LOOKUP {
        let linear = Linear::ternary(tensor(Packing::Tq1_0, 70, 512, 1), ActMode::A8Block).unwrap();
        let linear = linear.with_kernel(kernel).unwrap();
        for isa in levels() {
            selftest::check(&linear.clone().with_isa(isa).unwrap()).unwrap();
        }
    }
}

#[test]
fn what_no_lookup_can_multiply_is_refused() {
    let packed = tensor(Packing::Tq2_0, 2, 256, 1);
    let float = Linear::ternary(packed, ActMode::F32).unwrap();
    assert!(matches!(float.clone().with_kernel(KernelKind::Tl1), Err(Error::NoKernel { .. })));
    assert!(matches!(float.with_kernel(KernelKind::Dense), Err(Error::NoKernel { .. })));
    let dense = Linear::from_f32(1, 2, vec![1.0, 2.0]).unwrap();
    assert!(matches!(dense.with_kernel(KernelKind::Tl2), Err(Error::NoKernel { .. })));
    let damaged = TernaryTensor::new(Packing::Tq2_0, 1, 256, Bytes::from(vec![0xff; 66]), Scales::PerBlock).unwrap();
    let damaged = Linear::ternary(damaged, ActMode::A8Block).unwrap();
    assert!(matches!(damaged.with_kernel(KernelKind::Tl1), Err(Error::Ternary(_))));
}

// Not on WASM, where proptest has no source of randomness.
#[cfg(not(target_family = "wasm"))]
proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_shape_and_any_numbers(
        rows in 1..130usize, blocks in 1..6usize, n in 1..11usize, seed: u64, spread in 1e-3f32..1e3, token: bool,
    ) {
        let packed = tensor(Packing::Tq2_0, rows, blocks * BLOCK, seed);
        let x: Vec<f32> = Random(!seed).floats(n * blocks * BLOCK).iter().map(|x| x.powi(3) * spread).collect();
        let mode = if token { ActMode::A8Token } else { ActMode::A8Block };
        let fast = [Isa::detect()];
        assert_oracle(&packed, &x, n, mode, &fast, &Pool::serial());
    }
}
