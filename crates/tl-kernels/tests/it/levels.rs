//! Every kernel on every level of this machine against the scalar oracles, bit for bit: types, lengths,
//! batches, pools, extremes. A level that the machine lacks gets a line in the output.

use crate::common::{Random, assert_same_bits, levels, pool_of};
use half::f16;
use ternary_core::{ActMode, BLOCK, Bytes, Packing, Rounding, Scales, TernaryTensor, dot16, oracle, quantize_a8};
use tl_kernels::{
    ActivationBuffer, ColumnBlock, DenseType, Isa, Linear, Pool, Product, dense, forward_all, math, selftest,
};

impl Random {
    /// Arbitrary weights of a dense type, all finite.
    fn weights(&mut self, ty: DenseType, rows: usize, cols: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for _ in 0..rows * cols / ty.block_len() {
            let mut block: Vec<u8> = (0..ty.block_bytes()).map(|_| self.bits() as u8).collect();
            let scale = f16::from_f32(self.float() * 0.01).to_le_bytes();
            match ty {
                DenseType::F32 => block.copy_from_slice(&self.float().to_le_bytes()),
                DenseType::F16 => block.copy_from_slice(&f16::from_f32(self.float()).to_le_bytes()),
                DenseType::Bf16 => block.copy_from_slice(&self.float().to_le_bytes()[2..]),
                DenseType::Q8_0 | DenseType::Q2_0 => block[..2].copy_from_slice(&scale),
                DenseType::Q6K => block[208..].copy_from_slice(&scale),
                _ => unreachable!("a new type needs its weights here"),
            }
            out.extend(block);
        }
        out
    }
}

/// The weights of a row by the format's definition, one at a time.
fn dequantized(ty: DenseType, row: &[u8]) -> Vec<f32> {
    let half = |b: &[u8]| f16::from_le_bytes([b[0], b[1]]).to_f32();
    let block = |b: &[u8]| -> Vec<f32> {
        match ty {
            DenseType::F32 => vec![f32::from_le_bytes(b.try_into().unwrap())],
            DenseType::F16 => vec![half(b)],
            DenseType::Bf16 => vec![f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16)],
            DenseType::Q8_0 => b[2..].iter().map(|&q| f32::from(q as i8) * half(b)).collect(),
            DenseType::Q6K => (0..256).map(|i| q6k_weight(b, i)).collect(),
            DenseType::Q2_0 => {
                (0..64).map(|i| half(b) * (f32::from(b[2 + i / 4] >> (2 * (i % 4)) & 3) - 1.0)).collect()
            }
            _ => unreachable!("a new type needs its definition here"),
        }
    };
    row.chunks_exact(ty.block_bytes()).flat_map(block).collect()
}

/// Weight `i` of a Q6_K block.
fn q6k_weight(b: &[u8], i: usize) -> f32 {
    let (half, quarter, m) = (i / 128, i % 128 / 32, i % 32);
    let low = b[64 * half + 32 * (quarter % 2) + m] >> (4 * (quarter / 2)) & 15;
    let high = b[128 + 32 * half + m] >> (2 * quarter) & 3;
    let scale = f16::from_le_bytes([b[208], b[209]]).to_f32() * f32::from(b[192 + i / 16] as i8);
    scale * f32::from(i16::from(low | high << 4) - 32)
}

/// The layer's product on a level and a pool.
fn product(linear: &Linear, isa: Isa, pool: &Pool, x: &[f32], n: usize) -> Vec<f32> {
    crate::common::product(&linear.clone().with_isa(isa).unwrap(), pool, x, n)
}

/// `[n, rows]` by dot16 over the definition's weights.
fn dense_oracle(ty: DenseType, bytes: &[u8], rows: usize, cols: usize, x: &[f32]) -> Vec<f32> {
    let row_bytes = ty.row_bytes(cols).unwrap();
    let weights: Vec<_> = bytes.chunks_exact(row_bytes).map(|row| dequantized(ty, row)).collect();
    let token = |x: &[f32]| weights.iter().map(|w| dot16(w, x)).collect::<Vec<_>>();
    assert_eq!(weights.len(), rows);
    x.chunks_exact(cols).flat_map(token).collect()
}

#[test]
fn dense_products_equal_the_oracle_at_every_length() {
    let random = &mut Random(1);
    for ty in DenseType::ALL {
        let lengths: Vec<usize> = match ty.block_len() {
            1 => (1..=70).chain([127, 192, 255, 513, 1000]).collect(),
            32 => vec![32, 64, 96, 192, 320, 2048],
            _ => vec![256, 512, 768, 2048],
        };
        for cols in lengths {
            let rows = 1 + cols % 7;
            let bytes = random.weights(ty, rows, cols);
            let linear = Linear::dense(ty, rows, cols, Bytes::from(bytes.clone())).unwrap();
            for n in [1, 2, 5, 7] {
                let x = random.floats(n * cols);
                let expected = dense_oracle(ty, &bytes, rows, cols, &x);
                for isa in levels() {
                    let got = product(&linear, isa, &Pool::serial(), &x, n);
                    assert_same_bits(&got, &expected, &format!("{isa} {ty} [{rows}, {cols}] x {n}"));
                }
            }
        }
    }
}

#[test]
fn dequantized_rows_follow_the_definition() {
    let random = &mut Random(2);
    for ty in DenseType::ALL {
        let cols = 256 + ty.block_len() % 3;
        let cols = cols - cols % ty.block_len();
        let bytes = random.weights(ty, 3, cols);
        let expected = dequantized(ty, &bytes[2 * ty.row_bytes(cols).unwrap()..]);
        for isa in levels() {
            let linear = Linear::dense(ty, 3, cols, Bytes::from(bytes.clone())).unwrap().with_isa(isa).unwrap();
            let mut row = vec![0.0; cols];
            linear.dequantize_row(2, &mut row).unwrap();
            assert_same_bits(&row, &expected, &format!("{isa} {ty}"));
        }
    }
}

#[test]
fn ternary_products_equal_the_oracle_at_every_length() {
    let random = &mut Random(3);
    for blocks in [1, 2, 3, 6, 8, 40] {
        let (rows, cols) = ([1, 4, 31, 32, 33][blocks % 5], blocks * BLOCK);
        let weights = random.floats(rows * cols);
        for packing in Packing::ALL {
            let tensor = TernaryTensor::quantize(packing, Rounding::LeastSquares, rows, cols, &weights, None).unwrap();
            for scales in [Scales::PerBlock, Scales::PerTensor(0.37)] {
                let tensor = TernaryTensor::new(packing, rows, cols, tensor.bytes().clone(), scales).unwrap();
                for mode in [ActMode::F32, ActMode::A8Block, ActMode::A8Token] {
                    let linear = Linear::ternary(tensor.clone(), mode).unwrap();
                    for n in [1, 2, 15] {
                        let x = random.floats(n * cols);
                        let mut expected = vec![0.0; n * rows];
                        oracle::gemm(&tensor, &x, n, mode, &mut expected).unwrap();
                        for isa in levels() {
                            let got = product(&linear, isa, &Pool::serial(), &x, n);
                            let what = format!("{isa} {} {mode:?} [{rows}, {cols}] x {n}", packing.name());
                            assert_same_bits(&got, &expected, &what);
                        }
                    }
                }
            }
        }
    }
}

/// One layer of each kind, `[rows, 512]`.
fn one_of_each(random: &mut Random, rows: usize) -> Vec<Linear> {
    let cols = 512;
    let mut layers: Vec<Linear> = DenseType::ALL
        .map(|ty| Linear::dense(ty, rows, cols, Bytes::from(random.weights(ty, rows, cols))).unwrap())
        .into();
    for packing in Packing::ALL {
        let weights = random.floats(rows * cols);
        let tensor = TernaryTensor::quantize(packing, Rounding::AbsMean, rows, cols, &weights, None).unwrap();
        for mode in [ActMode::F32, ActMode::A8Block, ActMode::A8Token] {
            layers.push(Linear::ternary(tensor.clone(), mode).unwrap());
        }
    }
    layers
}

#[test]
fn results_do_not_depend_on_batch_or_pool() {
    let random = &mut Random(4);
    let pools = [1, 2, 7].map(pool_of);
    let rows = 301;
    let x = random.floats(40 * 512);
    for linear in one_of_each(random, rows) {
        for isa in levels().into_iter().filter(|&isa| isa != Isa::Scalar) {
            let one_by_one: Vec<f32> =
                x.chunks_exact(512).flat_map(|x| product(&linear, isa, &pools[0], x, 1)).collect();
            for (n, pool) in (1..=40).zip(pools.iter().cycle()) {
                let got = product(&linear, isa, pool, &x[..n * 512], n);
                let what = format!("{isa} {} x {n} on {} threads", linear.type_name(), pool.threads());
                assert_same_bits(&got, &one_by_one[..n * rows], &what);
            }
        }
    }
}

/// One work list gives the results of its products alone, on any number of threads and with pieces of any width.
#[test]
fn lists_and_pieces_give_the_bits_of_the_whole() {
    let random = &mut Random(6);
    let (a, b) = (one_of_each(random, 301), one_of_each(random, 70));
    let x = random.floats(3 * 512);
    let mut acts = ActivationBuffer::new();
    acts.set(&x, 3, 512);
    for mode in [ActMode::A8Block, ActMode::A8Token] {
        acts.quantize(mode);
    }
    for (a, b) in a.iter().zip(&b) {
        let (want_a, want_b) =
            (product(a, a.isa(), &Pool::serial(), &x, 3), product(b, b.isa(), &Pool::serial(), &x, 3));
        for threads in [1, 2, 7] {
            let pool = pool_of(threads);
            let (mut y_a, mut y_b) = (vec![0.0; want_a.len()], vec![0.0; want_b.len()]);
            let list =
                [Product { linear: a, acts: &acts, y: &mut y_a }, Product { linear: b, acts: &acts, y: &mut y_b }];
            forward_all(&pool, list);
            assert_same_bits(&y_a, &want_a, a.type_name());
            assert_same_bits(&y_b, &want_b, b.type_name());
        }
        let mut piece = vec![0.0; 3 * 37];
        a.forward_block(&acts, ColumnBlock::whole(&mut piece, 160..197));
        let want: Vec<f32> = want_a.chunks(301).flat_map(|row| row[160..197].to_vec()).collect();
        assert_same_bits(&piece, &want, a.type_name());
    }
}

#[test]
fn slices_of_rows_are_the_rows() {
    let random = &mut Random(5);
    let x = random.floats(512);
    for linear in one_of_each(random, 13) {
        let whole = product(&linear, Isa::current(), &Pool::serial(), &x, 1);
        let part = linear.slice_rows(5, 12).unwrap();
        assert_eq!((part.rows(), part.cols()), (7, 512));
        assert_same_bits(&product(&part, Isa::current(), &Pool::serial(), &x, 1), &whole[5..12], linear.type_name());
        assert!(linear.slice_rows(5, 14).is_err());
        assert!(linear.slice_rows(5, 5).is_err());
    }
}

/// The bounds of the integer kernels: the largest sums of both signs, and signs that alternate.
#[test]
fn extremes_of_the_integer_sums_are_exact() {
    let patterns: [fn(usize) -> i8; 5] =
        [|_| 1, |_| -1, |_| 0, |i| if i % 2 == 0 { 1 } else { -1 }, |i| if i / 32 % 2 == 0 { 1 } else { -1 }];
    for blocks in [1, 2, 40] {
        let cols = blocks * BLOCK;
        for packing in Packing::ALL {
            let mut bytes = Vec::new();
            for pattern in patterns {
                let mut trits = [0; BLOCK];
                trits.iter_mut().enumerate().for_each(|(i, t)| *t = pattern(i));
                let mut block = vec![0; packing.block_bytes()];
                packing.encode(&trits, f16::ONE, &mut block);
                bytes.extend(block.repeat(blocks));
            }
            let tensor =
                TernaryTensor::new(packing, patterns.len(), cols, Bytes::from(bytes), Scales::PerBlock).unwrap();
            for pattern in patterns {
                let x: Vec<f32> = (0..cols).map(|i| 127.0 * f32::from(pattern(i))).collect();
                for mode in [ActMode::A8Block, ActMode::A8Token] {
                    let mut expected = vec![0.0; patterns.len()];
                    oracle::gemv(&tensor, &x, mode, &mut expected).unwrap();
                    for isa in levels() {
                        let linear = Linear::ternary(tensor.clone(), mode).unwrap();
                        let got = product(&linear, isa, &Pool::serial(), &x, 1);
                        assert_same_bits(&got, &expected, &format!("{isa} {} {mode:?}", packing.name()));
                    }
                }
            }
        }
    }
}

/// Every value of a TQ1_0 byte, in every place of the block.
#[test]
fn every_tq1_byte_is_multiplied_as_it_decodes() {
    let random = &mut Random(6);
    let x = random.floats(BLOCK);
    let mut bytes = Vec::new();
    for byte in 0..=255u8 {
        bytes.extend([byte; 52]);
        bytes.extend(f16::from_f32(0.5).to_le_bytes());
    }
    let tensor = TernaryTensor::new(Packing::Tq1_0, 256, BLOCK, Bytes::from(bytes), Scales::PerBlock).unwrap();
    let mut expected = vec![0.0; 256];
    oracle::gemv(&tensor, &x, ActMode::A8Block, &mut expected).unwrap();
    for isa in levels() {
        let linear = Linear::ternary(tensor.clone(), ActMode::A8Block).unwrap();
        assert_same_bits(&product(&linear, isa, &Pool::serial(), &x, 1), &expected, isa.name());
    }
}

/// Damaged codes and scales give the same numbers on every level and change no other row.
#[test]
fn damaged_blocks_are_harmless() {
    let random = &mut Random(7);
    let x = random.floats(2 * BLOCK);
    for packing in Packing::ALL {
        let mut bytes: Vec<u8> = (0..2 * packing.block_bytes()).map(|_| random.bits() as u8 | 0xc3).collect();
        for block in bytes.chunks_exact_mut(packing.block_bytes()) {
            let at = block.len() - 2;
            block[at..].copy_from_slice(&f16::ONE.to_le_bytes());
        }
        let tensor = TernaryTensor::new(packing, 1, 2 * BLOCK, Bytes::from(bytes), Scales::PerBlock).unwrap();
        for mode in [ActMode::F32, ActMode::A8Block] {
            let linear = Linear::ternary(tensor.clone(), mode).unwrap();
            let expected = product(&linear, Isa::Scalar, &Pool::serial(), &x, 1);
            assert!(expected[0].is_finite());
            for isa in levels() {
                assert_same_bits(&product(&linear, isa, &Pool::serial(), &x, 1), &expected, packing.name());
            }
        }
    }
}

#[test]
fn infinities_nan_and_negative_zero_reach_the_result() {
    for isa in levels() {
        for (x, check) in [
            (f32::INFINITY, (|y: f32| y == f32::INFINITY) as fn(f32) -> bool),
            (f32::NAN, |y| y.is_nan()),
            (-0.0, |y| y == 0.0),
        ] {
            let mut xs = [1.0; 19];
            xs.fill(if x == 0.0 { x } else { 1.0 });
            xs[18] = x;
            let linear = Linear::from_f32(1, 19, vec![1.0; 19]).unwrap();
            assert!(check(product(&linear, isa, &Pool::serial(), &xs, 1)[0]), "{isa} {x}");
        }
        // A lane that underflows to -0.0 keeps its sign when the padding of the last group is added.
        let tiny = f32::MIN_POSITIVE;
        let linear = Linear::from_f32(1, 17, [vec![-tiny; 16], vec![-tiny]].concat()).unwrap();
        let got = product(&linear, isa, &Pool::serial(), &[tiny; 17], 1);
        assert_same_bits(&got, &[dot16(&[-tiny; 17], &[tiny; 17])], isa.name());
    }
}

#[test]
fn attention_primitives_equal_the_oracle() {
    let random = &mut Random(8);
    for len in (0..70).chain([576, 1000]) {
        let (x, w) = (random.floats(len), random.floats(len));
        let halves: Vec<f16> = w.iter().map(|&w| f16::from_f32(w)).collect();
        let widened: Vec<f32> = halves.iter().map(|h| h.to_f32()).collect();
        let start = random.floats(len);
        let sum =
            |v: &[f32]| -> Vec<f32> { start.iter().zip(v).map(|(&s, &v)| ternary_core::fma(0.3, v, s)).collect() };
        for isa in levels() {
            let what = format!("{isa} {len}");
            assert_same_bits(&[dense::dot_f32_on(isa, &x, &w).unwrap()], &[dot16(&w, &x)], &what);
            assert_same_bits(&[dense::dot_f16_on(isa, &x, &halves).unwrap()], &[dot16(&widened, &x)], &what);
            let mut acc = start.clone();
            dense::axpy_f32_on(isa, 0.3, &w, &mut acc).unwrap();
            assert_same_bits(&acc, &sum(&w), &what);
            let mut acc = start.clone();
            dense::axpy_f16_on(isa, 0.3, &halves, &mut acc).unwrap();
            assert_same_bits(&acc, &sum(&widened), &what);
        }
    }
}

#[test]
fn functions_have_the_same_bits_on_every_level() {
    let random = &mut Random(9);
    for len in (0..40).chain([64, 100, 1536]) {
        let mut x: Vec<f32> = random.floats(len).iter().map(|x| x * 30.0).collect();
        if len > 3 {
            x[2] = f32::NEG_INFINITY;
        }
        let up = random.floats(len);
        for isa in levels() {
            let what = format!("{isa} {len}");
            let finite: Vec<f32> = x.iter().map(|x| x.max(-200.0)).collect();

            let mut got = finite.clone();
            math::sigmoid_in_place_on(isa, &mut got).unwrap();
            assert_same_bits(&got, &finite.iter().map(|&x| math::sigmoid(x)).collect::<Vec<_>>(), &what);

            let mut got = finite.clone();
            math::swiglu_on(isa, &mut got, &up).unwrap();
            let expected: Vec<f32> = finite.iter().zip(&up).map(|(&x, u)| math::silu(x) * u).collect();
            assert_same_bits(&got, &expected, &what);

            let (mut got, mut expected) = (x.clone(), x.clone());
            math::softmax_in_place_on(isa, &mut got).unwrap();
            math::softmax_in_place_on(Isa::Scalar, &mut expected).unwrap();
            assert_same_bits(&got, &expected, &what);
            if len > 3 {
                assert_eq!(got[2], 0.0);
                assert!((got.iter().map(|&p| f64::from(p)).sum::<f64>() - 1.0).abs() < 1e-5);
            }

            let (mut got, mut expected) = (vec![0.0; len], vec![0.0; len]);
            math::rms_norm_on(isa, &finite, &up, 1e-5, &mut got).unwrap();
            math::rms_norm_on(Isa::Scalar, &finite, &up, 1e-5, &mut expected).unwrap();
            assert_same_bits(&got, &expected, &what);
        }
    }
}

/// The two activation modes differ, so that a test of one cannot pass with the other.
#[test]
fn activation_modes_are_not_confused() {
    let random = &mut Random(10);
    let weights = random.floats(512);
    let tensor = TernaryTensor::quantize(Packing::Tq2_0, Rounding::LeastSquares, 1, 512, &weights, None).unwrap();
    let mut x = random.floats(512);
    x[300] = 50.0;
    let of = |mode| {
        let linear = Linear::ternary(tensor.clone(), mode).unwrap();
        product(&linear, Isa::current(), &Pool::serial(), &x, 1)[0]
    };
    let (float, block, token) = (of(ActMode::F32), of(ActMode::A8Block), of(ActMode::A8Token));
    assert!(float != block && block != token);
    let mut q = [0; 512];
    assert!(quantize_a8(&x, &mut q) > 0.3, "one large value coarsens the whole token");
}

#[test]
fn malformed_matrices_are_refused() {
    use tl_kernels::Error;
    let dense = |ty, rows, cols, len| Linear::dense(ty, rows, cols, Bytes::from(vec![0; len]));
    assert!(matches!(dense(DenseType::F32, 0, 4, 0), Err(Error::EmptyMatrix { .. })));
    assert!(matches!(dense(DenseType::F32, 4, 0, 0), Err(Error::EmptyMatrix { .. })));
    assert!(matches!(dense(DenseType::Q8_0, 1, 33, 34), Err(Error::BlockMultiple { block: 32, .. })));
    assert!(matches!(dense(DenseType::Q6K, 1, 192, 210), Err(Error::BlockMultiple { block: 256, .. })));
    assert!(matches!(dense(DenseType::F16, 2, 3, 11), Err(Error::ByteLength { expected: 12, got: 11, .. })));
    assert!(matches!(dense(DenseType::F32, usize::MAX / 4, 4, 0), Err(Error::ShapeOverflow { .. })));
    assert!(matches!(dense(DenseType::F32, 1, usize::MAX, 0), Err(Error::ShapeOverflow { .. })));
    assert!(Linear::from_f32(2, 2, vec![0.0; 3]).is_err());
}

#[test]
fn the_self_test_accepts_every_kind_of_layer() {
    let random = &mut Random(11);
    for linear in one_of_each(random, 9) {
        for isa in levels() {
            selftest::check(&linear.clone().with_isa(isa).unwrap()).unwrap();
        }
    }
}

#[test]
#[should_panic(expected = "quantised in the layer's mode")]
fn forgotten_quantisation_is_a_loud_mistake() {
    let tensor = TernaryTensor::quantize(Packing::Tq2_0, Rounding::AbsMean, 1, 256, &[1.0; 256], None).unwrap();
    let linear = Linear::ternary(tensor, ActMode::A8Block).unwrap();
    let mut acts = ActivationBuffer::new();
    acts.set(&[1.0; 256], 1, 256);
    linear.forward(&Pool::serial(), &acts, &mut [0.0]);
}
