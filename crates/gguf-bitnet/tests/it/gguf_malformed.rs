//! Files with one defect each: every defect has its own error, which names its tensor, and no file makes the reader
//! panic.

use std::ops::Range;

use gguf_bitnet::{Error, FormatError, GgufError, GgufFile, SourceError, TensorSource};
use proptest::prelude::*;
use ternary_core::Bytes;

/// One key-value pair: the bytes of the key, the type id, the bytes of the value.
type Pair = (Vec<u8>, u32, Vec<u8>);

/// A tensor info as the file stores it.
#[derive(Clone)]
struct Info {
    name: Vec<u8>,
    n_dims: u32,
    dims: Vec<u64>,
    ty: u32,
    offset: u64,
}

fn info(name: &str, dims: &[u64], ty: u32, offset: u64) -> Info {
    Info { name: name.into(), n_dims: dims.len() as u32, dims: dims.to_vec(), ty, offset }
}

/// The parts of a file, any of which a test can damage.
#[derive(Clone)]
struct Raw {
    magic: [u8; 4],
    version: u32,
    n_tensors: Option<u64>,
    n_pairs: Option<u64>,
    pairs: Vec<Pair>,
    infos: Vec<Info>,
    alignment: usize,
    data: Vec<u8>,
}

impl Raw {
    /// A valid file: two F32 tensors of 16 elements, a string and a number.
    fn valid() -> Raw {
        Raw {
            magic: *b"GGUF",
            version: 3,
            n_tensors: None,
            n_pairs: None,
            pairs: vec![
                (b"general.architecture".to_vec(), 8, string("test")),
                (b"test.block_count".to_vec(), 4, 2u32.to_le_bytes().to_vec()),
            ],
            infos: vec![info("a", &[8, 2], 0, 0), info("b", &[16], 0, 64)],
            alignment: 32,
            data: vec![0; 128],
        }
    }

    fn header(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.n_tensors.unwrap_or(self.infos.len() as u64).to_le_bytes());
        out.extend(self.n_pairs.unwrap_or(self.pairs.len() as u64).to_le_bytes());
        for (key, ty, value) in &self.pairs {
            out.extend((key.len() as u64).to_le_bytes());
            out.extend(key);
            out.extend(ty.to_le_bytes());
            out.extend(value);
        }
        for info in &self.infos {
            out.extend((info.name.len() as u64).to_le_bytes());
            out.extend(&info.name);
            out.extend(info.n_dims.to_le_bytes());
            info.dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(info.ty.to_le_bytes());
            out.extend(info.offset.to_le_bytes());
        }
        out
    }

    fn build(&self) -> Vec<u8> {
        let mut out = self.header();
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(&self.data);
        out
    }
}

fn string(s: &str) -> Vec<u8> {
    let mut out = (s.len() as u64).to_le_bytes().to_vec();
    out.extend(s.as_bytes());
    out
}

/// An array value: element type, length, bytes of the elements.
fn array(ty: u32, len: u64, elements: &[u8]) -> Vec<u8> {
    let mut out = ty.to_le_bytes().to_vec();
    out.extend(len.to_le_bytes());
    out.extend(elements);
    out
}

fn pair(key: &str, ty: u32, value: Vec<u8>) -> Pair {
    (key.into(), ty, value)
}

fn with(change: impl FnOnce(&mut Raw)) -> Vec<u8> {
    let mut raw = Raw::valid();
    change(&mut raw);
    raw.build()
}

fn with_pair(key: &str, ty: u32, value: Vec<u8>) -> Vec<u8> {
    with(|raw| raw.pairs.push(pair(key, ty, value)))
}

/// A valid file whose second tensor is changed.
fn with_b(change: impl FnOnce(&mut Info)) -> Vec<u8> {
    with(|raw| change(&mut raw.infos[1]))
}

fn open(bytes: Vec<u8>) -> Result<GgufFile, Error> {
    GgufFile::from_bytes(Bytes::from(bytes))
}

/// The defect in words, the file, the tensor that the error names, and the error.
type Case = (&'static str, Vec<u8>, Option<&'static str>, fn(&Error) -> bool);

macro_rules! case {
    ($what:literal, $file:expr, $tensor:expr, $pattern:pat) => {
        ($what, $file, $tensor, (|e| matches!(e, $pattern)) as fn(&Error) -> bool)
    };
}

fn header_cases() -> Vec<Case> {
    let huge = 1u64 << 40;
    vec![
        case!("no bytes", vec![], None, Error::Source(SourceError::EmptyFile)),
        case!("bad magic", with(|r| r.magic = *b"GGML"), None, Error::Gguf(GgufError::BadMagic { .. })),
        case!("text", b"{\"a\": 1}".to_vec(), None, Error::Gguf(GgufError::BadMagic { .. })),
        case!("swapped magic", with(|r| r.magic = *b"FUGG"), None, Error::Gguf(GgufError::BigEndian)),
        case!("big-endian version", with(|r| r.version = 3u32.swap_bytes()), None, Error::Gguf(GgufError::BigEndian)),
        case!("version 0", with(|r| r.version = 0), None, Error::Gguf(GgufError::UnsupportedVersion { version: 0 })),
        case!("version 1", with(|r| r.version = 1), None, Error::Gguf(GgufError::UnsupportedVersion { version: 1 })),
        case!(
            "future version",
            with(|r| r.version = 4),
            None,
            Error::Gguf(GgufError::UnsupportedVersion { version: 4 })
        ),
        case!(
            "negative tensors",
            with(|r| r.n_tensors = Some(u64::MAX)),
            None,
            Error::Gguf(GgufError::CountTooLarge { .. })
        ),
        case!("huge tensors", with(|r| r.n_tensors = Some(huge)), None, Error::Gguf(GgufError::CountTooLarge { .. })),
        case!(
            "negative pairs",
            with(|r| r.n_pairs = Some(u64::MAX)),
            None,
            Error::Gguf(GgufError::CountTooLarge { .. })
        ),
        case!("huge pairs", with(|r| r.n_pairs = Some(huge)), None, Error::Gguf(GgufError::CountTooLarge { .. })),
        case!(
            "cut counts",
            Raw::valid().header()[..20].to_vec(),
            None,
            Error::Source(SourceError::TruncatedHeader { need: 8, have: 4, .. })
        ),
        case!("cut pairs", Raw::valid().header()[..100].to_vec(), None, Error::Gguf(GgufError::CountTooLarge { .. })),
        case!(
            "cut infos",
            cut_infos(),
            Some("b"),
            Error::Source(SourceError::TruncatedHeader { what: "a tensor offset", .. })
        ),
        case!("empty key", with_pair("", 4, vec![0; 4]), None, Error::Gguf(GgufError::EmptyKey)),
        case!(
            "duplicate key",
            with_pair("test.block_count", 4, vec![0; 4]),
            None,
            Error::Gguf(GgufError::DuplicateKey { .. })
        ),
        case!(
            "key no UTF-8",
            with(|r| r.pairs.push((vec![0xff, 0xfe], 4, vec![0; 4]))),
            None,
            Error::Gguf(GgufError::NotUtf8 { what: "a metadata key", .. })
        ),
        case!("string no UTF-8", with_pair("k", 8, no_utf8()), None, Error::Gguf(GgufError::NotUtf8 { .. })),
        case!(
            "unknown value type",
            with_pair("k", 13, vec![0; 64]),
            None,
            Error::Gguf(GgufError::UnknownValueType { id: 13, .. })
        ),
        case!(
            "unknown element type",
            with_pair("k", 9, array(99, 1, &[0; 64])),
            None,
            Error::Gguf(GgufError::UnknownValueType { .. })
        ),
        case!(
            "nested array",
            with_pair("k", 9, array(9, 1, &array(0, 1, &[0]))),
            None,
            Error::Gguf(GgufError::NestedArray { .. })
        ),
        case!("bool 2", with_pair("k", 7, vec![2]), None, Error::Gguf(GgufError::InvalidBool { got: 2, .. })),
        case!(
            "bool 2 in array",
            with_pair("k", 9, array(7, 2, &[1, 2])),
            None,
            Error::Gguf(GgufError::InvalidBool { .. })
        ),
        case!(
            "string too long",
            with_pair("k", 8, huge.to_le_bytes().to_vec()),
            None,
            Error::Gguf(GgufError::StringTooLong { .. })
        ),
        case!(
            "array too long",
            with_pair("k", 9, array(12, u64::MAX, &[])),
            None,
            Error::Gguf(GgufError::CountTooLarge { .. })
        ),
        case!(
            "string array too long",
            with_pair("k", 9, array(8, huge, &[])),
            None,
            Error::Gguf(GgufError::CountTooLarge { .. })
        ),
        case!("alignment 0", alignment(4, 0), None, Error::Gguf(GgufError::BadAlignment { alignment: 0 })),
        case!("alignment 48", alignment(4, 48), None, Error::Gguf(GgufError::BadAlignment { alignment: 48 })),
        case!("alignment as u64", alignment(10, 32), None, Error::Gguf(GgufError::AlignmentType { got: "u64" })),
        case!("alignment as i32", alignment(5, 32), None, Error::Gguf(GgufError::AlignmentType { got: "i32" })),
        case!(
            "part of a split set",
            with(|r| {
                r.pairs.push(pair("split.no", 2, vec![0, 0]));
                r.pairs.push(pair("split.count", 2, vec![3, 0]));
            }),
            None,
            Error::Gguf(GgufError::SplitNeedsPath { count: 3 })
        ),
    ]
}

/// A string value of two bytes that are no UTF-8.
fn no_utf8() -> Vec<u8> {
    let mut out = 2u64.to_le_bytes().to_vec();
    out.extend([0xff, 0xff]);
    out
}

/// A file that ends inside the last tensor info.
fn cut_infos() -> Vec<u8> {
    let mut header = Raw::valid().header();
    header.pop();
    header
}

fn alignment(ty: u32, value: u64) -> Vec<u8> {
    let bytes = if ty == 10 { value.to_le_bytes().to_vec() } else { (value as u32).to_le_bytes().to_vec() };
    with_pair("general.alignment", ty, bytes)
}

fn tensor_cases() -> Vec<Case> {
    let b = Some("b");
    let dims = |range: Range<u64>| range.map(|_| 2).collect::<Vec<u64>>();
    vec![
        case!("empty name", with_b(|i| i.name.clear()), None, Error::Gguf(GgufError::EmptyTensorName)),
        case!("name no UTF-8", with_b(|i| i.name = vec![0xc0]), None, Error::Gguf(GgufError::NotUtf8 { .. })),
        case!(
            "duplicate name",
            with_b(|i| i.name = b"a".to_vec()),
            Some("a"),
            Error::Source(SourceError::DuplicateTensor)
        ),
        case!(
            "no dimensions",
            with_b(|i| *i = info("b", &[], 0, 64)),
            b,
            Error::Gguf(GgufError::DimensionCount { n: 0 })
        ),
        case!(
            "five dimensions",
            with_b(|i| *i = info("b", &dims(0..5), 0, 64)),
            b,
            Error::Gguf(GgufError::DimensionCount { n: 5 })
        ),
        case!(
            "huge dimension count",
            with_b(|i| i.n_dims = u32::MAX),
            b,
            Error::Gguf(GgufError::DimensionCount { .. })
        ),
        case!("zero dimension", with_b(|i| i.dims = vec![0]), b, Error::Source(SourceError::ZeroDimension { dim: 0 })),
        case!(
            "shape overflows",
            with_b(|i| *i = info("b", &[1 << 32, 1 << 32], 0, 64)),
            b,
            Error::Format(FormatError::ShapeOverflow { .. })
        ),
        case!(
            "bytes overflow",
            with_b(|i| *i = info("b", &[1 << 62], 28, 64)),
            b,
            Error::Format(FormatError::ShapeOverflow { .. })
        ),
        case!(
            "negative dimension",
            with_b(|i| i.dims = vec![u64::MAX]),
            b,
            Error::Format(FormatError::ShapeOverflow { .. })
        ),
        case!("unknown type", with_b(|i| i.ty = 1000), b, Error::Format(FormatError::UnknownType { id: 1000 })),
        case!("id of another fork", with_b(|i| i.ty = 38), b, Error::Format(FormatError::UnknownType { id: 38 })),
        case!(
            "unsupported type",
            with_b(|i| i.ty = 40),
            b,
            Error::Format(FormatError::UnsupportedType { id: 40, name: "NVFP4", .. })
        ),
        case!(
            "IQ1_M, not BF16",
            with_b(|i| i.ty = 29),
            b,
            Error::Format(FormatError::RowNotBlocks { cols: 16, block: 256, .. })
        ),
        case!(
            "row no block multiple",
            with_b(|i| i.ty = 35),
            b,
            Error::Format(FormatError::RowNotBlocks { cols: 16, block: 256, .. })
        ),
        case!("row no group multiple", with_b(|i| i.ty = 36), b, Error::Format(FormatError::NotGroups { .. })),
        case!("misaligned", with_b(|i| i.offset = 60), b, Error::Gguf(GgufError::MisalignedOffset { offset: 60, .. })),
        case!("overlap", with_b(|i| i.offset = 32), Some("a"), Error::Source(SourceError::Overlap { .. })),
        case!("same place", with_b(|i| i.offset = 0), Some("a"), Error::Source(SourceError::Overlap { .. })),
        case!("past the end", with_b(|i| i.offset = 128), b, Error::Source(SourceError::OffsetPastEnd { .. })),
        case!(
            "far past the end",
            with_b(|i| i.offset = u64::MAX - 31),
            b,
            Error::Source(SourceError::OffsetPastEnd { .. })
        ),
        case!(
            "cut data",
            with(|r| r.data.truncate(127)),
            b,
            Error::Source(SourceError::TruncatedData { need: 64, have: 63 })
        ),
        case!(
            "too long for the data",
            with_b(|i| i.dims = vec![17]),
            b,
            Error::Source(SourceError::TruncatedData { .. })
        ),
        case!("no data at all", Raw::valid().header(), Some("a"), Error::Source(SourceError::OffsetPastEnd { .. })),
    ]
}

#[test]
fn the_valid_file_is_valid_in_both_versions() {
    for version in [2, 3] {
        let file = open(with(|r| r.version = version)).unwrap();
        assert_eq!((file.version(), file.tensors().len()), (version, 2));
        assert_eq!(file.tensors()[0].shape, [2, 8]);
        assert_eq!(file.metadata().u32("test.block_count").unwrap(), Some(2));
    }
    let file = open(with(|r| {
        r.pairs.push(pair("general.alignment", 4, 64u32.to_le_bytes().to_vec()));
        r.alignment = 64;
    }));
    assert_eq!(file.unwrap().alignment(), 64);
}

#[test]
fn every_defect_has_its_error() {
    for (what, bytes, tensor, is_expected) in header_cases().into_iter().chain(tensor_cases()) {
        let error = open(bytes).err().unwrap_or_else(|| panic!("{what}: accepted"));
        assert!(is_expected(error.root()), "{what}: {error:?}");
        assert_eq!(error.tensor(), tensor, "{what}: {error}");
        let text = error.to_string();
        assert!(text.len() > 20 && !text.contains('\n'), "{what}: {text}");
        assert!(tensor.is_none_or(|t| text.contains(&format!("`{t}`"))), "{what}: {text}");
    }
}

#[test]
fn the_error_of_a_file_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broken.gguf");
    for (what, bytes, ..) in header_cases().into_iter().chain(tensor_cases()) {
        std::fs::write(&path, bytes).unwrap();
        let Err(error) = GgufFile::open(&path) else { panic!("{what}: accepted") };
        assert!(error.to_string().contains("broken.gguf"), "{what}: {error}");
    }
}

#[test]
fn a_file_cut_at_any_byte_is_refused() {
    let mut raw = Raw::valid();
    raw.pairs.push(pair("k", 9, array(8, 2, &[string("x"), string("yz")].concat())));
    raw.pairs.push(pair("l", 9, array(4, 3, &[0; 12])));
    let whole = raw.build();
    open(whole.clone()).unwrap();
    for len in 0..whole.len() {
        assert!(open(whole[..len].to_vec()).is_err(), "cut to {len} of {} bytes", whole.len());
    }
}

/// Reads every tensor of a file, so that a bad span would be touched.
fn touch(bytes: Vec<u8>) {
    if let Ok(file) = open(bytes) {
        for (i, info) in file.tensors().iter().enumerate() {
            let data = file.bytes(i).unwrap();
            assert_eq!(data.len() as u64, info.bytes);
            let mut out = vec![0.0; info.elements()];
            // Random codes may be invalid; that is an error, never a panic.
            let _ = gguf_bitnet::dequantize(info.ty, &data, &mut out);
        }
    }
}

#[test]
fn every_single_byte_may_be_anything() {
    let valid = Raw::valid().build();
    for at in 0..valid.len() {
        for value in [0, 1, 2, 30, 35, 36, 0x7f, 0x80, 0xff] {
            let mut bytes = valid.clone();
            bytes[at] = value;
            touch(bytes);
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        touch(bytes);
    }

    #[test]
    fn arbitrary_bytes_behind_a_good_start_never_panic(
        n_tensors in 0u64..4,
        n_pairs in 0u64..4,
        rest in proptest::collection::vec(prop_oneof![Just(0u8), 0u8..40, any::<u8>()], 0..300),
    ) {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(n_tensors.to_le_bytes());
        bytes.extend(n_pairs.to_le_bytes());
        bytes.extend(rest);
        touch(bytes);
    }

    #[test]
    fn damaged_files_never_panic(damage in proptest::collection::vec((0usize..400, any::<u8>()), 1..8)) {
        let mut bytes = Raw::valid().build();
        let len = bytes.len();
        for (at, value) in damage {
            bytes[at % len] = value;
        }
        touch(bytes);
    }
}

/// A sparse file of 64 GiB takes no disk space, so a count that fits its length must still be refused when it exceeds
/// the limits.
#[test]
fn a_header_beyond_all_measure_is_refused_before_it_takes_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sparse.gguf");
    let open_sparse = |raw: &Raw| {
        std::fs::write(&path, raw.header()).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(1 << 36).unwrap();
        GgufFile::open(&path).unwrap_err()
    };
    for (ty, len) in [(8, 1u64 << 32), (12, 1 << 32), (7, 1 << 35), (0, 100_000_000)] {
        let mut raw = Raw::valid();
        raw.pairs.push(pair("k", 9, array(ty, len, &[])));
        let error = open_sparse(&raw);
        assert!(matches!(error.root(), Error::Gguf(GgufError::HeaderTooLong { limit: 100_000_000 })), "{ty}: {error}");
    }
    let mut raw = Raw::valid();
    raw.pairs.push(pair("k", 8, (1u64 << 34).to_le_bytes().to_vec()));
    assert!(matches!(open_sparse(&raw).root(), Error::Gguf(GgufError::HeaderTooLong { .. })));
    for change in [|raw: &mut Raw| raw.n_pairs = Some((1 << 20) + 1), |raw: &mut Raw| raw.n_tensors = Some(1 << 30)] {
        let mut raw = Raw::valid();
        change(&mut raw);
        let error = open_sparse(&raw);
        assert!(matches!(error.root(), Error::Gguf(GgufError::CountTooLarge { max: 0x10_0000, .. })), "{error}");
    }
}

/// Names come from the file, so their control characters must not break the line of a message or reach the terminal.
#[test]
fn hostile_names_are_shown_escaped_and_short() {
    let long = "x".repeat(1_000_000);
    for name in ["a\nb", "a\u{1b}[2Jb", long.as_str()] {
        for file in [with_b(|i| (i.name, i.ty) = (name.into(), 39)), with_pair(name, 13, vec![0; 64])] {
            let text = open(file).unwrap_err().to_string();
            assert!(text.len() < 400 && !text.contains(char::is_control), "{text:?}");
        }
    }
}
