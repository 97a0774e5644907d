//! The definition of products of Q8_0, Q6_K and Q2_0 layers with INT8 activations, written for reading.

use half::f16;
use ternary_core::{ActMode, BLOCK, quantize_a8};

use crate::matmul::Linear;
use crate::simd::fma;

/// The product of a Q8_0, Q6_K or Q2_0 layer with `x` `[n, cols]`, rounded to INT8: `y` is `[n, rows]`. Written for reading, from
/// the definitions of the formats (`matmul/formats/`).
pub(crate) fn oracle(linear: &Linear, x: &[f32], n: usize, y: &mut [f32]) {
    let (rows, cols, mode) = (linear.rows(), linear.cols(), linear.act_mode());
    let row_bytes = linear.bytes().len() / rows;
    let per_scale = if mode == ActMode::A8Token { cols } else { BLOCK };
    for t in 0..n {
        let x = &x[t * cols..(t + 1) * cols];
        let mut codes = vec![0; cols];
        let a_scales: Vec<f32> =
            x.chunks(per_scale).zip(codes.chunks_mut(per_scale)).map(|(x, codes)| quantize_a8(x, codes)).collect();
        for (r, row) in linear.bytes().chunks_exact(row_bytes).enumerate() {
            let mut acc = 0.0;
            let mut column = 0;
            let mut add_block = |d: [u8; 2], weights: &[i32]| {
                let sum: i32 = weights.iter().zip(&codes[column..]).map(|(w, code)| w * i32::from(*code)).sum();
                let d = f16::from_le_bytes(d).to_f32();
                acc = fma(d * a_scales[column / per_scale], sum as f32, acc);
                column += weights.len();
            };
            match linear {
                Linear::Q8_0(_) => row.as_chunks::<34>().0.iter().for_each(|block| {
                    let weights: [i32; 32] = std::array::from_fn(|i| i32::from(block[2 + i].cast_signed()));
                    add_block([block[0], block[1]], &weights);
                }),
                Linear::Q6K(_) => row.as_chunks::<210>().0.iter().for_each(|block| {
                    let weights: [i32; BLOCK] = std::array::from_fn(|i| {
                        let (h, k, m) = (i / 128, i % 128 / 32, i % 32);
                        let low = block[64 * h + 32 * (k % 2) + m] >> (4 * (k / 2)) & 15;
                        let high = block[128 + 32 * h + m] >> (2 * k) & 3;
                        (i32::from(low | high << 4) - 32) * i32::from(block[192 + i / 16].cast_signed())
                    });
                    add_block([block[208], block[209]], &weights);
                }),
                Linear::Q2_0(_) => row.as_chunks::<18>().0.iter().for_each(|block| {
                    let weights: [i32; 64] =
                        std::array::from_fn(|i| i32::from(block[2 + i / 4] >> (2 * (i % 4)) & 3) - 1);
                    add_block([block[0], block[1]], &weights);
                }),
                _ => unreachable!("only these meet INT8 activations"),
            }
            y[t * rows + r] = acc;
        }
    }
}
