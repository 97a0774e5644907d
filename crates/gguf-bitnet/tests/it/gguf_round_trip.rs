//! Written files are read back: metadata, tensors, split sets, craftsman files, I2_S.

use std::fs;
use std::path::Path;

use gguf_bitnet::{
    Error, FormatError, GgufError, GgufFile, GgufWriter, Metadata, OpenOptions, SourceError, TensorInfo, TensorSource,
    TensorType, Value, dequantize, split_file_name, split_metadata,
};
use proptest::prelude::*;
use ternary_core::{Bytes, I2sLayout};

fn info(name: &str, shape: &[usize], ty: TensorType) -> TensorInfo {
    TensorInfo { name: name.into(), shape: shape.to_vec(), ty, bytes: ty.tensor_bytes(shape).unwrap() }
}

/// Bytes that differ from tensor to tensor and from place to place.
fn data(info: &TensorInfo, seed: usize) -> Vec<u8> {
    (0..info.bytes as usize).map(|i| (i * 31 + i / 256 * 7 + seed * 101) as u8).collect()
}

fn write(metadata: &Metadata, infos: &[TensorInfo]) -> Vec<u8> {
    let mut writer = GgufWriter::new(metadata, infos.to_vec()).unwrap();
    let mut out = Vec::new();
    writer.begin(&mut out).unwrap();
    for (i, info) in infos.iter().enumerate() {
        for chunk in data(info, i).chunks(77) {
            writer.write_tensor(&mut out, i, chunk).unwrap();
        }
    }
    assert_eq!(out.len() as u64, writer.file_bytes());
    writer.finish().unwrap();
    out
}

fn assert_same(file: &GgufFile, infos: &[TensorInfo]) {
    assert_eq!(file.tensors(), infos);
    for (i, info) in infos.iter().enumerate() {
        assert_eq!(file.index_of(&info.name), Some(i));
        assert_eq!(&file.bytes(i).unwrap()[..], data(info, i), "{}", info.name);
    }
    assert!(matches!(file.bytes(infos.len()), Err(Error::Source(SourceError::NoTensor { .. }))));
    assert_eq!(file.index_of("no such tensor"), None);
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        any::<f32>().prop_map(Value::F32),
        any::<f64>().prop_map(Value::F64),
        any::<bool>().prop_map(Value::Bool),
        ".{0,12}".prop_map(Value::String),
    ]
}

fn list<T: std::fmt::Debug>(of: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    proptest::collection::vec(of, 0..9)
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        number(),
        list(any::<u8>()).prop_map(Value::from),
        list(any::<i16>()).prop_map(Value::from),
        list(any::<u32>()).prop_map(Value::from),
        list(any::<i64>()).prop_map(Value::from),
        list(any::<f32>()).prop_map(Value::from),
        list(any::<f64>()).prop_map(Value::from),
        list(any::<bool>()).prop_map(Value::from),
        list(".{0,9}").prop_map(Value::from),
    ]
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let alignment = proptest::option::of((0u32..10).prop_map(|n| 1u32 << n));
    (proptest::collection::vec(("[a-z.]{1,20}", value()), 0..8), alignment).prop_map(|(pairs, alignment)| {
        let mut metadata = Metadata::default();
        for (key, value) in pairs {
            metadata.insert(format!("m.{key}"), value);
        }
        if let Some(alignment) = alignment {
            metadata.insert("general.alignment", alignment);
        }
        metadata
    })
}

fn storable() -> Vec<TensorType> {
    // Tensors as small as these do not tell the two layouts of id 42 apart.
    let has_own_id = |t: &TensorType| {
        t.id().is_some_and(|id| id != 42) && !matches!(t, TensorType::I2sArm | TensorType::BitnetT158Flat)
    };
    TensorType::all().filter(has_own_id).collect()
}

fn tensors() -> impl Strategy<Value = Vec<TensorInfo>> {
    let tensor = (proptest::sample::select(storable()), proptest::collection::vec(1usize..4, 0..4), 1usize..4);
    proptest::collection::vec(tensor, 0..7).prop_map(|list| {
        let infos = list.into_iter().enumerate().map(|(i, (ty, mut shape, blocks))| {
            shape.push(blocks * ty.block_len());
            info(&format!("blk.{i}.weight"), &shape, ty)
        });
        infos.collect()
    })
}

/// Equal, with NaN equal to itself.
fn same_bits(a: &Metadata, b: &Metadata) -> bool {
    a.len() == b.len()
        && a.iter().zip(b.iter()).all(|(a, b)| a.0 == b.0 && format!("{:?}", a.1) == format!("{:?}", b.1))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn arbitrary_models_come_back(metadata in metadata(), infos in tensors()) {
        let bytes = write(&metadata, &infos);
        let file = GgufFile::from_bytes(Bytes::from(bytes.clone())).unwrap();
        prop_assert!(same_bits(file.metadata(), &metadata));
        prop_assert_eq!(file.version(), 3);
        prop_assert_eq!(file.file_bytes(), bytes.len() as u64);
        assert_same(&file, &infos);
        prop_assert_eq!(write(file.metadata(), &infos), bytes, "written again byte for byte");
    }
}

#[test]
fn files_are_mapped_released_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let infos = [info("a", &[300, 256], TensorType::Q8_0), info("b", &[4096], TensorType::F32)];
    let tensors: Vec<_> = infos.iter().enumerate().map(|(i, t)| (t.clone(), Bytes::from(data(t, i)))).collect();
    GgufWriter::write_file(&path, &Metadata::default(), &tensors).unwrap();
    assert_eq!(fs::read(&path).unwrap(), write(&Metadata::default(), &infos));
    let file = GgufFile::open(&path).unwrap();
    assert_eq!(file.path(), path);
    for i in 0..3 {
        file.prefetch(i);
        file.release(i);
        file.release_range(i, 100..usize::MAX);
        file.prefetch_range(i, usize::MAX..usize::MAX);
    }
    assert_same(&file, &infos);
    file.release(0);
    assert_same(&file, &infos);
}

/// Writes `infos` as a split set, two tensors to a part, and returns the paths.
fn write_split(dir: &std::path::Path, metadata: &Metadata, infos: &[TensorInfo]) -> Vec<std::path::PathBuf> {
    let parts: Vec<&[TensorInfo]> = infos.chunks(2).collect();
    let mut paths = Vec::new();
    for (no, part) in (1u16..).zip(&parts) {
        let path = dir.join(split_file_name("m", no.into(), parts.len() as u64));
        let metadata = split_metadata(metadata, no, parts.len() as u16, infos.len() as i32);
        let first = (usize::from(no) - 1) * 2;
        let tensors: Vec<_> =
            part.iter().enumerate().map(|(i, t)| (t.clone(), Bytes::from(data(t, first + i)))).collect();
        GgufWriter::write_file(&path, &metadata, &tensors).unwrap();
        paths.push(path);
    }
    paths
}

#[test]
fn split_sets_read_as_one_from_any_part() {
    let dir = tempfile::tempdir().unwrap();
    let mut metadata = Metadata::default();
    metadata.insert("general.architecture", "test");
    metadata.insert("general.alignment", 64u32);
    let infos: Vec<_> = (0..5).map(|i| info(&format!("t{i}"), &[i + 1, 32], TensorType::Q4_0)).collect();
    let paths = write_split(dir.path(), &metadata, &infos);
    assert_eq!(paths.len(), 3);
    for path in &paths {
        let file = GgufFile::open(path).unwrap();
        assert_eq!((file.n_parts(), file.metadata()), (3, &metadata));
        assert_same(&file, &infos);
    }
}

#[test]
fn split_sets_that_do_not_belong_together_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let infos: Vec<_> = (0..4).map(|i| info(&format!("t{i}"), &[8], TensorType::F32)).collect();
    let paths = write_split(dir.path(), &Metadata::default(), &infos);
    let second = fs::read(&paths[1]).unwrap();
    let refused = |is_expected: fn(&Error) -> bool| {
        let error = GgufFile::open(&paths[0]).unwrap_err();
        assert!(is_expected(error.root()), "{error:?}");
        assert!(error.to_string().contains("m-0000"), "{error}");
    };
    let write_second =
        |metadata: &Metadata, infos: &[TensorInfo]| fs::write(&paths[1], write(metadata, infos)).unwrap();
    let part = |no, count| split_metadata(&Metadata::default(), no, count, 4);

    fs::remove_file(&paths[1]).unwrap();
    refused(|e| matches!(e, Error::Gguf(GgufError::SplitPartsMissing { .. })));
    write_second(&Metadata::default(), &infos[2..]);
    refused(|e| matches!(e, Error::Gguf(GgufError::SplitMismatch { key: "split.count", expected: 2, got: 0 })));
    write_second(&part(2, 7), &infos[2..]);
    refused(|e| matches!(e, Error::Gguf(GgufError::SplitMismatch { key: "split.count", expected: 2, got: 7 })));
    write_second(&part(1, 2), &infos[2..]);
    refused(|e| matches!(e, Error::Gguf(GgufError::SplitMismatch { key: "split.no", expected: 1, got: 0 })));
    write_second(&part(2, 2), &infos[3..]);
    refused(|e| matches!(e, Error::Gguf(GgufError::SplitMismatch { key: "split.tensors.count", expected: 3, got: 4 })));
    write_second(&part(2, 2), &infos[1..3]);
    refused(|e| matches!(e, Error::Source(SourceError::DuplicateTensor)));
    fs::write(&paths[1], &second[..second.len() - 1]).unwrap();
    refused(|e| matches!(e, Error::Source(SourceError::TruncatedData { need: 32, have: 31 })));
    fs::write(&paths[1], &second).unwrap();
    let renamed = dir.path().join("other.gguf");
    fs::copy(&paths[0], &renamed).unwrap();
    let error = GgufFile::open(&renamed).unwrap_err();
    assert!(matches!(error.root(), Error::Gguf(GgufError::SplitName { no: 1, count: 2 })), "{error}");
}

/// A file as RuvLLM writes it: dimensions outermost first, the last tensor not padded.
fn craftsman(architecture: &str, encoding: bool, tensors: &[(&str, &[u64], u32, Vec<u8>)]) -> Vec<u8> {
    let string = |out: &mut Vec<u8>, s: &str| {
        out.extend((s.len() as u64).to_le_bytes());
        out.extend(s.as_bytes());
    };
    let mut pairs = vec![("general.architecture", architecture)];
    if encoding {
        pairs.push(("craftsman.bitnet.weight_encoding", "absmean_ternary"));
    }
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((pairs.len() as u64).to_le_bytes());
    for (key, value) in pairs {
        string(&mut out, key);
        out.extend(8u32.to_le_bytes());
        string(&mut out, value);
    }
    let mut offset = 0u64;
    for (name, dims, ty, data) in tensors {
        string(&mut out, name);
        out.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
        out.extend(ty.to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += (data.len() as u64).next_multiple_of(32);
    }
    for (.., data) in tensors {
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(data);
    }
    out
}

/// `n` weights in BITNET_T158 blocks with the scale 1, the last one padded with code 0.
fn t158(n: usize, trit: impl Fn(usize) -> i8) -> Vec<u8> {
    let mut out = vec![0; n.div_ceil(256) * 66];
    for i in 0..n {
        out[66 * (i / 256) + i % 256 / 4] |= ((trit(i) + 1) as u8) << (2 * (i % 4));
    }
    for block in out.chunks_exact_mut(66) {
        block[64..].copy_from_slice(&half::f16::ONE.to_le_bytes());
    }
    out
}

#[test]
fn craftsman_files_have_ids_and_dimensions_of_their_own() {
    let trit = |i: usize| (i * 7 % 3) as i8 - 1;
    let bytes = craftsman(
        "craftsman",
        true,
        &[
            ("dense", &[4, 6], 1, vec![0; 48]),
            ("brain", &[10, 7], 29, vec![0; 140]),
            ("rows", &[2, 512], 30, t158(1024, trit)),
            ("also-brain", &[100, 5], 30, vec![0; 1000]),
            ("flat", &[3, 100], 30, t158(300, trit)),
        ],
    );
    let file = GgufFile::from_bytes(Bytes::from(bytes.clone())).unwrap();
    assert!(file.is_craftsman());
    let found: Vec<_> = file.tensors().iter().map(|t| (t.name.as_str(), t.shape.as_slice(), t.ty)).collect();
    let expected: [(&str, &[usize], TensorType); 5] = [
        ("dense", &[4, 6], TensorType::F16),
        ("brain", &[10, 7], TensorType::Bf16),
        ("rows", &[2, 512], TensorType::BitnetT158),
        ("also-brain", &[100, 5], TensorType::Bf16),
        ("flat", &[3, 100], TensorType::BitnetT158Flat),
    ];
    assert_eq!(found, expected);
    for (index, n) in [(2, 1024), (4, 300)] {
        let mut out = vec![0.0; n];
        dequantize(file.tensors()[index].ty, &file.bytes(index).unwrap(), &mut out).unwrap();
        assert!(out.iter().enumerate().all(|(i, v)| *v == f32::from(trit(i))));
    }
    // The same tensors elsewhere: an id of the standard that we do not read.
    let standard = craftsman("llama", false, &[("brain", &[10, 7], 29, vec![0; 140])]);
    let error = GgufFile::from_bytes(Bytes::from(standard)).unwrap_err();
    assert!(matches!(error.root(), Error::Format(FormatError::RowNotBlocks { ty: TensorType::Iq1M, .. })), "{error}");
}

#[test]
fn the_span_decides_what_id_30_means() {
    let one = |architecture, encoding, dims: &[u64], bytes| {
        GgufFile::from_bytes(Bytes::from(craftsman(architecture, encoding, &[("w", dims, 30, vec![0; bytes])])))
    };
    let ty = |file: Result<GgufFile, Error>| {
        let file = file.unwrap();
        (file.tensors()[0].ty, file.tensors()[0].shape.clone(), file.is_craftsman())
    };
    // A standard file is BF16 with dimensions fastest first, with or without our metadata.
    assert_eq!(ty(one("deepseek2", false, &[256, 2], 1024)), (TensorType::Bf16, vec![2, 256], false));
    assert_eq!(ty(one("deepseek2", true, &[256, 2], 1024)), (TensorType::Bf16, vec![2, 256], false));
    // The metadata and the span together outweigh another architecture's name.
    assert_eq!(ty(one("deepseek2", true, &[2, 256], 132)), (TensorType::BitnetT158, vec![2, 256], true));
    assert_eq!(ty(one("craftsman", true, &[2, 256], 1024)), (TensorType::Bf16, vec![2, 256], true));
    assert_eq!(ty(one("craftsman", true, &[2, 256], 160)), (TensorType::BitnetT158, vec![2, 256], true));
    // 33 weights take 66 bytes either way; in a file of the standard they are BF16.
    let both = one("craftsman", true, &[33], 66).unwrap_err();
    assert!(
        matches!(both.root(), Error::Gguf(GgufError::AmbiguousType { id: 30, .. }))
            && both.to_string().contains("both"),
        "{both}"
    );
    assert_eq!(ty(one("deepseek2", true, &[33], 66)).0, TensorType::Bf16);
    let neither = one("craftsman", true, &[2, 256], 500).unwrap_err();
    assert!(neither.to_string().contains("neither") && neither.tensor() == Some("w"), "{neither}");
    let cut = one("craftsman", true, &[2, 256], 131).unwrap_err();
    assert!(matches!(cut.root(), Error::Source(SourceError::TruncatedData { need: 132, have: 131 })), "{cut}");
    let cut = one("deepseek2", false, &[256, 2], 132).unwrap_err();
    assert!(matches!(cut.root(), Error::Source(SourceError::TruncatedData { need: 1024, .. })), "{cut}");
}

#[test]
fn a_file_that_states_its_i2s_layout_is_read_so_whatever_the_opener_names() {
    let trits: Vec<i8> = (0..512).map(|i| (i * i / 3 % 3) as i8 - 1).collect();
    let write = |stated: Option<&str>, layout: I2sLayout, ty: TensorType, path: &Path| {
        let mut metadata = Metadata::default();
        stated.map(|value| metadata.insert("craftsman.bitnet.i2s_layout", value));
        let packed = layout.encode(&trits, 0.125).unwrap();
        GgufWriter::write_file(path, &metadata, &[(info("w", &[4, 128], ty), Bytes::from(packed))])
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    for (stated, layout, other, ty) in [
        ("x86", I2sLayout::X86, I2sLayout::Arm, TensorType::I2s),
        ("arm", I2sLayout::Arm, I2sLayout::X86, TensorType::I2sArm),
    ] {
        write(Some(stated), layout, ty, &path).unwrap();
        let file = GgufFile::open_with(&path, OpenOptions { i2s_layout: other }).unwrap();
        assert_eq!(file.tensors()[0].ty, ty, "{stated}");
    }
    for (stated, ty) in [(None, TensorType::I2sArm), (Some("x86"), TensorType::I2sArm), (Some("arm"), TensorType::I2s)]
    {
        let error = write(stated, I2sLayout::Arm, ty, &path).unwrap_err();
        assert!(matches!(error.root(), Error::Gguf(GgufError::I2sUnstated { .. })), "{stated:?} {ty}: {error}");
    }
    let error = write(Some("mips"), I2sLayout::X86, TensorType::I2s, &path).unwrap_err();
    assert!(matches!(error.root(), Error::Gguf(GgufError::I2sLayout { .. })), "{error}");
}

#[test]
fn i2s_layout_is_the_openers_choice_in_a_file_that_does_not_state_it() {
    let trits: Vec<i8> = (0..512).map(|i| (i * i / 3 % 3) as i8 - 1).collect();
    for (layout, ty) in [(I2sLayout::X86, TensorType::I2s), (I2sLayout::Arm, TensorType::I2sArm)] {
        let packed = layout.encode(&trits, 0.125).unwrap();
        let tensors = [(info("w", &[4, 128], TensorType::I2s), Bytes::from(packed))];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        GgufWriter::write_file(&path, &Metadata::default(), &tensors).unwrap();
        let file = GgufFile::open_with(&path, OpenOptions { i2s_layout: layout }).unwrap();
        assert_eq!((file.tensors()[0].ty, file.tensors()[0].shape.as_slice()), (ty, &[4, 128][..]));
        let mut out = vec![0.0; 512];
        dequantize(ty, &file.bytes(0).unwrap(), &mut out).unwrap();
        assert!(out.iter().zip(&trits).all(|(v, t)| *v == f32::from(*t) * 0.125));
    }
}
