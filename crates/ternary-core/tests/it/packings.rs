//! The packings against the formulas of the formats, written out independently, and against bytes
//! worked out by hand.

use proptest::prelude::*;
use ternary_core::{BLOCK, Error, I2sLayout, Packing, f16};

type Trits = [i8; BLOCK];

fn trits() -> impl Strategy<Value = Trits> {
    prop::collection::vec(-1_i8..=1, BLOCK).prop_map(|t| t.try_into().expect("256 trits"))
}

fn scale() -> impl Strategy<Value = f16> {
    prop::num::u16::ANY.prop_map(f16::from_bits).prop_filter("finite", |d| d.is_finite())
}

fn encode(packing: Packing, trits: &Trits, scale: f16) -> Vec<u8> {
    let mut out = vec![0xff; packing.block_bytes()];
    packing.encode(trits, scale, &mut out);
    out
}

/// All zero but for one weight.
fn one_hot(i: usize, trit: i8) -> Trits {
    let mut trits = [0; BLOCK];
    trits[i] = trit;
    trits
}

/// Byte and lowest bit of weight `i`, by the formula of the format.
fn place_of(packing: Packing, i: usize) -> (usize, usize) {
    match packing {
        Packing::Tq2_0 => {
            let (h, n, m) = (i / 128, i % 128 / 32, i % 32);
            (32 * h + m, 2 * n)
        }
        Packing::BitnetT158 => (i / 4, 2 * (i % 4)),
        Packing::Tq1_0 => unreachable!("base 3"),
    }
}

/// Byte and digit (0 the most significant) of weight `i` of a TQ1_0 block.
fn tq1_0_place_of(i: usize) -> (usize, u32) {
    let (byte, digit) = match i {
        0..160 => (i % 32, i / 32),
        160..240 => (32 + (i - 160) % 16, (i - 160) / 16),
        _ => (48 + (i - 240) % 4, (i - 240) / 4),
    };
    (byte, digit as u32)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn blocks_survive_the_round_trip(trits in trits(), scale in scale()) {
        for packing in Packing::ALL {
            let packed = encode(packing, &trits, scale);
            let mut back = [9; BLOCK];
            prop_assert_eq!(packing.decode(&packed, &mut back).unwrap().to_bits(), scale.to_bits());
            prop_assert_eq!(back, trits);
            prop_assert_eq!(encode(packing, &back, scale), packed);
        }
    }

    #[test]
    fn i2s_survives_the_round_trip(
        groups in 0_usize..5,
        trits in prop::collection::vec(-1_i8..=1, 512),
        scale in -1e3_f32..1e3,
    ) {
        for layout in I2sLayout::ALL {
            let trits = &trits[..groups * layout.group()];
            let packed = layout.encode(trits, scale).unwrap();
            prop_assert_eq!(packed.len(), trits.len() / 4 + 32);
            prop_assert_eq!(layout.decode(&packed, trits.len()).unwrap(), (trits.to_vec(), scale));
        }
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..160)) {
        for packing in Packing::ALL {
            if packing.decode(&bytes, &mut [0; BLOCK]).is_ok() {
                prop_assert_eq!(bytes.len(), packing.block_bytes());
            }
        }
        for layout in I2sLayout::ALL {
            for n in [0, bytes.len(), 64, 128, 256, usize::MAX, usize::MAX - 127] {
                let _ = layout.decode(&bytes, n);
            }
        }
    }
}

#[test]
fn block_sizes_are_those_of_the_formats() {
    let sizes = Packing::ALL.map(|p| (p.name(), p.block_bytes(), p.row_bytes(512).unwrap()));
    assert_eq!(sizes, [("TQ2_0", 66, 132), ("TQ1_0", 54, 108), ("BITNET_T158", 66, 132)]);
    for cols in [0, 1, 192, 255, 257, usize::MAX] {
        let refused = Err(Error::NotBlocks { weights: cols, block: 256 });
        assert_eq!(Packing::Tq2_0.row_bytes(cols), refused);
    }
}

#[test]
fn every_two_bit_weight_lies_where_the_formula_says() {
    for packing in [Packing::Tq2_0, Packing::BitnetT158] {
        for i in 0..BLOCK {
            let packed = encode(packing, &one_hot(i, -1), f16::ONE);
            let mut expected = vec![0b01_01_01_01; 64];
            let (byte, bit) = place_of(packing, i);
            expected[byte] &= !(3 << bit);
            assert_eq!(packed[..64], expected, "{} weight {i}", packing.name());
        }
    }
}

#[test]
fn two_bit_blocks_worked_out_by_hand() {
    // TQ2_0: weight 197 = 128 + 2 * 32 + 5 is field 2 of byte 37: 01 10 01 01.
    let packed = encode(Packing::Tq2_0, &one_hot(197, 1), f16::from_f32(0.5));
    assert_eq!((packed[37], packed[36], packed[5]), (0x65, 0x55, 0x55));
    assert_eq!(packed[64..], [0x00, 0x38]);

    // BITNET_T158: weights -1, 0, +1, 0 are codes 0, 1, 2, 1 from the lowest bits up.
    let mut trits = [0; BLOCK];
    trits[..4].copy_from_slice(&[-1, 0, 1, 0]);
    assert_eq!(encode(Packing::BitnetT158, &trits, f16::ONE)[0], 0b01_10_01_00);
}

#[test]
fn every_tq1_0_weight_lies_where_the_formula_says() {
    for i in 0..BLOCK {
        let (byte, digit) = tq1_0_place_of(i);
        let mut expected = vec![128; 48]; // codes 11111 are q = 121, and ceil(256 * 121 / 243) = 128
        expected.extend([127; 4]); // codes 11110 are q = 120, and ceil(256 * 120 / 243) = 127
        let q = if byte < 48 { 121 } else { 120 } + 3_u32.pow(4 - digit);
        expected[byte] = (256 * q).div_ceil(243) as u8;
        assert_eq!(encode(Packing::Tq1_0, &one_hot(i, 1), f16::ONE)[..52], expected, "weight {i}");
    }
}

#[test]
fn every_tq1_0_byte_decodes_to_the_digits_of_its_fraction() {
    for value in 0..=u8::MAX {
        // A byte is the fraction value / 256; its leading base-3 digits are those of this number.
        let q = u32::from(value) * 243 / 256;
        let mut block = [value; 54];
        block[52..].copy_from_slice(&f16::ONE.to_le_bytes());
        let mut decoded = [9; BLOCK];
        Packing::Tq1_0.decode(&block, &mut decoded).unwrap();
        for (i, &trit) in decoded.iter().enumerate() {
            let (_, digit) = tq1_0_place_of(i);
            let code = q / 3_u32.pow(4 - digit) % 3;
            assert_eq!(trit, code as i8 - 1, "byte {value}, weight {i}");
        }
    }
}

#[test]
fn every_five_trits_have_the_byte_of_the_formula() {
    for q in 0..243_u32 {
        let mut trits = [0; BLOCK];
        for n in 0..5 {
            trits[32 * n] = (q / 3_u32.pow(4 - n as u32) % 3) as i8 - 1;
        }
        let packed = encode(Packing::Tq1_0, &trits, f16::ONE);
        assert_eq!(u32::from(packed[0]), (256 * q).div_ceil(243));
    }
}

#[test]
fn i2s_tensors_worked_out_by_hand() {
    let mut trits = vec![0; 256];
    trits[128] = -1; // x86: group 1, g = 0, p = 0. ARM: group 2, g = 0, p = 0
    trits[200] = 1; // x86: group 1, g = 2, p = 8. ARM: group 3, g = 0, p = 8
    let x86 = I2sLayout::X86.encode(&trits, 0.5).unwrap();
    let mut expected = vec![0b01_01_01_01; 64];
    expected[32] = 0b00_01_01_01;
    expected[40] = 0b01_01_10_01;
    expected.extend([0, 0, 0, 0x3f]); // 0.5
    expected.extend([0; 28]);
    assert_eq!(x86, expected);

    let arm = I2sLayout::Arm.encode(&trits, 0.5).unwrap();
    expected[32] = 0b00_01_01_01;
    expected[40] = 0b01_01_01_01;
    expected[56] = 0b10_01_01_01;
    assert_eq!(arm, expected);
}

#[test]
fn code_3_is_refused_wherever_it_stands() {
    for packing in [Packing::Tq2_0, Packing::BitnetT158] {
        for weight in 0..BLOCK {
            let mut packed = encode(packing, &[1; BLOCK], f16::ONE);
            let (byte, bit) = place_of(packing, weight);
            packed[byte] |= 3 << bit;
            let refused = Err(Error::InvalidCode { block: 0, weight });
            assert_eq!(packing.decode(&packed, &mut [0; BLOCK]), refused);
        }
    }
    for layout in I2sLayout::ALL {
        let mut packed = layout.encode(&[0; 512], 1.0).unwrap();
        packed[layout.group() / 4 + 2] |= 0b11; // group 1, g = 3, p = 2
        let weight = layout.group() / 4 * 3 + 2;
        assert_eq!(layout.decode(&packed, 512), Err(Error::InvalidCode { block: 1, weight }));
    }
}

#[test]
fn scales_that_are_not_finite_are_refused() {
    for bad in [f16::NAN, f16::INFINITY, f16::NEG_INFINITY] {
        for packing in Packing::ALL {
            let packed = encode(packing, &[0; BLOCK], bad);
            let refused = packing.decode(&packed, &mut [0; BLOCK]);
            assert!(matches!(refused, Err(Error::BadScale { block: 0, .. })), "{refused:?}");
        }
        for layout in I2sLayout::ALL {
            let packed = layout.encode(&[0; 128], bad.to_f32()).unwrap();
            let refused = layout.decode(&packed, 128);
            assert!(matches!(refused, Err(Error::BadScale { block: 0, .. })), "{refused:?}");
        }
    }
}

#[test]
fn wrong_lengths_are_refused() {
    for packing in Packing::ALL {
        for got_bytes in [0, 1, packing.block_bytes() - 1, packing.block_bytes() + 1] {
            let refused = packing.decode(&vec![0; got_bytes], &mut [0; BLOCK]);
            let expected_bytes = packing.block_bytes();
            assert_eq!(refused, Err(Error::Span { expected_bytes, got_bytes }));
        }
    }
    let packed = I2sLayout::X86.encode(&[0; 128], 1.0).unwrap();
    let not_blocks = Error::NotBlocks { weights: 64, block: 128 };
    assert_eq!(I2sLayout::X86.decode(&packed, 64), Err(not_blocks.clone()));
    assert_eq!(I2sLayout::X86.encode(&[0; 64], 1.0), Err(not_blocks));
    let span = Error::Span { expected_bytes: 96, got_bytes: 64 };
    assert_eq!(I2sLayout::X86.decode(&packed, 256), Err(span));
}

#[test]
#[should_panic(expected = "a trit is -1, 0 or +1")]
fn encoding_a_value_that_is_no_trit_panics() {
    let _ = encode(Packing::Tq1_0, &one_hot(3, 2), f16::ONE);
}

/// A matrix of three blocks with `damage` done to the middle one.
fn damaged(packing: Packing, damage: impl Fn(&mut [u8])) -> Vec<u8> {
    let block = encode(packing, &one_hot(3, -1), f16::from_f32(0.25));
    let mut blocks = block.repeat(3);
    damage(&mut blocks[block.len()..2 * block.len()]);
    blocks
}

#[test]
fn the_quick_check_agrees_with_decoding_on_every_byte() {
    for packing in Packing::ALL {
        assert!(packing.is_valid(&damaged(packing, |_| ())));
        for at in 0..packing.block_bytes() {
            for byte in 0..=255 {
                let blocks = damaged(packing, |block| block[at] = byte);
                let decodes = blocks.chunks(packing.block_bytes()).all(|b| packing.decode(b, &mut [0; BLOCK]).is_ok());
                assert_eq!(packing.is_valid(&blocks), decodes, "{} byte {at} = {byte}", packing.name());
            }
        }
    }
}

#[test]
fn the_quick_check_sees_the_last_of_many_blocks() {
    for packing in Packing::ALL {
        let mut blocks = encode(packing, &one_hot(3, -1), f16::from_f32(0.25)).repeat(200);
        assert!(packing.is_valid(&blocks));
        *blocks.last_mut().expect("many blocks") = 0x7c;
        assert!(!packing.is_valid(&blocks));
        assert!(packing.is_valid(&[]));
    }
}
