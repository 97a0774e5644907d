//! Products with enough rows and tokens for token tables, on every level of this machine, against the oracle, bit for
//! bit.

use crate::common::{Random, assert_same_bits, levels, pool_of, product};
use ternary_core::{ActMode, BLOCK, Bytes, Packing, Scales, TernaryTensor, oracle};
use tl_kernels::{Isa, KernelKind, Linear, Pool, selftest};

/// `[rows, cols]` with the given trit at each place and ordinary scales.
fn tensor(packing: Packing, rows: usize, cols: usize, mut trit: impl FnMut(usize, usize) -> i8) -> TernaryTensor {
    let mut bytes = vec![0; rows * packing.row_bytes(cols).unwrap()];
    for (i, block) in bytes.chunks_exact_mut(packing.block_bytes()).enumerate() {
        let (row, first) = (i / (cols / BLOCK), i % (cols / BLOCK) * BLOCK);
        let scale = half::f16::from_f32(0.01 + (i % 100) as f32 / 256.0);
        packing.encode(&std::array::from_fn(|k| trit(row, first + k)), scale, block);
    }
    TernaryTensor::new(packing, rows, cols, Bytes::from(bytes), Scales::PerBlock).unwrap()
}

fn random_tensor(random: &mut Random, packing: Packing, rows: usize, cols: usize) -> TernaryTensor {
    let mut bits = 0;
    tensor(packing, rows, cols, |_, column| {
        bits = if column % 32 == 0 { random.bits() } else { bits / 3 };
        (bits % 3) as i8 - 1
    })
}

fn tiles(tensor: &TernaryTensor, mode: ActMode) -> Linear {
    Linear::ternary(tensor.clone(), mode).unwrap().with_kernel(KernelKind::Tiles).unwrap()
}

fn expected(tensor: &TernaryTensor, mode: ActMode, x: &[f32], n: usize) -> Vec<f32> {
    let mut y = vec![0.0; n * tensor.rows()];
    oracle::gemm(tensor, x, n, mode, &mut y).unwrap();
    y
}

#[test]
fn every_number_of_tokens_equals_the_oracle() {
    let random = &mut Random(1);
    for (packing, mode) in [(Packing::Tq2_0, ActMode::A8Block), (Packing::Tq1_0, ActMode::A8Token)] {
        // Eight tiles, and one that is not full.
        let tensor = random_tensor(random, packing, 269, 2 * BLOCK);
        let x = random.floats(70 * 2 * BLOCK);
        let expected = expected(&tensor, mode, &x, 70);
        for isa in levels() {
            let linear = tiles(&tensor, mode).with_isa(isa).unwrap();
            selftest::check(&linear).unwrap();
            for n in (1..=70).filter(|n| isa != Isa::Scalar || n % 23 == 1) {
                let got = product(&linear, &Pool::serial(), &x[..n * 2 * BLOCK], n);
                assert_same_bits(&got, &expected[..n * 269], &format!("{isa} {mode:?} {} x {n}", packing.name()));
            }
        }
    }
}

/// More tiles than are summed at once, rows that start within a tile, pieces for several threads, one scale per tensor.
#[test]
fn lengths_slices_pools_and_scales_change_nothing() {
    let random = &mut Random(2);
    for (blocks, packing) in [(1, Packing::Tq2_0), (3, Packing::Tq1_0), (8, Packing::BitnetT158)] {
        let (rows, n) = (1601, 35);
        let tensor = random_tensor(random, packing, rows, blocks * BLOCK);
        let (bytes, scale) = (tensor.bytes().clone(), Scales::PerTensor(0.37));
        let one_scale = TernaryTensor::new(packing, rows, blocks * BLOCK, bytes, scale).unwrap();
        let x = random.floats(n * blocks * BLOCK);
        let by_block = expected(&tensor, ActMode::A8Token, &x, n);
        let by_tensor = expected(&one_scale, ActMode::A8Block, &x, n);
        for isa in levels().into_iter().filter(|&isa| isa != Isa::Scalar || blocks == 1) {
            let what = format!("{isa}, {blocks} blocks");
            let linear = tiles(&tensor, ActMode::A8Token).with_isa(isa).unwrap();
            assert_same_bits(&product(&linear, &pool_of(2), &x, n), &by_block, &what);
            for (start, end) in [(31, 1000), (33, 1601)] {
                let got = product(&linear.slice_rows(start, end).unwrap(), &Pool::serial(), &x, n);
                for (got, whole) in got.chunks(end - start).zip(by_block.chunks(rows)) {
                    assert_same_bits(got, &whole[start..end], &format!("{what}, {start}..{end}"));
                }
            }
            let linear = tiles(&one_scale, ActMode::A8Block).with_isa(isa).unwrap();
            assert_same_bits(&product(&linear, &Pool::serial(), &x, n), &by_tensor, &what);
        }
    }
}

/// The bounds of the 16-bit sums: the largest of both signs, and signs that alternate.
#[test]
fn extremes_are_exact() {
    let patterns: [fn(usize) -> i8; 5] =
        [|_| 1, |_| -1, |_| 0, |i| if i % 2 == 0 { 1 } else { -1 }, |i| if i / 32 % 2 == 0 { 1 } else { -1 }];
    let (rows, cols, n) = (260, 2 * BLOCK, 49);
    let x: Vec<f32> = (0..n).flat_map(|t| (0..cols).map(move |i| 127.0 * f32::from(patterns[t % 5](i)))).collect();
    for packing in Packing::ALL {
        let tensor = tensor(packing, rows, cols, |row, column| patterns[row % 5](column));
        for mode in [ActMode::A8Block, ActMode::A8Token] {
            let expected = expected(&tensor, mode, &x, n);
            for isa in levels() {
                let got = product(&tiles(&tensor, mode).with_isa(isa).unwrap(), &Pool::serial(), &x, n);
                assert_same_bits(&got, &expected, &format!("{isa} {mode:?} {}", packing.name()));
            }
        }
    }
}

/// A code 3 has no entry: such weights give the numbers of a batch that is too small for tables.
#[test]
fn damaged_codes_give_the_numbers_of_one_token() {
    let random = &mut Random(3);
    let sound = random_tensor(random, Packing::Tq2_0, 1600, BLOCK);
    let x = random.floats(40 * BLOCK);
    for row in [7, 1599] {
        let mut bytes = sound.bytes().to_vec();
        bytes[66 * row + 5] |= 0x0c;
        let tensor = TernaryTensor::new(Packing::Tq2_0, 1600, BLOCK, Bytes::from(bytes), Scales::PerBlock).unwrap();
        for isa in levels() {
            let linear = tiles(&tensor, ActMode::A8Block).with_isa(isa).unwrap();
            let single: Vec<f32> = x.chunks(BLOCK).flat_map(|x| product(&linear, &Pool::serial(), x, 1)).collect();
            assert_same_bits(&product(&linear, &Pool::serial(), &x, 40), &single, &format!("{isa}, row {row}"));
        }
    }
}
