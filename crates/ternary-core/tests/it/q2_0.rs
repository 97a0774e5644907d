//! Q2_0 blocks against the formula of the format, and products over blocks shorter than 256 weights.

use ternary_core::{ActMode, BLOCK, Error, TernaryBlock, f16, fma, oracle, q2_0, quantize_a8};

/// Trits without a pattern that a wrong place would keep.
fn trits<const N: usize>(seed: usize) -> [i8; N] {
    std::array::from_fn(|i| ((i * i + i / 3 * seed + seed) % 3) as i8 - 1)
}

fn check_places<const N: usize>() {
    let mut packed = vec![0xff; q2_0::block_bytes(N)];
    for seed in 0..9 {
        let (trits, scale) = (trits::<N>(seed), f16::from_f32(seed as f32 * 0.37 - 1.0));
        q2_0::encode(&trits, scale, &mut packed);
        assert_eq!(packed[..2], scale.to_le_bytes());
        for (i, trit) in trits.iter().enumerate() {
            assert_eq!(packed[2 + i / 4] >> (2 * (i % 4)) & 3, (trit + 1) as u8, "weight {i} of {N}");
        }
        assert_eq!(q2_0::decode(&packed), Ok(TernaryBlock { trits, scale: scale.to_f32() }));
    }
}

#[test]
fn codes_lie_where_the_format_says() {
    check_places::<64>();
    check_places::<128>();
}

#[test]
fn code_three_bad_scales_and_other_lengths_are_refused() {
    let mut packed = [0x55; 18];
    packed[..2].copy_from_slice(&f16::ONE.to_le_bytes());
    q2_0::decode::<64>(&packed).unwrap();
    packed[4] |= 0b1100;
    assert_eq!(q2_0::decode::<64>(&packed), Err(Error::InvalidCode { block: 0, weight: 9 }));
    packed[4] = 0x55;
    packed[..2].copy_from_slice(&f16::NAN.to_le_bytes());
    assert!(matches!(q2_0::decode::<64>(&packed), Err(Error::BadScale { block: 0, .. })));
    assert!(matches!(q2_0::decode::<128>(&packed), Err(Error::Span { expected_bytes: 34, got_bytes: 18 })));
    assert!(matches!(q2_0::decode::<64>(&[]), Err(Error::Span { .. })));
}

/// The definition of the product written out, for rows that do not fill their last 256 activations.
#[test]
fn products_over_short_blocks_share_the_scales_of_256_activations() {
    let cols = 2 * BLOCK + 64;
    let x: Vec<f32> = (0..cols).map(|i| (i as f32 * 0.71).sin() * (1.0 + (i / BLOCK) as f32)).collect();
    let row: Vec<TernaryBlock<64>> =
        (0..cols / 64).map(|b| TernaryBlock { trits: trits(b), scale: 0.1 + b as f32 }).collect();
    for mode in [ActMode::A8Block, ActMode::A8Token] {
        let share = if mode == ActMode::A8Token { cols } else { BLOCK };
        let mut expected = 0.0;
        for (b, block) in row.iter().enumerate() {
            let from = b * 64 / share * share;
            let part = &x[from..cols.min(from + share)];
            let mut codes = vec![0; part.len()];
            let scale = quantize_a8(part, &mut codes);
            let codes = &codes[b * 64 - from..][..64];
            let sum: i32 = block.trits.iter().zip(codes).map(|(&t, &q)| i32::from(t) * i32::from(q)).sum();
            expected = fma(block.scale * scale, sum as f32, expected);
        }
        assert_eq!(oracle::dot(&row, &x, mode).to_bits(), expected.to_bits(), "{mode:?}");
    }
    let exact: f64 = row
        .iter()
        .zip(x.chunks(64))
        .flat_map(|(w, x)| w.trits.iter().zip(x).map(|(&t, &x)| f64::from(t) * f64::from(w.scale) * f64::from(x)))
        .sum();
    assert!((f64::from(oracle::dot(&row, &x, ActMode::F32)) - exact).abs() < 1e-3);
}
