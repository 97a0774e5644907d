//! Encoders against plain statements of the same rules.

use gguf_bitnet::{Error, FormatError, TensorType, dequantize, encode_row, quantize_row};
use half::{bf16, f16};
use proptest::prelude::*;
use ternary_core::Rounding;

const WRITABLE: [TensorType; 9] = [
    TensorType::F32,
    TensorType::F16,
    TensorType::Bf16,
    TensorType::Q8_0,
    TensorType::Q6K,
    TensorType::Tq1_0,
    TensorType::Tq2_0,
    TensorType::BitnetT158,
    TensorType::Q2_0,
];

fn encode(ty: TensorType, row: &[f32]) -> Vec<u8> {
    let mut out = vec![1, 2, 3];
    encode_row(ty, Rounding::AbsMean, row, None, &mut out).unwrap();
    assert_eq!(out[..3], [1, 2, 3], "{ty} appends");
    out.split_off(3)
}

fn decode(ty: TensorType, bytes: &[u8], n: usize) -> Vec<f32> {
    let mut out = vec![0.0; n];
    dequantize(ty, bytes, &mut out).unwrap();
    out
}

/// Q8_0 of 32 weights as the reference states it.
fn plain_q8_0(x: &[f32]) -> Vec<u8> {
    let largest = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let mut out = f16::from_f32(scale).to_le_bytes().to_vec();
    out.extend(x.iter().map(|v| (v * inverse).round() as i8 as u8));
    out
}

proptest! {
    #[test]
    fn q8_0_equals_the_plain_rule(
        x in proptest::collection::vec(-1.0f32..1.0, 64),
        exponent in -30i32..20,
        halves in any::<bool>(),
    ) {
        let mut x: Vec<f32> = x.iter().map(|v| v * 2f32.powi(exponent)).collect();
        if halves {
            // Exact halves between codes: the largest is 127 units.
            x = x.iter().map(|v| (v / 2f32.powi(exponent) * 254.0).round() / 2.0).collect();
            (x[0], x[32]) = (127.0, -127.0);
        }
        let expected: Vec<u8> = x.chunks(32).flat_map(plain_q8_0).collect();
        prop_assert_eq!(encode(TensorType::Q8_0, &x), expected);
    }

    #[test]
    fn floats_round_to_nearest(x in proptest::collection::vec(-70000.0f32..70000.0, 8)) {
        let x: Vec<f32> = x.iter().map(|v| v.clamp(-65519.0, 65519.0)).collect();
        let f16s: Vec<u8> = x.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
        let bf16s: Vec<u8> = x.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
        prop_assert_eq!(encode(TensorType::F16, &x), f16s);
        prop_assert_eq!(encode(TensorType::Bf16, &x), bf16s);
        prop_assert_eq!(decode(TensorType::F32, &encode(TensorType::F32, &x), 8), x);
    }
}

#[test]
fn ternary_types_hold_the_same_weights() {
    let x: Vec<f32> = (0..512).map(|i| (i as f32 * 0.7).sin()).collect();
    for rounding in [Rounding::AbsMean, Rounding::LeastSquares] {
        let values: Vec<Vec<f32>> = [TensorType::Tq1_0, TensorType::Tq2_0, TensorType::BitnetT158]
            .into_iter()
            .map(|ty| {
                let mut bytes = Vec::new();
                encode_row(ty, rounding, &x, None, &mut bytes).unwrap();
                decode(ty, &bytes, 512)
            })
            .collect();
        assert_eq!(values[0], values[1]);
        assert_eq!(values[1], values[2]);
        let error: f32 = x.iter().zip(&values[0]).map(|(a, b)| (a - b).powi(2)).sum();
        let power: f32 = x.iter().map(|v| v * v).sum();
        assert!(error < 0.3 * power, "{error} of {power}");
    }
    let mut bytes = Vec::new();
    assert!(matches!(
        quantize_row(TensorType::Tq2_0, &x, &mut bytes),
        Err(Error::Format(FormatError::NotWritable { .. }))
    ));
    // Importance reaches the quantiser: all of it on the first weights moves the scale to them.
    let importance: Vec<f32> = (0..512).map(|i| if i % 256 < 4 { 1.0 } else { 1e-6 }).collect();
    let mut weighted = Vec::new();
    encode_row(TensorType::Tq2_0, Rounding::LeastSquares, &x, Some(&importance), &mut weighted).unwrap();
    encode_row(TensorType::Tq2_0, Rounding::LeastSquares, &x, None, &mut bytes).unwrap();
    assert_ne!(weighted, bytes);
}

#[test]
fn values_a_type_cannot_hold_are_named() {
    let mut out = Vec::new();
    for ty in WRITABLE {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![0.5; 256];
            x[77] = bad;
            let error = encode_row(ty, Rounding::LeastSquares, &x, None, &mut out).unwrap_err();
            let named = matches!(error, Error::Format(FormatError::NotRepresentable { at: 77, ty: t, .. }) if t == ty);
            // F32 and the ternary types have no limit below infinity.
            assert!(named, "{ty}: {error}");
        }
    }
    for (ty, most, too_much) in [
        (TensorType::F16, 65519.9, 65520.0),
        (TensorType::Bf16, 3.3895e38, f32::MAX),
        (TensorType::Q8_0, 8.3e6, 8.4e6),
        (TensorType::Q6K, 2.5e8, 2.6e8),
    ] {
        let mut x = [0.0; 256];
        x[3] = -most;
        encode_row(ty, Rounding::AbsMean, &x, None, &mut out).unwrap();
        let start = out.len() - ty.row_bytes(256).unwrap();
        assert!(decode(ty, &out[start..], 256).iter().all(|v| v.is_finite()), "{ty}");
        x[3] = too_much;
        let error = encode_row(ty, Rounding::AbsMean, &x, None, &mut out).unwrap_err();
        assert!(matches!(error, Error::Format(FormatError::NotRepresentable { at: 3, .. })), "{ty}: {error}");
    }
    assert!(matches!(
        encode_row(TensorType::Q4K, Rounding::AbsMean, &[0.0; 256], None, &mut out),
        Err(Error::Format(FormatError::NotWritable { .. }))
    ));
    assert!(matches!(
        encode_row(TensorType::Q8_0, Rounding::AbsMean, &[0.0; 33], None, &mut out),
        Err(Error::Format(FormatError::RowNotBlocks { cols: 33, .. }))
    ));
    let x = [0.5; 256];
    let with = |h: &[f32]| encode_row(TensorType::Q6K, Rounding::AbsMean, &x, Some(h), &mut Vec::new());
    assert!(matches!(with(&[1.0; 255]), Err(Error::Format(FormatError::ImportanceLength { cols: 256, got: 255 }))));
    assert!(matches!(with(&[-1.0; 256]), Err(Error::Format(FormatError::BadImportance { at: 0, .. }))));
    with(&[0.0; 256]).unwrap();
}

#[test]
fn nothing_is_appended_when_encoding_fails() {
    let mut out = vec![9];
    encode_row(TensorType::Tq2_0, Rounding::AbsMean, &[f32::NAN; 256], None, &mut out).unwrap_err();
    quantize_row(TensorType::Q8_0, &[1.0; 7], &mut out).unwrap_err();
    assert_eq!(out, [9]);
}
