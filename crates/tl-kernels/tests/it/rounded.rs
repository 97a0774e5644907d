//! Layers that round activations in floating point: the order of their additions is that of the columns, on every level.

use ternary_core::{Bytes, fma};
use tl_kernels::{ActivationBuffer, Isa, Linear, Pool, selftest};

use crate::common::pool_of;

fn value(i: usize) -> f32 {
    ((i * 7919) % 1009) as f32 * 0.003 - 1.5
}

fn layer(rows: usize, cols: usize, scale: Option<f32>) -> (Vec<f32>, Linear) {
    let weight = |i| if scale.is_some() { ((i * i + i / 3) % 3) as f32 - 1.0 } else { value(i) * 0.1 };
    let weights: Vec<f32> = (0..rows * cols).map(weight).collect();
    let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
    (weights, Linear::rounded(rows, cols, Bytes::from(bytes), scale).unwrap())
}

/// One token by its definition.
fn wanted(weights: &[f32], scale: Option<f32>, x: &[f32]) -> Vec<f32> {
    let inverse = 127.0 / x.iter().fold(1e-5f32, |max, x| max.max(x.abs()));
    let row = |row: &[f32]| {
        let sum = x.iter().zip(row).fold(0.0, |sum, (x, weight)| {
            let code = (x * inverse).round_ties_even();
            fma(if scale.is_some() { code } else { code / inverse }, *weight, sum)
        });
        scale.map_or(sum, |scale| sum / inverse * scale)
    };
    weights.chunks_exact(x.len()).map(row).collect()
}

#[test]
fn they_equal_their_definition_bit_for_bit() {
    for (rows, cols) in [(1, 1), (7, 33), (37, 320)] {
        for scale in [None, Some(0.37)] {
            let (weights, linear) = layer(rows, cols, scale);
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
                let linear = linear.clone().with_isa(isa).unwrap();
                selftest::check(&linear).unwrap();
                for n in [1, 5, 16, 35] {
                    let x: Vec<f32> = (0..n * cols).map(|i| value(i + 5) * (1 + i / cols) as f32).collect();
                    for pool in [Pool::serial(), pool_of(3)] {
                        let (mut acts, mut y) = (ActivationBuffer::new(), vec![f32::NAN; n * rows]);
                        acts.set(&x, n, cols);
                        linear.forward(&pool, &acts, &mut y);
                        for (y, x) in y.chunks_exact(rows).zip(x.chunks_exact(cols)) {
                            assert_eq!(y, wanted(&weights, scale, x), "{rows} x {cols}, {isa}, {n} tokens");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn zeros_stay_zero_and_what_is_no_number_reaches_the_result() {
    let (_, linear) = layer(3, 20, Some(0.5));
    let of = |x: &[f32]| {
        let (mut acts, mut y) = (ActivationBuffer::new(), vec![1.0; 3]);
        acts.set(x, 1, 20);
        linear.forward(&Pool::serial(), &acts, &mut y);
        y
    };
    assert_eq!(of(&[0.0; 20]), [0.0; 3]);
    for strange in [f32::NAN, f32::INFINITY] {
        let mut x = [1.0; 20];
        x[7] = strange;
        assert!(of(&x).iter().all(|y| !y.is_finite()), "{strange}");
    }
}

#[test]
fn values_and_slices_are_those_of_the_weights() {
    let (weights, linear) = layer(9, 20, Some(0.5));
    let part = linear.slice_rows(2, 5).unwrap();
    let mut out = vec![0.0; 20];
    part.dequantize_row(1, &mut out).unwrap();
    assert!(out.iter().zip(&weights[60..]).all(|(out, weight)| *out == 0.5 * weight));
    assert!(linear.slice_rows(5, 5).is_err() && linear.slice_rows(0, 10).is_err());
}
