//! Dequantisation against values from the `gguf` package.
//!
//! `goldens/ggml/blocks.safetensors` holds `NAME.bytes` (random valid blocks) and `NAME.values`
//! (their values by `gguf.quants.dequantize`); its script is listed in `fixtures/README.md`.

use gguf_bitnet::{Error, FormatError, TensorType, dequantize};
use safetensors::SafeTensors;
use ternary_core::I2sLayout;

#[test]
fn values_equal_the_reference_exactly() {
    let file = std::fs::read(fixtures::path("goldens/ggml/blocks.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&file).unwrap();
    let names: Vec<String> =
        golden.names().iter().filter_map(|n| n.strip_suffix(".bytes")).map(str::to_owned).collect();
    assert_eq!(names.len(), 24, "{names:?}");
    for name in names {
        let ty: TensorType = name.parse().unwrap();
        let bytes = golden.tensor(&format!("{name}.bytes")).unwrap();
        let values = golden.tensor(&format!("{name}.values")).unwrap();
        let expected: Vec<f32> = values.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        let mut out = vec![f32::NAN; expected.len()];
        dequantize(ty, bytes.data(), &mut out).unwrap();
        let differs = out.iter().zip(&expected).position(|(a, b)| a.to_bits() != b.to_bits() && *a != *b);
        if let Some(i) = differs {
            panic!("{name}: value {i} is {}, the reference says {}", out[i], expected[i]);
        }
        assert!(out.iter().any(|v| *v != 0.0), "{name} decoded to nothing");
    }
}

/// Two-bit ternary types by their definitions; rows, because a row of IQ2_BN has its scale in front.
#[test]
fn rows_of_two_bit_codes_equal_their_definitions() {
    let file = std::fs::read(fixtures::path("goldens/ggml/ternary.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&file).unwrap();
    for ty in [TensorType::Q2_0, TensorType::Q2_0G128, TensorType::Iq2Bn] {
        let bytes = golden.tensor(&format!("{ty}.bytes")).unwrap();
        let values = golden.tensor(&format!("{ty}.values")).unwrap();
        let expected: Vec<f32> = values.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        let cols = values.shape()[1];
        let rows = bytes.data().chunks_exact(bytes.shape()[1]).zip(expected.chunks_exact(cols));
        for (r, (bytes, expected)) in rows.enumerate() {
            let mut out = vec![f32::NAN; cols];
            dequantize(ty, bytes, &mut out).unwrap();
            assert_eq!(out, expected, "{ty}, row {r}");
        }
    }
}

#[test]
fn plain_numbers_widen() {
    let check = |ty, bytes: &[u8], expected: &[f32]| {
        let mut out = vec![0.0; expected.len()];
        dequantize(ty, bytes, &mut out).unwrap();
        assert_eq!(out, expected, "{ty}");
    };
    check(TensorType::F32, &1.5f32.to_le_bytes(), &[1.5]);
    check(TensorType::F64, &(-2.25f64).to_le_bytes(), &[-2.25]);
    check(TensorType::I8, &[0x80, 0x7f], &[-128.0, 127.0]);
    check(TensorType::I16, &(-300i16).to_le_bytes(), &[-300.0]);
    check(TensorType::I32, &70_000i32.to_le_bytes(), &[70_000.0]);
    check(TensorType::I64, &(-5i64).to_le_bytes(), &[-5.0]);
    check(TensorType::F16, &[0x01, 0x00, 0x00, 0xc0], &[2f32.powi(-24), -2.0]);
    check(TensorType::Bf16, &[0x40, 0x40], &[3.0]);
}

#[test]
fn whole_tensor_layouts_decode() {
    let trits: Vec<i8> = (0..384).map(|i| ((i * i + i / 7) % 3) as i8 - 1).collect();
    let expected: Vec<f32> = trits.iter().map(|&t| f32::from(t) * 0.25).collect();
    for (layout, ty) in [(I2sLayout::X86, TensorType::I2s), (I2sLayout::Arm, TensorType::I2sArm)] {
        let bytes = layout.encode(&trits, 0.25).unwrap();
        let mut out = vec![0.0; 384];
        dequantize(ty, &bytes, &mut out).unwrap();
        assert_eq!(out, expected, "{ty}");
    }
}

#[test]
fn padding_of_a_flat_tensor_is_ignored() {
    // 300 weights in two blocks; the padding of the second holds code 0 as RuvLLM writes it, and
    // then code 3, which would be invalid as a weight.
    let code = |i: usize| (i * 5 % 3) as u8;
    for padding in [0u8, 3] {
        let mut bytes = vec![0; 132];
        for i in 0..512 {
            let c = if i < 300 { code(i) } else { padding };
            bytes[66 * (i / 256) + i % 256 / 4] |= c << (2 * (i % 4));
        }
        bytes[64..66].copy_from_slice(&half::f16::from_f32(0.5).to_le_bytes());
        bytes[130..132].copy_from_slice(&half::f16::from_f32(2.0).to_le_bytes());
        let mut out = vec![0.0; 300];
        dequantize(TensorType::BitnetT158Flat, &bytes, &mut out).unwrap();
        for (i, v) in out.iter().enumerate() {
            let scale = if i < 256 { 0.5 } else { 2.0 };
            assert_eq!(*v, (f32::from(code(i)) - 1.0) * scale, "{i}");
        }
    }
}

#[test]
fn lengths_codes_and_scales_are_checked() {
    let mut out = [0.0; 256];
    for ty in TensorType::all() {
        let bytes = ty.tensor_bytes(&[256]).unwrap() as usize;
        for wrong in [0, bytes - 1, bytes + 1] {
            let error = dequantize(ty, &vec![0; wrong], &mut out).unwrap_err();
            assert!(matches!(error, Error::Format(FormatError::DataLength { .. })), "{ty}: {error}");
        }
        if ty.block_len() > 1 && ty != TensorType::BitnetT158Flat {
            let error = dequantize(ty, &vec![0; bytes], &mut out[..255]).unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::Format(FormatError::RowNotBlocks { .. }) | Error::Format(FormatError::NotGroups { .. })
                ),
                "{ty}: {error}"
            );
        }
    }
    let mut block = [0x55; 66];
    block[64..].copy_from_slice(&half::f16::ONE.to_le_bytes());
    dequantize(TensorType::Tq2_0, &block, &mut out).unwrap();
    block[5] = 0xff;
    assert!(matches!(dequantize(TensorType::Tq2_0, &block, &mut out), Err(Error::Format(FormatError::Ternary(_)))));
    block[5] = 0x55;
    block[64..].copy_from_slice(&half::f16::NAN.to_le_bytes());
    assert!(matches!(
        dequantize(TensorType::BitnetT158, &block, &mut out),
        Err(Error::Format(FormatError::Ternary(_)))
    ));
}
