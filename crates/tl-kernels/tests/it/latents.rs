//! Attention over INT8 rows on every level of this machine: scores against their definition, weights and weighted sums
//! against the scalar level, bit for bit.

use crate::common::{assert_same_bits, levels, pool_of};
use ternary_core::{fma, quantize_a8};
use tl_kernels::Isa;
use tl_kernels::int8::{Group, ROWS, Vectors, WeightCodes, add_dots_on, weighted_sums_on};

/// Values in -127..=127, both extremes in long runs.
fn values(n: usize, seed: usize) -> Vec<i8> {
    let value = |i: usize| match (i / 96 + seed) % 4 {
        0 => 127,
        1 => -127,
        _ => ((i * 37 + i / 7 + 11 * seed) % 255) as i16 as i8,
    };
    (0..n).map(value).map(|v: i8| v.max(-127)).collect()
}

/// Rows `[64, width]` and their span.
fn span(width: usize, seed: usize) -> (Vec<i8>, Vec<Group<[i8; 4]>>) {
    let rows = values(ROWS * width, seed);
    let mut span = vec![Group([[0; 4]; ROWS]); width.div_ceil(4)];
    for (j, row) in rows.chunks_exact(width).enumerate() {
        for (i, &code) in row.iter().enumerate() {
            span[i / 4].0[j][i % 4] = code;
        }
    }
    (rows, span)
}

#[test]
fn dots_are_exact() {
    let scales = Group(std::array::from_fn(|j| 0.25 + j as f32 / 64.0));
    for (n, width) in [(1, 1), (20, 512), (10, 512), (7, 65), (3, 40), (4, 30), (8, 64), (0, 4), (64, 16)] {
        let (rows, span) = span(width, 2);
        let x: Vec<f32> = values(n * width, 1).iter().map(|&q| 0.5 * f32::from(q)).collect();
        let mut vectors = Vectors::default();
        vectors.set(&pool_of(2), n, width, |v| &x[v * width..][..width]);
        let start: Vec<[f32; ROWS]> = vec![std::array::from_fn(|j| j as f32 * 1e3); n];
        let mut expected = start.clone();
        for (x, out) in x.chunks_exact(width).zip(&mut expected) {
            let mut codes = vec![0; width];
            let x_scale = quantize_a8(x, &mut codes);
            for (j, row) in rows.chunks_exact(width).enumerate() {
                let sum: i32 = codes.iter().zip(row).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum();
                out[j] = fma(x_scale * scales.0[j], sum as f32, out[j]);
            }
        }
        for isa in levels() {
            for first in [0, n / 2] {
                let mut out = start[first..].to_vec();
                add_dots_on(isa, vectors.range(first..n), &span, &scales, &mut out).unwrap();
                let (got, expected) = (out.as_flattened(), expected[first..].as_flattened());
                assert_same_bits(got, expected, &format!("{isa}, {n} vectors of {width}"));
            }
        }
    }
}

/// Even weights, which keep 7 bits, and weights with one far above the others, which keep 14.
#[test]
fn weights_and_weighted_sums_have_the_bits_of_the_scalar_level() {
    for (n, n_rows, width) in [(20, 64, 512), (7, 63, 512), (5, 1, 64), (3, 9, 40), (13, 30, 100), (64, 64, 4)] {
        let (_, span) = span(width, 3);
        let scales: Vec<f32> = (0..n_rows).map(|j| 0.5 + (j % 5) as f32 / 8.0).collect();
        let start: Vec<f32> = (0..n * width).map(|i| i as f32 * 0.1).collect();
        let on = |isa: Isa| {
            let weight = |v: usize, j: usize| match v % 3 {
                0 => 0.5 + ((j * 37) % 17) as f32 / 20.0,
                1 if j == n_rows / 2 => 1.0,
                1 => 0.002 * ((j * 29) % 13) as f32,
                _ => 1.0,
            };
            let codes = |v: usize| (0..n_rows).map(|j| weight(v, j)).collect::<Vec<f32>>();
            let weights: Vec<_> = (0..n).map(|v| WeightCodes::new_on(isa, &codes(v), &scales).unwrap()).collect();
            let mut acc = start.clone();
            weighted_sums_on(isa, &weights, &span, n_rows, &mut acc).unwrap();
            (weights, acc)
        };
        let (weights, sums) = on(Isa::Scalar);
        for isa in levels() {
            let got = on(isa);
            assert!(got.0 == weights, "{isa}: the weights of {n} x {n_rows}");
            assert_same_bits(&got.1, &sums, &format!("{isa}, {n} x {n_rows} x {width}"));
        }
    }
}
