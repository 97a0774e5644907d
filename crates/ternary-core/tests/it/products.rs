//! Ternary tensors and the oracle's products.

use proptest::prelude::*;
use ternary_core::{
    ActMode, BLOCK, Bytes, Error, I2sLayout, Packing, Rounding, Scales, TernaryTensor, dot16, f16, oracle, quantize_a8,
};

const MODES: [ActMode; 3] = [ActMode::F32, ActMode::A8Block, ActMode::A8Token];

/// A tensor of given trits, `[rows, cols]`, and one scale per block.
fn tensor(packing: Packing, cols: usize, trits: &[i8], scales: &[f32]) -> TernaryTensor {
    let mut bytes = vec![0; trits.len() / BLOCK * packing.block_bytes()];
    let blocks = trits.as_chunks::<BLOCK>().0;
    let packed = bytes.chunks_exact_mut(packing.block_bytes());
    for ((trits, &scale), out) in blocks.iter().zip(scales).zip(packed) {
        packing.encode(trits, f16::from_f32(scale), out);
    }
    let rows = trits.len() / cols;
    TernaryTensor::new(packing, rows, cols, Bytes::from(bytes), Scales::PerBlock).expect("a sound shape")
}

fn gemv(w: &TernaryTensor, x: &[f32], mode: ActMode) -> Vec<f32> {
    let mut y = vec![f32::NAN; w.rows()];
    oracle::gemv(w, x, mode, &mut y).expect("sound weights");
    y
}

/// Trits, scales of `rows * blocks` blocks and activations of `n` tokens.
fn problem() -> impl Strategy<Value = (usize, usize, Vec<i8>, Vec<f32>, Vec<f32>)> {
    (1_usize..4, 1_usize..4, 1_usize..4).prop_flat_map(|(rows, blocks, n)| {
        let cols = blocks * BLOCK;
        (
            Just(cols),
            Just(n),
            prop::collection::vec(-1_i8..=1, rows * cols),
            prop::collection::vec(-0.5_f32..2.0, rows * blocks),
            prop::collection::vec(-8.0_f32..8.0, n * cols),
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The definition of the product written out term by term.
    #[test]
    fn products_follow_their_definition((cols, n, trits, scales, x) in problem()) {
        for packing in Packing::ALL {
            let w = tensor(packing, cols, &trits, &scales);
            for mode in MODES {
                let mut y = vec![f32::NAN; n * w.rows()];
                oracle::gemm(&w, &x, n, mode, &mut y).unwrap();
                for (i, x) in x.chunks_exact(cols).enumerate() {
                    for r in 0..w.rows() {
                        let expected = row_product(&trits[r * cols..][..cols], &scales[r * cols / BLOCK..], x, mode);
                        prop_assert_eq!(y[i * w.rows() + r].to_bits(), expected.to_bits());
                    }
                    prop_assert_eq!(gemv(&w, x, mode), &y[i * w.rows()..][..w.rows()]);
                }
            }
        }
    }

    #[test]
    fn int8_products_are_near_the_real_ones((cols, n, trits, scales, x) in problem()) {
        let w = tensor(Packing::Tq1_0, cols, &trits, &scales);
        for (x, mode) in x.chunks_exact(cols).take(n).zip(MODES.into_iter().cycle()) {
            for (r, y) in gemv(&w, x, mode).into_iter().enumerate() {
                let mut row = vec![0.0; cols];
                w.dequantize_row(r, &mut row).unwrap();
                let real: f64 = row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
                // Rounding moves each activation by at most half a step.
                let step = 8.0 / 127.0;
                let bound: f64 = row.iter().map(|w| f64::from(w.abs()) * step / 2.0).sum();
                prop_assert!((f64::from(y) - real).abs() <= bound + 1e-3, "{:?} {} {}", mode, y, real);
            }
        }
    }
}

fn row_product(trits: &[i8], scales: &[f32], x: &[f32], mode: ActMode) -> f32 {
    let d = |i: usize| f16::from_f32(scales[i / BLOCK]).to_f32();
    if mode == ActMode::F32 {
        let row: Vec<f32> = trits.iter().enumerate().map(|(i, &t)| f32::from(t) * d(i)).collect();
        return dot16(&row, x);
    }
    let mut token_codes = vec![0; x.len()];
    let token_scale = quantize_a8(x, &mut token_codes);
    let mut acc = 0.0_f32;
    for b in 0..x.len() / BLOCK {
        let span = b * BLOCK..(b + 1) * BLOCK;
        let (mut codes, mut a) = (token_codes[span.clone()].to_vec(), token_scale);
        if mode == ActMode::A8Block {
            a = quantize_a8(&x[span.clone()], &mut codes);
        }
        let int: i32 = trits[span].iter().zip(&codes).map(|(&t, &q)| i32::from(t) * i32::from(q)).sum();
        acc = (d(b * BLOCK) * a).mul_add(int as f32, acc);
    }
    acc
}

#[test]
fn extremes_are_exact() {
    let alternating: Vec<i8> = (0..512).map(|i| if i % 2 == 0 { 1 } else { -1 }).collect();
    let alternating_x: Vec<f32> = alternating.iter().map(|&t| 127.0 * f32::from(t)).collect();
    let full = [127.0; 512];
    let cases: [(&[i8], &[f32], f32); 5] = [
        (&[1; 512], &full, 2.0 * 32512.0),
        (&[-1; 512], &full, -2.0 * 32512.0),
        (&alternating, &full, 0.0),
        (&alternating, &alternating_x, 2.0 * 32512.0),
        (&[0; 512], &full, 0.0),
    ];
    for (trits, x, expected) in cases {
        for packing in Packing::ALL {
            let w = tensor(packing, 512, trits, &[1.0, 1.0]);
            for mode in MODES {
                assert_eq!(gemv(&w, x, mode), [expected], "{packing:?} {mode:?}");
            }
        }
    }
}

#[test]
fn long_rows_do_not_overflow() {
    let w = tensor(Packing::Tq2_0, 10_240, &[1; 10_240], &[1.0; 40]);
    for mode in [ActMode::A8Block, ActMode::A8Token] {
        assert_eq!(gemv(&w, &[127.0; 10_240], mode), [40.0 * 32512.0]);
    }
}

#[test]
fn a_quiet_block_keeps_its_precision_only_with_its_own_scale() {
    // Next to activations of 127, one of 0.25 rounds to 0, unless its block has its own scale.
    let mut x = vec![127.0; 512];
    x[256..].fill(0.25);
    let mut trits = vec![0; 512];
    trits[256..].fill(1);
    let w = tensor(Packing::Tq2_0, 512, &trits, &[1.0, 1.0]);
    assert_eq!(gemv(&w, &x, ActMode::F32), [64.0]);
    assert!((gemv(&w, &x, ActMode::A8Block)[0] - 64.0).abs() < 1e-4);
    assert_eq!(gemv(&w, &x, ActMode::A8Token), [0.0]);
}

#[test]
fn activations_that_are_not_finite_reach_the_result() {
    let w = tensor(Packing::Tq2_0, 256, &[1; 256], &[1.0]);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = vec![1.0; 256];
        x[17] = bad;
        for mode in MODES {
            assert!(!gemv(&w, &x, mode)[0].is_finite(), "{mode:?} of {bad}");
        }
    }
}

#[test]
fn no_tokens_and_no_rows_are_fine() {
    let w = tensor(Packing::Tq2_0, 256, &[1; 256], &[1.0]);
    oracle::gemm(&w, &[], 0, ActMode::A8Block, &mut []).unwrap();
    let none = TernaryTensor::new(Packing::Tq1_0, 0, 256, Bytes::default(), Scales::PerBlock);
    let none = none.unwrap();
    none.validate().unwrap();
    assert_eq!(gemv(&none, &[1.0; 256], ActMode::F32), []);
}

#[test]
fn defects_name_their_block_in_the_tensor() {
    for (packing, byte) in [(Packing::Tq2_0, 66 * 3 + 7), (Packing::BitnetT158, 66 * 3 + 7)] {
        let w = tensor(packing, 512, &[0; 1024], &[1.0; 4]);
        w.validate().unwrap();
        let mut bytes = w.bytes().to_vec();
        bytes[byte] |= 3;
        let bad = TernaryTensor::new(packing, 2, 512, Bytes::from(bytes), Scales::PerBlock).unwrap();
        let weight = if packing == Packing::Tq2_0 { 7 } else { 28 };
        let defect = Err(Error::InvalidCode { block: 3, weight });
        assert_eq!(bad.validate(), defect);
        assert_eq!(bad.dequantize_row(1, &mut [0.0; 512]), defect);
        assert_eq!(bad.dequantize_row(0, &mut [9.0; 512]), Ok(()));
        assert_eq!(oracle::gemv(&bad, &[1.0; 512], ActMode::F32, &mut [0.0; 2]), defect);
    }
    let w = tensor(Packing::Tq1_0, 512, &[0; 1024], &[1.0, 1.0, f32::INFINITY, 1.0]);
    assert_eq!(w.validate(), Err(Error::BadScale { block: 2, scale: f32::INFINITY }));
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let new = |rows, cols, n_bytes| {
        let bytes = Bytes::from(vec![0; n_bytes]);
        TernaryTensor::new(Packing::Tq2_0, rows, cols, bytes, Scales::PerBlock)
    };
    assert!(new(2, 256, 132).is_ok());
    let span = |expected_bytes, got_bytes| Err(Error::Span { expected_bytes, got_bytes });
    assert_eq!(new(2, 256, 131), span(132, 131));
    assert_eq!(new(1, 256, 132), span(66, 132));
    assert_eq!(new(1, 192, 66), Err(Error::NotBlocks { weights: 192, block: 256 }));
    assert_eq!(new(1, 0, 0), Err(Error::NotBlocks { weights: 0, block: 256 }));
    let rows = usize::MAX / 4;
    assert_eq!(new(rows, 256, 66), Err(Error::TooLarge { rows, cols: 256 }));
    let bytes = Bytes::from(vec![0; 66]);
    let bad = TernaryTensor::new(Packing::Tq2_0, 1, 256, bytes, Scales::PerTensor(f32::NAN));
    assert!(matches!(bad, Err(Error::BadScale { .. })));
}

#[test]
fn quantised_tensors_name_the_bad_block_and_use_the_importance_of_columns() {
    let mut weights = vec![0.1; 1024];
    weights[700] = f32::NAN;
    let quantize = |weights: &[f32], importance: Option<&[f32]>| {
        TernaryTensor::quantize(Packing::Tq2_0, Rounding::LeastSquares, 2, 512, weights, importance)
    };
    assert_eq!(quantize(&weights, None), Err(Error::NotFinite { block: 2 }));

    // Column 0 is large and has importance 0, so the scale is that of the other columns.
    weights.fill(0.1);
    weights[512] = 10.0;
    let mut importance = vec![1.0; 512];
    importance[0] = 0.0;
    let scale = |w: TernaryTensor| w.block(1, 0).unwrap().scale;
    assert_eq!(scale(quantize(&weights, Some(&importance)).unwrap()), f16::from_f32(0.1).to_f32());
    assert_eq!(scale(quantize(&weights, None).unwrap()), 10.0);
}

#[test]
fn i2s_tensors_keep_their_values_and_their_one_scale() {
    let trits: Vec<i8> = (0..1024).map(|i| (i * 7 % 3) as i8 - 1).collect();
    for layout in I2sLayout::ALL {
        let packed = layout.encode(&trits, 0.1).unwrap();
        let w = TernaryTensor::from_i2s(layout, 2, 512, &packed).unwrap();
        assert_eq!(w.scales(), Scales::PerTensor(0.1)); // no f16 number
        w.validate().unwrap();
        let mut row = vec![0.0; 512];
        w.dequantize_row(1, &mut row).unwrap();
        let expected: Vec<f32> = trits[512..].iter().map(|&t| f32::from(t) * 0.1).collect();
        assert_eq!(row, expected);
        let y = gemv(&w, &[127.0; 512], ActMode::A8Block);
        let int = |t: &[i8]| t.iter().map(|&t| i32::from(t)).sum::<i32>() as f32 * 127.0;
        let (a, b) = (int(&trits[..256]), int(&trits[256..512]));
        assert_eq!(y[0], 0.1_f32.mul_add(b, 0.1_f32.mul_add(a, 0.0)));

        let short = TernaryTensor::from_i2s(layout, 4, 512, &packed);
        assert!(matches!(short, Err(Error::Span { .. })));
    }
}

#[test]
fn rows_are_views_of_the_same_bytes() {
    let w = tensor(Packing::Tq1_0, 512, &[0; 1024], &[1.0, 2.0, 3.0, 4.0]);
    assert_eq!(w.row_bytes(1).len(), 108);
    assert_eq!(w.row_bytes(1).as_ptr(), w.bytes()[108..].as_ptr());
    let scales: Vec<f32> = (0..2).map(|b| w.block(1, b).unwrap().scale).collect();
    assert_eq!(scales, [3.0, 4.0]);
    assert_eq!((w.rows(), w.cols(), w.blocks_per_row()), (2, 512, 2));
}
