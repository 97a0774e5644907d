//! Conversions between ternary types: every pair there and back to equal bytes, or refused with the reason.

use std::path::{Path, PathBuf};

use gguf_bitnet::{
    Error, FormatError, GgufFile, GgufWriter, Metadata, ModelError, TensorInfo, TensorSource, TensorType, TritGroup,
    Trits, Value, convert,
};
use ternary_core::Bytes;

const TYPES: [TensorType; 8] = [
    TensorType::I2s,
    TensorType::I2sArm,
    TensorType::Tq1_0,
    TensorType::Tq2_0,
    TensorType::Q2_0,
    TensorType::Q2_0G128,
    TensorType::Iq2Bn,
    TensorType::BitnetT158,
];

/// A model by the properties that decide which types hold it.
#[derive(Clone, Copy, Debug)]
struct Model {
    cols: usize,
    /// Weights that share a scale; 0 where all of a tensor do.
    group: usize,
    /// The scale of the first group of a tensor.
    scale: f32,
}

const MODELS: [(&str, Model); 5] = [
    ("one scale, wide", Model { cols: 512, group: 0, scale: 0.375 }),
    ("one scale that is no F16", Model { cols: 512, group: 0, scale: 1.0 / 3.0 }),
    ("rows of 192", Model { cols: 192, group: 0, scale: 0.375 }),
    ("a scale per row of 640", Model { cols: 640, group: 640, scale: 0.375 }),
    ("a scale per 256", Model { cols: 512, group: 256, scale: 0.375 }),
];

impl Model {
    /// Whether the type can hold it, by the table of the formats.
    fn fits(self, ty: TensorType) -> bool {
        let (per_scale, is_f16) = match ty {
            TensorType::I2s | TensorType::I2sArm => return self.group == 0,
            TensorType::Iq2Bn => (self.cols, false),
            TensorType::Q2_0 => (64, true),
            TensorType::Q2_0G128 => (128, true),
            _ => (256, true),
        };
        let exact = !is_f16 || self.scale == 0.375;
        exact && self.cols.is_multiple_of(per_scale) && (self.group == 0 || self.group >= per_scale)
    }

    fn write(self, ty: TensorType, path: &Path) {
        let mut metadata = Metadata::default();
        metadata.insert("general.architecture", "bitnet-b1.58");
        metadata.insert("general.file_type", Value::U32(ty.file_type().unwrap_or(1024)));
        if ty == TensorType::I2sArm {
            metadata.insert("craftsman.bitnet.i2s_layout", "arm");
        }
        let norm: Vec<u8> = (0..self.cols).flat_map(|i| (1.0 + i as f32 / 64.0).to_le_bytes()).collect();
        let info = |name: &str, shape: &[usize], ty: TensorType| TensorInfo {
            name: name.into(),
            shape: shape.to_vec(),
            ty,
            bytes: ty.tensor_bytes(shape).unwrap(),
        };
        let mut tensors = vec![(info("norm.weight", &[self.cols], TensorType::F32), Bytes::from(norm))];
        for (number, rows) in [24, 32].into_iter().enumerate() {
            let n = rows * self.cols;
            let trits = (0..n).map(|i| ((i * i + i / 5 * number + i / 31) % 3) as i8 - 1).collect();
            let groups = n.checked_div(self.group).unwrap_or(1);
            let scales = (0..groups).map(|i| self.scale * (1 + i % 3) as f32).collect();
            let bytes = Trits::new(self.cols, trits, scales).write(ty).unwrap();
            tensors.push((info(&format!("blk.{number}.weight"), &[rows, self.cols], ty), Bytes::from(bytes)));
        }
        GgufWriter::write_file(path, &metadata, &tensors).unwrap();
    }
}

/// A file opened without options: it states the layout of its trits.
fn open(path: &Path) -> GgufFile {
    GgufFile::open(path).unwrap()
}

fn refusal(source: &GgufFile, ty: TensorType, out: &Path) -> String {
    let error = convert(source, ty, out, &mut |_, _| {}).unwrap_err();
    assert!(!out.exists(), "{error}");
    error.to_string()
}

#[test]
fn every_pair_comes_back_to_equal_bytes_or_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut converted, mut refused) = (0, 0);
    for (name, model) in MODELS {
        for from in TYPES.into_iter().filter(|ty| model.fits(*ty)) {
            let first = dir.path().join("first.gguf");
            model.write(from, &first);
            let source = open(&first);
            for to in TYPES {
                let what = format!("{name}: {from} to {to}");
                let (there, back) = (dir.path().join("there.gguf"), dir.path().join("back.gguf"));
                if !model.fits(to) {
                    let text = refusal(&source, to, &there);
                    let reasons = ["no multiple of", "where", "is no F16 number"];
                    assert!(
                        reasons.iter().any(|reason| text.contains(reason)) && text.contains("blk.0"),
                        "{what}: {text}"
                    );
                    refused += 1;
                    continue;
                }
                let report = convert(&source, to, &there, &mut |_, _| {}).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!((report.tensors, report.weights), (2, 56 * model.cols as u64), "{what}");
                let middle = open(&there);
                assert_eq!(
                    middle.tensors().iter().map(|t| t.ty).collect::<Vec<_>>(),
                    [TensorType::F32, to, to],
                    "{what}"
                );
                convert(&middle, from, &back, &mut |_, _| {}).unwrap_or_else(|e| panic!("{what} and back: {e}"));
                assert!(std::fs::read(&first).unwrap() == std::fs::read(&back).unwrap(), "{what} and back");
                converted += 1;
                [there, back].iter().for_each(|path| std::fs::remove_file(path).unwrap());
            }
        }
    }
    assert!(converted > 120 && refused > 50, "{converted} pairs converted, {refused} refused");
}

#[test]
fn the_groups_of_types_are_those_of_the_table() {
    for ty in TYPES {
        let expected = match ty {
            TensorType::I2s | TensorType::I2sArm => TritGroup::Tensor,
            TensorType::Iq2Bn => TritGroup::Row,
            TensorType::Q2_0 => TritGroup::Block(64),
            TensorType::Q2_0G128 => TritGroup::Block(128),
            _ => TritGroup::Block(256),
        };
        assert_eq!(ty.trit_group(), Some(expected), "{ty}");
    }
    assert_eq!((TensorType::Q8_0.trit_group(), TensorType::BitnetT158Flat.trit_group()), (None, None));
}

/// A file of 64-weight blocks with one changed byte.
fn poked(dir: &Path, at_end: usize, byte: u8) -> PathBuf {
    let path = dir.join("poked.gguf");
    Model { cols: 192, group: 0, scale: 0.375 }.write(TensorType::Q2_0, &path);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - at_end;
    bytes[at] = byte;
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn the_weight_two_is_refused_and_read_as_two() {
    let dir = tempfile::tempdir().unwrap();
    let file = open(&poked(dir.path(), 1, 0xff));
    let error = convert(&file, TensorType::I2s, &dir.path().join("out.gguf"), &mut |_, _| {}).unwrap_err();
    assert!(matches!(error.root(), Error::Format(FormatError::NotATrit { at: 6140, .. })), "{error}");
    assert!(error.to_string().contains("blk.1.weight") && error.to_string().contains("not ternary"), "{error}");
    let info = &file.tensors()[2];
    let mut values = vec![0.0; info.elements()];
    gguf_bitnet::dequantize(info.ty, &file.bytes(2).unwrap(), &mut values).unwrap();
    assert_eq!(values[6140..], [0.75; 4]);
}

#[test]
fn models_without_trits_and_an_output_over_the_source_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dense = dir.path().join("dense.gguf");
    let info = TensorInfo { name: "w".into(), shape: vec![9], ty: TensorType::F32, bytes: 36 };
    GgufWriter::write_file(&dense, &Metadata::default(), &[(info, Bytes::from(vec![1; 36]))]).unwrap();
    let text = refusal(&open(&dense), TensorType::Tq2_0, &dir.path().join("out.gguf"));
    assert!(text.contains("no tensor of trits"), "{text}");
    let path = poked(dir.path(), 1, 0x55);
    let whole = std::fs::read(&path).unwrap();
    let error = convert(&open(&path), TensorType::I2s, &path, &mut |_, _| {}).unwrap_err();
    assert!(matches!(error.root(), Error::Model(ModelError::OutputIsSource)), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), whole);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file stays");
}
