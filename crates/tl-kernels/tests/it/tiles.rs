//! The products over the file's layout and over tiles of 32 rows, on every level of this machine, against the oracle,
//! bit for bit: lengths, rows, batches, extremes, damaged bytes, slices, arenas.

use crate::common::{Random, assert_same_bits, levels, pool_of, product};
#[cfg(not(target_family = "wasm"))]
use proptest::prelude::*;
use ternary_core::{ActMode, BLOCK, Bytes, Packing, Scales, TernaryTensor, oracle};
use tl_kernels::{Arena, BitLinear, DenseType, Error, Isa, KernelKind, Linear, Pool, pack_layers, selftest};

const KERNELS: [KernelKind; 2] = [KernelKind::I2s, KernelKind::Tiles];
const INT8: [ActMode; 2] = [ActMode::A8Block, ActMode::A8Token];

impl Random {
    /// A matrix with random codes and ordinary scales.
    fn tensor(&mut self, packing: Packing, rows: usize, cols: usize) -> TernaryTensor {
        let mut bytes = vec![0; rows * packing.row_bytes(cols).unwrap()];
        for block in bytes.chunks_exact_mut(packing.block_bytes()) {
            let mut bits = 0;
            let trits = std::array::from_fn(|i| {
                bits = if i % 32 == 0 { self.bits() } else { bits / 3 };
                (bits % 3) as i8 - 1
            });
            packing.encode(&trits, half::f16::from_f32(0.01 + (self.bits() % 100) as f32 / 256.0), block);
        }
        TernaryTensor::new(packing, rows, cols, Bytes::from(bytes), Scales::PerBlock).unwrap()
    }
}

fn expected(tensor: &TernaryTensor, mode: ActMode, x: &[f32], n: usize) -> Vec<f32> {
    let mut y = vec![0.0; n * tensor.rows()];
    oracle::gemm(tensor, x, n, mode, &mut y).unwrap();
    y
}

/// Both layouts on all levels against the oracle.
#[track_caller]
fn check(tensor: &TernaryTensor, mode: ActMode, x: &[f32], n: usize) {
    let expected = expected(tensor, mode, x, n);
    for isa in levels() {
        for kernel in KERNELS {
            let linear = Linear::ternary(tensor.clone(), mode).unwrap().with_isa(isa).unwrap();
            let linear = linear.with_kernel(kernel).unwrap();
            assert_eq!(linear.kernel(), kernel);
            let (rows, cols) = (tensor.rows(), tensor.cols());
            let what = format!("{isa} {kernel} {} {mode:?} [{rows}, {cols}] x {n}", tensor.packing().name());
            assert_same_bits(&product(&linear, &Pool::serial(), x, n), &expected, &what);
        }
    }
}

#[test]
fn every_length_equals_the_oracle() {
    let random = &mut Random(1);
    for blocks in 1..=40 {
        let packing = Packing::ALL[blocks % 3];
        let (rows, n) = ([1, 5, 32, 33, 40][blocks % 5], [1, 2, 4, 9][blocks % 4]);
        let tensor = random.tensor(packing, rows, blocks * BLOCK);
        let x = random.floats(n * blocks * BLOCK);
        for mode in INT8 {
            check(&tensor, mode, &x, n);
        }
    }
}

#[test]
fn every_number_of_rows_equals_the_oracle() {
    let random = &mut Random(2);
    for rows in 1..=40 {
        for packing in Packing::ALL {
            let tensor = random.tensor(packing, rows, BLOCK);
            let x = random.floats(5 * BLOCK);
            check(&tensor, ActMode::A8Block, &x[..BLOCK], 1);
            check(&tensor, ActMode::A8Token, &x, 5);
        }
    }
}

#[test]
fn every_number_of_tokens_equals_the_oracle() {
    let random = &mut Random(3);
    for packing in Packing::ALL {
        let tensor = random.tensor(packing, 35, 2 * BLOCK);
        let one_scale =
            TernaryTensor::new(packing, 35, 2 * BLOCK, tensor.bytes().clone(), Scales::PerTensor(0.37)).unwrap();
        let x = random.floats(40 * 2 * BLOCK);
        for n in 1..=40 {
            let x = &x[..n * 2 * BLOCK];
            check(&tensor, INT8[n % 2], x, n);
            check(&one_scale, INT8[n % 2], x, n);
        }
    }
}

/// The bounds of the integer sums: the largest of both signs, and signs that alternate.
#[test]
fn extremes_are_exact() {
    let patterns: [fn(usize) -> i8; 5] =
        [|_| 1, |_| -1, |_| 0, |i| if i % 2 == 0 { 1 } else { -1 }, |i| if i / 32 % 2 == 0 { 1 } else { -1 }];
    for packing in Packing::ALL {
        for blocks in [1, 40] {
            let mut bytes = Vec::new();
            for pattern in patterns {
                let mut block = vec![0; packing.block_bytes()];
                packing.encode(&std::array::from_fn(pattern), half::f16::ONE, &mut block);
                bytes.extend(block.repeat(blocks));
            }
            let (rows, cols) = (patterns.len(), blocks * BLOCK);
            let tensor = TernaryTensor::new(packing, rows, cols, Bytes::from(bytes), Scales::PerBlock).unwrap();
            let x: Vec<f32> = patterns.iter().flat_map(|p| (0..cols).map(|i| 127.0 * f32::from(p(i)))).collect();
            for mode in INT8 {
                check(&tensor, mode, &x, patterns.len());
                check(&tensor, mode, &x[..cols], 1);
            }
        }
    }
}

#[test]
fn every_tq1_byte_is_packed_as_it_decodes() {
    let mut bytes = Vec::new();
    for byte in 0..=255u8 {
        bytes.extend([byte; 52]);
        bytes.extend(half::f16::from_f32(0.5).to_le_bytes());
    }
    let tensor = TernaryTensor::new(Packing::Tq1_0, 256, BLOCK, Bytes::from(bytes), Scales::PerBlock).unwrap();
    let x = Random(4).floats(4 * BLOCK);
    check(&tensor, ActMode::A8Block, &x[..BLOCK], 1);
    check(&tensor, ActMode::A8Block, &x, 4);
}

/// Damaged codes give the numbers of the definition in every layout and batch.
#[test]
fn damaged_codes_give_the_same_numbers_everywhere() {
    let random = &mut Random(5);
    for packing in [Packing::Tq2_0, Packing::BitnetT158] {
        for fill in [0xff, 0x00, 0xc3] {
            let mut bytes: Vec<u8> = (0..66 * 66).map(|_| random.bits() as u8 | fill).collect();
            bytes.chunks_exact_mut(66).for_each(|block| block[64..].copy_from_slice(&half::f16::ONE.to_le_bytes()));
            let tensor = TernaryTensor::new(packing, 33, 2 * BLOCK, Bytes::from(bytes), Scales::PerBlock).unwrap();
            let x: Vec<f32> = (0..9 * 2 * BLOCK).map(|i| if i < 600 { 127.0 } else { random.floats(1)[0] }).collect();
            for n in [1, 9] {
                let linear = Linear::ternary(tensor.clone(), ActMode::A8Block).unwrap();
                let x = &x[..n * 2 * BLOCK];
                let scalar = linear.clone().with_isa(Isa::Scalar).unwrap();
                let one_by_one: Vec<f32> =
                    x.chunks_exact(2 * BLOCK).flat_map(|x| product(&scalar, &Pool::serial(), x, 1)).collect();
                for isa in levels() {
                    for kernel in KERNELS {
                        let linear = linear.clone().with_isa(isa).unwrap().with_kernel(kernel).unwrap();
                        let what = format!("{isa} {kernel} {} x {n}", packing.name());
                        assert_same_bits(&product(&linear, &Pool::serial(), x, n), &one_by_one, &what);
                    }
                }
            }
        }
    }
}

#[test]
fn slices_and_pools_change_nothing() {
    let random = &mut Random(6);
    let tensor = random.tensor(Packing::Tq2_0, 200, 2 * BLOCK);
    let whole = Linear::ternary(tensor, ActMode::A8Block).unwrap();
    let packed = whole.clone().with_kernel(KernelKind::Tiles).unwrap();
    for n in [1, 6] {
        let x = random.floats(n * 2 * BLOCK);
        let expected = product(&whole, &Pool::serial(), &x, n);
        for threads in [1, 2, 7] {
            assert_same_bits(&product(&packed, &pool_of(threads), &x, n), &expected, "pools");
        }
        for (start, end) in [(0, 200), (0, 1), (31, 33), (32, 64), (33, 199), (199, 200)] {
            let part = packed.slice_rows(start, end).unwrap();
            let inner = part.slice_rows(0, end - start).unwrap();
            for part in [part, inner] {
                let got = product(&part, &Pool::serial(), &x, n);
                for (t, got) in got.chunks_exact(end - start).enumerate() {
                    assert_same_bits(got, &expected[t * 200 + start..t * 200 + end], "slices");
                }
            }
        }
    }
    let part = packed.slice_rows(33, 64).unwrap();
    assert_eq!(part.bytes().len(), 2 * 2112, "a slice shares the tiles that it lies in, no others");
    selftest::check(&part).unwrap();
}

/// Products read the tiles alone: a change in the tiles changes the results.
#[test]
fn a_changed_tile_changes_the_result() {
    let random = &mut Random(7);
    let x = random.floats(2 * BLOCK);
    for packing in Packing::ALL {
        let tensor = random.tensor(packing, 40, BLOCK);
        let layer = BitLinear::new(tensor.clone(), ActMode::A8Block).unwrap();
        let mut arena = Arena::new(layer.packed_bytes()).unwrap();
        layer.pack_into(arena.as_mut_slice());
        // Row 3 is dword 3 of each 128 bytes.
        arena.as_mut_slice()[4 * 3] ^= 0x81;
        let changed = layer.with_packed(arena.freeze()).unwrap();
        for isa in levels() {
            for n in [1, 2] {
                let x = &x[..n * BLOCK];
                let got = product(&Linear::Ternary(changed.clone().with_isa(isa).unwrap()), &Pool::serial(), x, n);
                let expected = expected(&tensor, ActMode::A8Block, x, n);
                let differing: Vec<usize> = (0..n * 40).filter(|&r| got[r] != expected[r]).collect();
                assert_eq!(differing, (0..n).map(|t| 40 * t + 3).collect::<Vec<_>>(), "{isa} {packing:?}");
            }
            let error = selftest::check(&Linear::Ternary(changed.clone().with_isa(isa).unwrap())).unwrap_err();
            assert!(matches!(error, Error::SelfTest { row: 3, .. }), "{error}");
        }
    }
}

#[test]
fn layers_are_packed_together_and_others_left_alone() {
    let random = &mut Random(8);
    let pool = pool_of(2);
    let dense = Linear::dense(DenseType::F32, 1, 2, Bytes::from(vec![0; 8])).unwrap();
    let float = Linear::ternary(random.tensor(Packing::Tq1_0, 3, BLOCK), ActMode::F32).unwrap();
    let ternary: Vec<Linear> = [(1, 1), (64, 3), (33, 2)]
        .map(|(rows, blocks)| random.tensor(Packing::ALL[rows % 3], rows, blocks * BLOCK))
        .map(|tensor| Linear::ternary(tensor, ActMode::A8Block).unwrap())
        .into();
    let mut layers = [dense, ternary[0].clone(), float, ternary[1].clone(), ternary[2].clone()];
    let n_bytes = pack_layers(&mut layers.each_mut(), &pool).unwrap();
    assert_eq!(n_bytes, (1 + 2 * 3) * 1728 + 2 * 2 * 2112);
    assert_eq!(layers[3].bytes().len(), ternary[1].bytes().len(), "whole tiles are as large as in the file");
    let kinds = layers.each_ref().map(Linear::kernel);
    use KernelKind::{Dense, I2s, Tiles};
    assert_eq!(kinds, [Dense, Tiles, I2s, Tiles, Tiles]);
    for (packed, file) in [&layers[1], &layers[3], &layers[4]].into_iter().zip(&ternary) {
        let x = random.floats(file.cols());
        assert_same_bits(&product(packed, &pool, &x, 1), &product(file, &pool, &x, 1), "packed");
    }
    assert_eq!(pack_layers(&mut layers.each_mut(), &pool).unwrap(), 0, "packed already");
}

#[test]
fn tiles_of_another_shape_are_refused() {
    for (packing, block) in [(Packing::Tq2_0, 2112), (Packing::Tq1_0, 1728)] {
        let layer = BitLinear::new(Random(9).tensor(packing, 40, BLOCK), ActMode::A8Block).unwrap();
        let of_len = |len| layer.clone().with_packed(Arena::new(len).unwrap().freeze());
        assert!(of_len(2 * block).is_ok());
        for len in [0, block, 2 * block - 1, 3 * block] {
            let error = of_len(len).unwrap_err();
            assert!(matches!(error, Error::PackedBytes { expected, got } if expected == 2 * block && got == len));
        }
        let askew = Arena::new(2 * block + 2).unwrap().freeze().slice(2..2 * block + 2);
        assert!(matches!(layer.clone().with_packed(askew), Err(Error::PackedBytes { .. })));
    }
    let tensor = Random(9).tensor(Packing::Tq2_0, 40, BLOCK);
    let float = BitLinear::new(tensor, ActMode::F32).unwrap();
    assert!(!float.is_packable());
    assert!(matches!(float.with_packed(Bytes::default()), Err(Error::NoKernel { .. })));
}

// Not on WASM, where proptest has no source of randomness.
#[cfg(not(target_family = "wasm"))]
proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_shape_equals_the_oracle(seed: u64, rows in 1usize..100, blocks in 1usize..6, n in 1usize..20, p in 0usize..3) {
        let random = &mut Random(seed);
        let tensor = random.tensor(Packing::ALL[p], rows, blocks * BLOCK);
        let x = random.floats(n * blocks * BLOCK);
        check(&tensor, INT8[n % 2], &x, n);
    }
}
