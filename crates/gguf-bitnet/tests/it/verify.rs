//! `verify` finds the planted defects and no others; the identity depends on the model, not on the file.

use gguf_bitnet::{
    Defect, DefectKind, GgufFile, GgufWriter, Metadata, TensorInfo, TensorSource, TensorType, Value, encode_row,
    identity, identity_of, split_file_name, split_metadata, verify,
};
use ternary_core::{Bytes, Rounding};

const COLS: usize = 512;
const ROWS: usize = 3;

fn info(name: &str, shape: &[usize], ty: TensorType) -> TensorInfo {
    TensorInfo { name: name.into(), shape: shape.to_vec(), ty, bytes: ty.tensor_bytes(shape).unwrap() }
}

/// A valid matrix `[ROWS, COLS]` of any type.
fn valid(ty: TensorType) -> Vec<u8> {
    let x: Vec<f32> = (0..ROWS * COLS).map(|i| (i as f32 * 0.37).sin()).collect();
    let mut out = Vec::new();
    if ty.is_writable() {
        encode_row(ty, Rounding::AbsMean, &x, None, &mut out).unwrap();
    } else {
        // Codes 1 and zero scales are valid in every other type.
        out = vec![0x55; ty.tensor_bytes(&[ROWS, COLS]).unwrap() as usize];
        if ty == TensorType::F64 {
            out.fill(0x11);
        }
        // A matrix of the code for 0 would be one without weights.
        out[7] = 0x56;
    }
    out
}

fn report(ty: TensorType, data: Vec<u8>) -> Vec<Defect> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let good = info("good", &[8], TensorType::F32);
    let tensors = [(good, Bytes::from(vec![0; 32])), (info("w", &[ROWS, COLS], ty), Bytes::from(data))];
    GgufWriter::write_file(&path, &Metadata::default(), &tensors).unwrap();
    let mut calls = Vec::new();
    let report = verify(&path, &mut |done, total| calls.push((done, total))).unwrap();
    assert_eq!(calls.first().unwrap().0, 0);
    assert_eq!(*calls.last().unwrap(), (report.bytes, report.bytes));
    assert_eq!((report.tensors, report.elements), (2, (8 + ROWS * COLS) as u64));
    assert_eq!(report.types.iter().map(|t| t.tensors).sum::<usize>(), 2);
    assert_eq!(report.is_valid(), report.defects.is_empty());
    report.defects
}

fn one(ty: TensorType, kind: DefectKind, count: u64, of: usize, first_row: u64) -> Vec<Defect> {
    vec![Defect { tensor: "w".into(), ty, kind, count, of: of as u64, first_row }]
}

fn verifiable() -> impl Iterator<Item = TensorType> {
    let in_gguf = |ty: &TensorType| ty.id().is_some() && !matches!(ty, TensorType::I2sArm | TensorType::BitnetT158Flat);
    TensorType::all().filter(in_gguf)
}

#[test]
fn valid_tensors_of_every_type_have_no_defects() {
    for ty in verifiable() {
        assert_eq!(report(ty, valid(ty)), [], "{ty}");
    }
}

#[test]
fn bad_floats_are_counted_by_kind() {
    for (ty, bytes, infinity) in [
        (TensorType::F16, 2, &[0x00, 0x7c][..]),
        (TensorType::Bf16, 2, &[0x80, 0x7f]),
        (TensorType::F32, 4, &[0x00, 0x00, 0x80, 0xff]),
        (TensorType::F64, 8, &[0, 0, 0, 0, 0, 0, 0xf0, 0x7f]),
    ] {
        let mut data = valid(ty);
        for at in [2 * COLS + 5, COLS + 1] {
            data[at * bytes..][..bytes].copy_from_slice(infinity);
        }
        let mut nan = infinity.to_vec();
        nan[0] |= 1;
        data[(COLS + 3) * bytes..][..bytes].copy_from_slice(&nan);
        let found = report(ty, data);
        let expected =
            [one(ty, DefectKind::NaN, 1, ROWS * COLS, 1), one(ty, DefectKind::Infinite, 2, ROWS * COLS, 1)].concat();
        assert_eq!(found, expected, "{ty}");
        assert!(found[0].to_string().contains("`w`"), "{}", found[0]);
    }
}

#[test]
fn bad_scales_are_found_in_every_block_type() {
    // Offsets of the F16s of a block.
    for (ty, offsets) in [
        (TensorType::Q4_0, &[0][..]),
        (TensorType::Q4_1, &[0, 2]),
        (TensorType::Q5_0, &[0]),
        (TensorType::Q5_1, &[0, 2]),
        (TensorType::Q8_0, &[0]),
        (TensorType::Q2K, &[80, 82]),
        (TensorType::Q3K, &[108]),
        (TensorType::Q4K, &[0, 2]),
        (TensorType::Q5K, &[0, 2]),
        (TensorType::Q6K, &[208]),
        (TensorType::Iq1S, &[0]),
        (TensorType::Iq2Xxs, &[0]),
        (TensorType::Iq2Xs, &[0]),
        (TensorType::Iq2S, &[0]),
        (TensorType::Iq3Xxs, &[0]),
        (TensorType::Iq3S, &[0]),
        (TensorType::Iq4Nl, &[0]),
        (TensorType::Iq4Xs, &[0]),
        (TensorType::Tq1_0, &[52]),
        (TensorType::Tq2_0, &[64]),
        (TensorType::BitnetT158, &[64]),
    ] {
        for bad in [0x7c00u16, 0xfe00] {
            let mut data = valid(ty);
            let last = data.len() / ty.block_bytes() - 1;
            for &offset in offsets {
                let at = last * ty.block_bytes() + offset;
                data[at..at + 2].copy_from_slice(&bad.to_le_bytes());
            }
            let count = offsets.len() as u64;
            let of = ROWS * COLS / ty.block_len() * offsets.len();
            assert_eq!(report(ty, data), one(ty, DefectKind::ScaleNotFinite, count, of, 2), "{ty}");
        }
    }
    let mut data = valid(TensorType::I2s);
    let at = data.len() - 32;
    data[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    assert_eq!(report(TensorType::I2s, data), one(TensorType::I2s, DefectKind::ScaleNotFinite, 1, 1, 0));
}

#[test]
fn bad_scales_are_found_where_they_are_no_f16() {
    // The exponent of IQ1_M's scale is split: two bits on top of its third word, three on top of the fourth.
    for (ty, bytes) in [(TensorType::Iq1M, &[(53, 0xc0), (55, 0x70)][..]), (TensorType::Mxfp4, &[(0, 255)])] {
        let good = valid(ty);
        let last = good.len() - ty.block_bytes();
        let with = |bytes: &[(usize, u8)]| {
            let mut data = good.clone();
            bytes.iter().for_each(|&(at, byte)| data[last + at] = byte);
            report(ty, data)
        };
        assert_eq!(with(bytes), one(ty, DefectKind::ScaleNotFinite, 1, ROWS * COLS / ty.block_len(), 2), "{ty}");
        let almost: Vec<_> = bytes.iter().map(|&(at, byte)| (at, byte - 1)).collect();
        assert_eq!(with(&almost[..1]), [], "{ty}");
    }
}

#[test]
fn code_three_is_counted() {
    for ty in [TensorType::Tq2_0, TensorType::BitnetT158, TensorType::I2s] {
        let mut data = valid(ty);
        let row_bytes = if ty == TensorType::I2s { COLS / 4 } else { 132 };
        data[row_bytes + 3] = 0b1101_0111;
        data[2 * row_bytes] = 0xff;
        assert_eq!(report(ty, data), one(ty, DefectKind::InvalidCode, 2 + 4, ROWS * COLS, 1), "{ty}");
    }
}

#[test]
fn padding_of_flat_tensors_may_hold_anything() {
    // A craftsman file of 300 weights; its second block has 44.
    let mut file = b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0".to_vec();
    let string = |out: &mut Vec<u8>, s: &str| {
        out.extend((s.len() as u64).to_le_bytes());
        out.extend(s.as_bytes());
    };
    for (key, value) in [("general.architecture", "craftsman"), ("craftsman.bitnet.weight_encoding", "x")] {
        string(&mut file, key);
        file.extend(8u32.to_le_bytes());
        string(&mut file, value);
    }
    string(&mut file, "w");
    file.extend(2u32.to_le_bytes());
    file.extend([3u64, 100].iter().flat_map(|d| d.to_le_bytes()));
    file.extend(30u32.to_le_bytes());
    file.extend(0u64.to_le_bytes());
    file.resize(file.len().next_multiple_of(32), 0);
    let start = file.len();
    file.extend([0x55; 132]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let defects = |at: usize| {
        let mut file = file.clone();
        file[start + at] = 0xff;
        std::fs::write(&path, file).unwrap();
        verify(&path, &mut |_, _| {}).unwrap().defects
    };
    assert_eq!(defects(66 + 11), [], "weights 300 to 303 are padding");
    assert_eq!(defects(66 + 10), one(TensorType::BitnetT158Flat, DefectKind::InvalidCode, 4, 300, 2));
}

#[test]
fn safetensors_are_verified_too() {
    let dir = fixtures::path("goldens/glm-tiny");
    let report = verify(&dir, &mut |_, _| {}).unwrap();
    assert!(report.is_valid() && report.tensors > 10 && report.bytes > 0, "{report:?}");
    assert_eq!(report.identity.len(), 64);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["identity"], report.identity.as_str());
}

fn model(edit: impl FnOnce(&mut Metadata, &mut Vec<(TensorInfo, Bytes)>)) -> String {
    let mut metadata = Metadata::default();
    metadata.insert("general.architecture", "test");
    metadata.insert("test.n", 3u32);
    let mut tensors = vec![
        (info("a", &[2, 4], TensorType::F32), Bytes::from(vec![1; 32])),
        (info("b", &[3], TensorType::F16), Bytes::from(vec![2; 6])),
    ];
    edit(&mut metadata, &mut tensors);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    GgufWriter::write_file(&path, &metadata, &tensors).unwrap();
    let identity = identity(&GgufFile::open(&path).unwrap()).unwrap().to_string();
    assert_eq!(verify(&path, &mut |_, _| {}).unwrap().identity, identity, "verify states the same");
    identity
}

#[test]
fn the_identity_follows_what_the_model_computes() {
    let original = model(|_, _| {});
    let same = [
        model(|m, _| drop(m.insert("craftsman.gates.report", "{}"))),
        model(|m, _| drop(m.insert("craftsman.gates.passed", Value::Bool(true)))),
        model(|_, t| t.reverse()),
        model(|m, _| {
            let architecture = m.remove("general.architecture").unwrap();
            m.insert("general.architecture", architecture);
        }),
    ];
    assert!(same.iter().all(|s| *s == original));
    let different = [
        model(|m, _| drop(m.insert("test.n", 4u32))),
        model(|m, _| drop(m.insert("test.n", 3u64))),
        model(|m, _| drop(m.remove("test.n"))),
        model(|m, _| drop(m.insert("craftsman.gatesx", 1u8))),
        model(|_, t| t[0].0.name = "c".into()),
        model(|_, t| t[0].0.shape = vec![4, 2]),
        model(|_, t| t[1].0.ty = TensorType::Bf16),
        model(|_, t| t[1].1 = Bytes::from(vec![2, 2, 2, 2, 2, 3])),
        model(|_, t| drop(t.pop())),
    ];
    for (i, d) in different.iter().enumerate() {
        assert_ne!(*d, original, "{i}");
        assert!(!different[..i].contains(d), "{i}");
    }
}

#[test]
fn splitting_a_model_keeps_its_identity() {
    let dir = tempfile::tempdir().unwrap();
    let mut metadata = Metadata::default();
    metadata.insert("test.n", 3u32);
    let tensors: Vec<_> =
        (0..2u8).map(|i| (info(&format!("t{i}"), &[8], TensorType::F32), Bytes::from(vec![i; 32]))).collect();
    let whole = dir.path().join("whole.gguf");
    GgufWriter::write_file(&whole, &metadata, &tensors).unwrap();
    for no in 1..=2u16 {
        let path = dir.path().join(split_file_name("m", no.into(), 2));
        let part = split_metadata(&metadata, no, 2, 2);
        GgufWriter::write_file(&path, &part, &tensors[usize::from(no) - 1..usize::from(no)]).unwrap();
    }
    let whole = GgufFile::open(&whole).unwrap();
    let split = GgufFile::open(dir.path().join("m-00001-of-00002.gguf")).unwrap();
    assert_eq!(split.n_parts(), 2);
    assert_eq!(identity(&whole).unwrap(), identity(&split).unwrap());
    let tensors_only = identity_of(&whole as &dyn TensorSource, None, &mut |_, _| {}).unwrap();
    assert_ne!(tensors_only, identity(&whole).unwrap());
}
