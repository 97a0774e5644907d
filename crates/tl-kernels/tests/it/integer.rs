//! Products of Q8_0, Q6_K and Q2_0 layers with INT8 activations, on every level of this machine, against their definition, bit
//! for bit: widths, rows, batches below and above the size that makes panels, extremes.

use crate::common::{assert_same_bits, levels, pool_of, product};
use half::f16;
use ternary_core::{ActMode, BLOCK, Bytes, Rounding, fma, oracle, q2_0, quantize_a8, quantize_block};
use tl_kernels::{ActivationBuffer, DenseType, Linear, selftest};

/// Weights of every value; some blocks hold extreme values alone, as weights and as scales of groups. The scales of blocks
/// are between -1 and 1.
fn layer(ty: DenseType, rows: usize, cols: usize) -> (Linear, Vec<u8>) {
    let mut bytes: Vec<u8> =
        (0..rows * ty.row_bytes(cols).unwrap()).map(|i| ((i as u32).wrapping_mul(0x9e37_79b9) >> 13) as u8).collect();
    for (i, block) in bytes.chunks_exact_mut(ty.block_bytes()).enumerate() {
        match i % 5 {
            0 => block.fill(0x80),
            1 => block.fill(0x7f),
            2 => block.fill(0xff),
            _ => {}
        }
        let at = if ty == DenseType::Q6K { block.len() - 2 } else { 0 };
        block[at..at + 2].copy_from_slice(&f16::from_f32((i as f32 * 0.37).sin()).to_le_bytes());
    }
    (Linear::dense(ty, rows, cols, Bytes::from(bytes.clone())).unwrap(), bytes)
}

/// Activations with runs of extremes, of zeros, and of mixed values.
fn activations(n: usize, cols: usize) -> Vec<f32> {
    let value = |i: usize| match (i / 96) % 4 {
        0 => 5.0,
        1 => -5.0,
        2 if i % 5 < 3 => 0.0,
        _ => (i as f32 * 0.71).sin() * 5.0,
    };
    (0..n * cols).map(value).collect()
}

/// The scale and the integers of a block, by the formats' definitions.
fn integers(ty: DenseType, block: &[u8]) -> (f32, Vec<i32>) {
    let half = |b: &[u8]| f16::from_le_bytes([b[0], b[1]]).to_f32();
    if ty == DenseType::Q8_0 {
        return (half(block), block[2..].iter().map(|w| i32::from(w.cast_signed())).collect());
    }
    if ty == DenseType::Q2_0 {
        return (half(block), (0..64).map(|i| i32::from(block[2 + i / 4] >> (2 * (i % 4)) & 3) - 1).collect());
    }
    let integer = |i: usize| {
        let (h, k, m) = (i / 128, i % 128 / 32, i % 32);
        let low = block[64 * h + 32 * (k % 2) + m] >> (4 * (k / 2)) & 15;
        let high = block[128 + 32 * h + m] >> (2 * k) & 3;
        (i32::from(low | high << 4) - 32) * i32::from(block[192 + i / 16].cast_signed())
    };
    (half(&block[208..]), (0..BLOCK).map(integer).collect())
}

/// `acc = fma(d_b * a_b, int_b as f32, acc)` over ascending blocks, `[n, rows]`.
fn definition(ty: DenseType, bytes: &[u8], mode: ActMode, x: &[f32], cols: usize) -> Vec<f32> {
    let per_scale = if mode == ActMode::A8Token { cols } else { BLOCK };
    let blocks: Vec<_> = bytes.chunks_exact(ty.block_bytes()).map(|block| integers(ty, block)).collect();
    let rows = blocks.chunks_exact(cols / ty.block_len());
    let token = |x: &[f32]| {
        let mut codes = vec![0; cols];
        let scales: Vec<f32> =
            x.chunks(per_scale).zip(codes.chunks_mut(per_scale)).map(|(x, codes)| quantize_a8(x, codes)).collect();
        let row = |blocks: &[(f32, Vec<i32>)]| {
            blocks.iter().zip(codes.chunks(ty.block_len())).enumerate().fold(0.0, |acc, (b, ((d, weights), codes))| {
                let sum: i32 = weights.iter().zip(codes).map(|(w, code)| w * i32::from(*code)).sum();
                fma(d * scales[b * ty.block_len() / per_scale], sum as f32, acc)
            })
        };
        rows.clone().map(row).collect::<Vec<f32>>()
    };
    x.chunks_exact(cols).flat_map(token).collect()
}

#[test]
fn every_level_has_the_bits_of_the_definition() {
    let shapes = [
        (DenseType::Q8_0, [32, 96, 192, 256, 512, 800]),
        (DenseType::Q6K, [256, 256, 512, 1024, 1280, 2048]),
        (DenseType::Q2_0, [64, 128, 384, 576, 640, 1536]),
    ];
    for (ty, widths) in shapes {
        for (cols, rows) in widths.into_iter().zip([1, 3, 4, 65, 70, 130]) {
            let (layer, bytes) = layer(ty, rows, cols);
            for mode in [ActMode::A8Block, ActMode::A8Token] {
                let x = activations(17, cols);
                let expected = definition(ty, &bytes, mode, &x, cols);
                for isa in levels() {
                    let layer = layer.clone().with_act_mode(mode).with_isa(isa).unwrap();
                    selftest::check(&layer).unwrap();
                    for n in [1, 2, 4, 5, 6, 8, 13, 16, 17] {
                        let got = product(&layer, &pool_of(2), &x[..n * cols], n);
                        let what = format!("{ty}, {rows} x {cols}, {n} tokens, {mode:?}, {isa}");
                        assert_same_bits(&got, &expected[..n * rows], &what);
                    }
                }
            }
        }
    }
}

/// Ternary rows in blocks of 64 against the oracle of `ternary_core`, in every mode, narrow and wide.
#[test]
fn q2_0_rows_have_the_bits_of_the_oracle() {
    for (cols, rows) in [(64, 5), (384, 70), (576, 9), (640, 33), (1536, 130)] {
        let weights: Vec<f32> = (0..rows * cols).map(|i| (i as f32 * 0.37).sin() * (1.0 + (i % 7) as f32)).collect();
        let mut bytes = vec![0; rows * cols / 64 * q2_0::block_bytes(64)];
        for (weights, out) in weights.as_chunks().0.iter().zip(bytes.chunks_exact_mut(18)) {
            let mut trits = [0; 64];
            let scale = quantize_block(Rounding::LeastSquares, weights, None, &mut trits);
            q2_0::encode(&trits, scale, out);
        }
        let blocks: Vec<_> = bytes.chunks_exact(18).map(|block| q2_0::decode::<64>(block).unwrap()).collect();
        let layer = Linear::dense(DenseType::Q2_0, rows, cols, Bytes::from(bytes)).unwrap();
        for mode in [ActMode::F32, ActMode::A8Block, ActMode::A8Token] {
            let x = activations(9, cols);
            let row =
                |x: &[f32]| blocks.chunks_exact(cols / 64).map(|row| oracle::dot(row, x, mode)).collect::<Vec<_>>();
            let expected: Vec<f32> = x.chunks_exact(cols).flat_map(row).collect();
            for isa in levels() {
                let layer = layer.clone().with_act_mode(mode).with_isa(isa).unwrap();
                for n in [1, 9] {
                    let got = product(&layer, &pool_of(2), &x[..n * cols], n);
                    assert_same_bits(
                        &got,
                        &expected[..n * rows],
                        &format!("{rows} x {cols}, {n} tokens, {mode:?}, {isa}"),
                    );
                }
            }
        }
    }
}

/// Products with one input share what a thread has made of its tokens, in the pieces of each product too; another input, a changed
/// one and another format have their own.
#[test]
fn products_in_turn_have_their_own_tokens() {
    const N: usize = 16;
    let layers = [DenseType::Q8_0, DenseType::Q6K, DenseType::Q2_0].map(|ty| (ty, layer(ty, 130, 512)));
    let inputs = [1.0, -0.5].map(|factor| activations(N, 512).iter().map(|x| x * factor).collect::<Vec<f32>>());
    let mut acts = [ActivationBuffer::default(), ActivationBuffer::default()];
    let pool = pool_of(2);
    for round in 0..3 {
        // In each round the two buffers change their inputs.
        acts.iter_mut()
            .enumerate()
            .for_each(|(i, acts)| acts.set_in(ActMode::A8Block, &inputs[(i + round) % 2], N, 512));
        for (ty, (layer, bytes)) in &layers {
            for (i, acts) in acts.iter().enumerate() {
                let mut y = vec![0.0; N * 130];
                layer.clone().with_act_mode(ActMode::A8Block).forward(&pool, acts, &mut y);
                let expected = definition(*ty, bytes, ActMode::A8Block, &inputs[(i + round) % 2], 512);
                assert_same_bits(&y, &expected, &format!("{ty}, round {round}, buffer {i}"));
            }
        }
    }
}

#[test]
fn a_slice_is_these_rows_alone() {
    for (ty, cols) in [(DenseType::Q8_0, 96), (DenseType::Q6K, 512), (DenseType::Q2_0, 576)] {
        let (layer, _) = layer(ty, 40, cols);
        let layer = layer.with_act_mode(ActMode::A8Block);
        for n in [1, 9] {
            let x = activations(n, cols);
            let whole = product(&layer, &pool_of(1), &x, n);
            let slice = product(&layer.slice_rows(3, 36).unwrap(), &pool_of(1), &x, n);
            let rows: Vec<f32> = whole.chunks_exact(40).flat_map(|y| &y[3..36]).copied().collect();
            assert_same_bits(&slice, &rows, &format!("{ty}, {n} tokens"));
        }
    }
}

/// The definition multiplies the same weights that `dequantize_row` gives.
#[test]
fn the_integers_times_their_scales_are_the_weights() {
    for ty in [DenseType::Q8_0, DenseType::Q6K, DenseType::Q2_0] {
        let (layer, bytes) = layer(ty, 7, 512);
        let mut row = vec![0.0; 512];
        for (r, bytes) in bytes.chunks_exact(bytes.len() / 7).enumerate() {
            layer.dequantize_row(r, &mut row).unwrap();
            let blocks = bytes.chunks_exact(ty.block_bytes()).map(|block| integers(ty, block));
            let weights: Vec<f32> = blocks.flat_map(|(d, all)| all.into_iter().map(move |w| d * w as f32)).collect();
            assert_eq!(row, weights, "{ty}, row {r}");
        }
    }
}

#[test]
fn only_integer_weights_take_integer_activations() {
    let f16 = Linear::dense(DenseType::F16, 1, 2, Bytes::from(vec![0; 4])).unwrap();
    assert_eq!(f16.with_act_mode(ActMode::A8Block).act_mode(), ActMode::F32);
    let (q8, _) = layer(DenseType::Q8_0, 1, 32);
    assert_eq!(q8.act_mode(), ActMode::F32);
    assert_eq!(q8.with_act_mode(ActMode::A8Token).act_mode(), ActMode::A8Token);
}
