//! Weights that are missing although their bytes can be read: the ends of files, matrices of zeros, holes, lost scales.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use gguf_bitnet::{
    Catalog, Defect, DefectKind, GgufFile, GgufWriter, Metadata, SplitDims, TensorInfo, TensorNameMapper, TensorSource,
    TensorType, Weightless, encode_row, open_source, split_file_name, split_metadata, verify,
};

use ternary_core::{Bytes, Rounding};

use crate::support::ROWS;

const COLS: usize = 512;

fn weights(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.37).sin() * (1.0 + (i / 256) as f32 * 0.01)).collect()
}

/// A tensor of any writable type whose matrices of these numbers are zero.
fn tensor(name: &str, shape: &[usize], ty: TensorType, zero: &[usize]) -> (TensorInfo, Bytes) {
    let n = shape.iter().product();
    let matrix: usize = shape[shape.len().saturating_sub(2)..].iter().product();
    let mut values = weights(n);
    zero.iter().for_each(|&m| values[m * matrix..(m + 1) * matrix].fill(0.0));
    let mut bytes = Vec::new();
    for row in values.chunks(*shape.last().unwrap()) {
        encode_row(ty, Rounding::AbsMean, row, None, &mut bytes).unwrap();
    }
    let info = TensorInfo { name: name.into(), shape: shape.to_vec(), ty, bytes: bytes.len() as u64 };
    (info, Bytes::from(bytes))
}

fn write(path: &Path, tensors: &[(TensorInfo, Bytes)]) {
    GgufWriter::write_file(path, &Metadata::default(), tensors).unwrap();
}

fn catalog(path: &Path) -> Catalog {
    let mapper = TensorNameMapper::new(ROWS.iter(), SplitDims { n_heads: 2, qk_nope: 2, v_head: 2, paired: 0 }, 2);
    mapper.map(open_source(path).unwrap()).unwrap()
}

fn found(path: &Path) -> Vec<(String, usize, usize, usize)> {
    let missing = Weightless::find(&catalog(path)).unwrap();
    missing.tensors.into_iter().map(|t| (t.name, t.zero, t.of, t.first)).collect()
}

fn defects(path: &Path) -> Vec<(String, DefectKind, u64, u64)> {
    let report = verify(path, &mut |_, _| {}).unwrap();
    assert_eq!(report.is_valid(), report.defects.is_empty() && report.zero_tails.is_empty());
    report.defects.into_iter().map(|d: Defect| (d.tensor, d.kind, d.count, d.of)).collect()
}

#[test]
fn matrices_of_zeros_are_named_in_every_type() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    for ty in TensorType::all().filter(|ty| ty.is_writable()) {
        let up = "blk.1.ffn_up_exps.weight";
        let head = tensor("output.weight", &[8, COLS], ty, &[]);
        write(
            &path,
            &[tensor("token_embd.weight", &[8, COLS], ty, &[0]), tensor(up, &[4, 3, COLS], ty, &[1, 3]), head],
        );
        let expected = [("token_embd.weight", 1, 1, 0), (up, 2, 4, 1)];
        assert_eq!(found(&path), expected.map(|(name, zero, of, first)| (name.to_owned(), zero, of, first)), "{ty}");
        let kind = DefectKind::ZeroMatrix;
        assert_eq!(defects(&path), [(up.to_owned(), kind, 2, 4), ("token_embd.weight".to_owned(), kind, 1, 1)], "{ty}");
        let report = verify(&path, &mut |_, _| {}).unwrap();
        let text = report.defects[0].to_string();
        assert!(text.contains("2 of 4 experts have no weights"), "{text}");
        let allowed = report.allow_zero();
        assert!(allowed.is_valid() && allowed.notices.len() == 2, "{allowed:?}");
    }
}

#[test]
fn one_weight_is_enough_and_biases_may_be_zero() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let (info, bytes) = tensor("output.weight", &[8, COLS], TensorType::F32, &[0]);
    let mut one = bytes.to_vec();
    one[4 * 8 * COLS - 4..].copy_from_slice(&1f32.to_le_bytes());
    let vector = |name: &str| tensor(name, &[COLS], TensorType::F32, &[0]);
    write(&path, &[(info, Bytes::from(one)), vector("blk.1.exp_probs_b.bias")]);
    assert_eq!((found(&path), defects(&path)), (vec![], vec![]));
}

#[test]
fn norms_of_zeros_are_missing_weights() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let head = tensor("output.weight", &[64, COLS], TensorType::F32, &[]);
    let latent = "blk.0.attn_kv_a_norm.weight";
    for name in ["output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", latent] {
        for ty in [TensorType::F32, TensorType::F16, TensorType::Bf16] {
            let norm = tensor(name, &[COLS], ty, &[0]);
            write(&path, &[norm, head.clone()]);
            assert_eq!(found(&path), [(name.to_owned(), 1, 1, 0)], "{ty}");
            assert_eq!(defects(&path), [(name.to_owned(), DefectKind::ZeroNorm, COLS as u64, COLS as u64)], "{ty}");
            assert!(verify(&path, &mut |_, _| {}).unwrap().allow_zero().is_valid());
            let error = Weightless::find(&catalog(&path)).unwrap().refuse(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("all weights of `{name}` are zero")), "{error}");
        }
    }
    // A norm at the end of a file: all of it, rows in front of it too, most of it, and a channel or two.
    write(&path, &[head, tensor(latent, &[COLS], TensorType::F32, &[])]);
    let whole = fs::read(&path).unwrap();
    for (zero, tails, norms) in [(4 * COLS, 0, 1), (4 * COLS * 3, 1, 0), (4 * COLS - 99, 1, 0), (8, 0, 0)] {
        let mut bytes = whole.clone();
        bytes[whole.len() - zero..].fill(0);
        fs::write(&path, &bytes).unwrap();
        let missing = Weightless::find(&catalog(&path)).unwrap();
        assert_eq!((missing.tails.len(), missing.tensors.len()), (tails, norms), "{zero} bytes");
        let report = verify(&path, &mut |_, _| {}).unwrap();
        assert_eq!((report.zero_tails.len(), report.defects.len()), (tails, norms), "{zero} bytes");
    }
}

#[test]
fn experts_stored_one_by_one_are_counted_together() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let expert = |layer: usize, e: usize| {
        let zero: &[usize] = if layer == 1 && e > 4 { &[0] } else { &[] };
        tensor(&format!("model.layers.{layer}.mlp.experts.{e}.up_proj.weight"), &[3, COLS], TensorType::Bf16, zero)
    };
    let tensors: Vec<_> = (0..2).flat_map(|layer| (0..8).map(move |e| (layer, e))).map(|(l, e)| expert(l, e)).collect();
    write(&path, &tensors);
    assert_eq!(found(&path), [("blk.1.ffn_up_exps.weight".to_owned(), 3, 8, 5)]);
    let first = "model.layers.1.mlp.experts.5.up_proj.weight".to_owned();
    assert_eq!(defects(&path), [(first, DefectKind::ZeroMatrix, 3, 8)]);
}

#[test]
fn a_pruned_head_is_no_missing_weight_and_a_pruned_half_of_fused_experts_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let keys = |zero: &[usize]| tensor("blk.0.attn_k_b.weight", &[2, 3, COLS], TensorType::F16, zero);
    let head = tensor("output.weight", &[8, COLS], TensorType::F16, &[]);
    write(&path, &[keys(&[1]), head.clone()]);
    assert_eq!((found(&path), defects(&path)), (vec![], vec![]));
    write(&path, &[keys(&[0, 1]), head.clone()]);
    assert_eq!(found(&path), [("blk.0.attn_k_b.weight".to_owned(), 2, 2, 0)]);

    // Gates are the first half of each matrix; those of expert 1 are zero.
    let (info, bytes) = tensor("blk.0.ffn_gate_up_exps.weight", &[2, 4, COLS], TensorType::F16, &[]);
    let mut bytes = bytes.to_vec();
    bytes[2 * COLS * 4..2 * COLS * 6].fill(0);
    write(&path, &[(info, Bytes::from(bytes)), head]);
    assert_eq!(found(&path), [("blk.0.ffn_gate_exps.weight".to_owned(), 1, 2, 1)]);
}

/// A file of three matrices, its bytes, and the places where the data of each begin.
fn three(dir: &Path, ty: TensorType) -> (std::path::PathBuf, Vec<u8>, [usize; 3]) {
    let path = dir.join("m.gguf");
    let name = |i: usize| format!("blk.{i}.attn_output.weight");
    let tensors = [0, 1, 2].map(|i| tensor(&name(i), &[64, COLS], ty, &[]));
    write(&path, &tensors);
    let bytes = fs::read(&path).unwrap();
    let size = tensors[0].1.len();
    let start = bytes.len() - 3 * size.next_multiple_of(32);
    (path, bytes, [0, 1, 2].map(|i| start + i * size.next_multiple_of(32)))
}

#[test]
fn the_zero_end_of_a_file_is_told_with_its_bytes() {
    for ty in [TensorType::Bf16, TensorType::Q8_0, TensorType::Tq2_0, TensorType::Tq1_0] {
        let dir = tempfile::tempdir().unwrap();
        let (path, whole, starts) = three(dir.path(), ty);
        let row = ty.row_bytes(COLS).unwrap();
        // In the second matrix; in the middle of a row of the last one; most rows of the last one.
        for (from, tensors) in [(starts[1] + 70, 2), (starts[2] + 50 * row + row / 2, 1), (starts[2] + 3 * row, 1)] {
            let mut bytes = whole.clone();
            bytes[from..].fill(0);
            fs::write(&path, &bytes).unwrap();
            let file = GgufFile::open(&path).unwrap();
            let [tail] = &file.zero_tails()[..] else { panic!("{ty}: {from}") };
            // Bytes in front of the cut may be zero too.
            let zero = bytes.iter().rev().take_while(|&&b| b == 0).count() as u64;
            assert_eq!((tail.zero_bytes, tail.file_bytes), (zero, bytes.len() as u64), "{ty}");
            assert_eq!((tail.tensors.len(), tail.of_tensors), (tensors, 3), "{ty}");
            let text = tail.to_string();
            for part in [zero.to_string(), bytes.len().to_string(), "%".to_owned(), "download it again".to_owned()] {
                assert!(text.contains(&part), "{text}");
            }
            let error = Weightless::find(&catalog(&path)).unwrap().refuse(&path).unwrap_err().to_string();
            assert!(error.contains("m.gguf") && error.contains(&text) && error.contains("--allow-zero"), "{error}");
            let report = verify(&path, &mut |_, _| {}).unwrap();
            assert_eq!((&report.zero_tails[..], report.is_valid()), (&[tail.clone()][..], false));
            assert!(report.defects.is_empty(), "the end of the file explains them: {:?}", report.defects);
            assert!(report.allow_zero().is_valid());
        }
        // From the start of a tensor on, zeros that are much of the file.
        let mut bytes = whole.clone();
        bytes[starts[2]..].fill(0);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(GgufFile::open(&path).unwrap().zero_tails().len(), 1, "a third of the file");
        // Padded rows of the last matrix, its last weights, and padding of the file are whole.
        let (_, zeros) = tensor("zeros", &[4, COLS], ty, &[0]);
        let whole_with = |from: usize, end: &[u8]| {
            let mut bytes = whole[..from].to_vec();
            bytes.extend_from_slice(end);
            fs::write(&path, &bytes).unwrap();
            assert_eq!(GgufFile::open(&path).unwrap().zero_tails(), [], "{ty}: {from}");
        };
        whole_with(starts[2] + 60 * row, &zeros);
        whole_with(starts[2] + 64 * row - 5, &[0; 5]);
        whole_with(whole.len(), &[0; 9000]);
    }
}

#[test]
fn the_zero_end_of_ternary_blocks_is_found_wherever_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    for ty in [TensorType::Tq1_0, TensorType::Tq2_0, TensorType::BitnetT158] {
        let (path, whole, starts) = three(dir.path(), ty);
        let end = starts[2] + 64 * ty.row_bytes(COLS).unwrap();
        // Half of a block, whole blocks and rows, and a few bytes beside the edge of a row.
        let row = ty.row_bytes(COLS).unwrap();
        for zero in [32, 60, ty.block_bytes(), row, row + 2, 7 * row - 2, 8 * row + 4] {
            let mut bytes = whole.clone();
            bytes[end - zero..].fill(0);
            fs::write(&path, &bytes).unwrap();
            assert_eq!(GgufFile::open(&path).unwrap().zero_tails().len(), 1, "{ty}: {zero} bytes");
            assert!(!verify(&path, &mut |_, _| {}).unwrap().is_valid(), "{ty}: {zero} bytes");
        }
    }
}

#[test]
fn every_part_of_a_set_and_every_shard_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let tensors = [0, 1].map(|i| tensor(&format!("blk.{i}.attn_output.weight"), &[64, COLS], TensorType::Bf16, &[]));
    for (i, tensor) in tensors.iter().enumerate() {
        let path = dir.path().join(split_file_name("m", i as u64 + 1, 2));
        let metadata = split_metadata(&Metadata::default(), i as u16 + 1, 2, 2);
        GgufWriter::write_file(&path, &metadata, std::slice::from_ref(tensor)).unwrap();
    }
    let first = dir.path().join("m-00001-of-00002.gguf");
    let mut bytes = fs::read(&first).unwrap();
    let n = bytes.len();
    bytes[n - 30_000..].fill(0);
    fs::write(&first, &bytes).unwrap();
    let file = GgufFile::open(dir.path().join("m-00002-of-00002.gguf")).unwrap();
    let tails = file.zero_tails();
    assert_eq!(tails.iter().map(|t| (t.path.clone(), t.zero_bytes)).collect::<Vec<_>>(), [(first, 30_000)]);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let mut bytes = fs::read(fixtures::path("goldens/no-q-lora/model.safetensors")).unwrap();
    let n = bytes.len();
    bytes[n - 100_000..].fill(0);
    fs::write(&path, &bytes).unwrap();
    let source = open_source(&path).unwrap();
    let [tail] = &source.zero_tails()[..] else { panic!("one shard") };
    assert!(tail.zero_bytes >= 100_000 && tail.path == path, "{tail:?}");
    assert!(!verify(&path, &mut |_, _| {}).unwrap().is_valid());
}

#[test]
fn a_header_that_ends_in_zeros_is_no_riddle() {
    let dir = tempfile::tempdir().unwrap();
    let tensors: Vec<_> =
        (0..200).map(|i| tensor(&format!("blk.{i}.attn_output.weight"), &[2, COLS], TensorType::Bf16, &[])).collect();
    let gguf = dir.path().join("m.gguf");
    write(&gguf, &tensors);
    let safetensors = dir.path().join("m.safetensors");
    fs::copy(fixtures::path("goldens/no-q-lora/model.safetensors"), &safetensors).unwrap();
    for path in [gguf, safetensors] {
        let whole = fs::read(&path).unwrap();
        for from in [0, 30, 300, 1500] {
            let mut bytes = whole.clone();
            bytes[from..].fill(0);
            fs::write(&path, &bytes).unwrap();
            let error = open_source(&path).unwrap_err().to_string();
            // A file whose start is zero is told by its kind, before its header is read.
            let zeros = if from == 0 { "only zeros at its start" } else { "bytes are zero" };
            assert!(error.contains(zeros) && error.contains("again"), "{from}: {error}");
        }
    }
    let plain = dir.path().join("preallocated");
    fs::write(&plain, vec![0; 10_000]).unwrap();
    let error = open_source(&plain).unwrap_err().to_string();
    assert!(error.contains("only zeros at its start"), "{error}");
}

#[test]
fn holes_cut_rows_and_pruned_rows_do_not() {
    let dir = tempfile::tempdir().unwrap();
    for ty in [TensorType::Bf16, TensorType::Q8_0] {
        let (path, whole, starts) = three(dir.path(), ty);
        let row = ty.row_bytes(COLS).unwrap();
        let spoiled = |from: usize, len: usize| {
            let mut bytes = whole.clone();
            bytes[from..from + len].fill(0);
            fs::write(&path, bytes).unwrap();
            defects(&path)
        };
        let name = "blk.1.attn_output.weight".to_owned();
        let found = spoiled(starts[1] + 9 * row + row / 2, 20 * row);
        let [(tensor, DefectKind::ZeroRange, bytes, of)] = &found[..] else { panic!("{ty}: {found:?}") };
        assert!((*bytes as usize).abs_diff(20 * row) < 8 && *of == 64 * row as u64, "{found:?}");
        assert_eq!(*tensor, name);
        assert_eq!(spoiled(starts[1] + 9 * row, 20 * row), [], "{ty}: whole rows");
        assert_eq!(spoiled(starts[1] + 9 * row + 10, row / 2), [], "{ty}: a part of one row");
        assert_eq!(spoiled(starts[1], 64 * row), [(name, DefectKind::ZeroMatrix, 1, 1)], "{ty}");
    }
    let ty = TensorType::Bf16;
    let (path, mut bytes, starts) = three(dir.path(), ty);
    let row = ty.row_bytes(COLS).unwrap();
    bytes[starts[0] + 5 * row + 300..starts[2] + 7 * row + 300].fill(0);
    fs::write(&path, bytes).unwrap();
    let kinds: Vec<DefectKind> = defects(&path).into_iter().map(|(_, kind, ..)| kind).collect();
    assert_eq!(
        kinds,
        [DefectKind::ZeroRange, DefectKind::ZeroMatrix, DefectKind::ZeroRange],
        "a hole over three tensors"
    );
}

#[test]
fn rows_of_zeros_are_a_notice_where_they_are_most_of_a_matrix() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    for ty in [TensorType::Bf16, TensorType::Q8_0, TensorType::Tq2_0] {
        let notices = |zero_rows: usize| {
            let (info, bytes) = tensor("output.weight", &[64, COLS], ty, &[]);
            let (_, zeros) = tensor("zeros", &[zero_rows, COLS], ty, &[0]);
            let kept = bytes.len() - zeros.len();
            let end = tensor("output_norm.weight", &[COLS], TensorType::F32, &[]);
            write(&path, &[(info, [&bytes[..kept], &zeros[..]].concat().into()), end]);
            let report = verify(&path, &mut |_, _| {}).unwrap();
            assert!(report.is_valid(), "{ty}: {:?}", report.defects);
            report.notices
        };
        assert_eq!(notices(32), [], "{ty}: half of the rows");
        let [notice] = &notices(60)[..] else { panic!("{ty}") };
        assert_eq!(notice.kind, DefectKind::ZeroRows);
        assert!(notice.to_string().contains("60 of 64 rows are zero (93.8 %), the first is row 4"), "{notice}");
    }
}

#[test]
fn scales_that_are_all_the_same_are_a_notice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let with_scale = |i: usize, ty: TensorType, at: usize, scale: u16| {
        let (info, bytes) = tensor(&format!("blk.{i}.attn_output.weight"), &[64, COLS], ty, &[]);
        let mut bytes = bytes.to_vec();
        for block in bytes.chunks_mut(ty.block_bytes()) {
            block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
        (info, Bytes::from(bytes))
    };
    let notices = |tensors: &[(TensorInfo, Bytes)]| {
        write(&path, tensors);
        let report = verify(&path, &mut |_, _| {}).unwrap();
        assert!(report.is_valid(), "{:?}", report.defects);
        report.notices.into_iter().map(|n| (n.kind, n.count, n.of)).collect::<Vec<_>>()
    };
    let q8 = with_scale(0, TensorType::Q8_0, 0, 0x3c00);
    assert_eq!(notices(&[q8]), [(DefectKind::ConstantScale, 64 * 16, 64 * 16)]);
    let ternary = |scales: [u16; 3]| {
        let tensors = [0, 1, 2].map(|i| with_scale(i, TensorType::Tq2_0, 64, scales[i]));
        notices(&tensors)
    };
    assert_eq!(ternary([0x3c00, 0x3c00, 0x3c00]), [(DefectKind::SharedScale, 3, 3)]);
    assert_eq!(ternary([0x2c00, 0x2c01, 0x2c02]), [], "a scale per matrix is the rule of BitNet");
    let one = [
        with_scale(0, TensorType::Tq2_0, 64, 0x3c00),
        tensor("blk.1.attn_output.weight", &[64, COLS], TensorType::Tq2_0, &[]),
    ];
    assert_eq!(notices(&one), [(DefectKind::ConstantScale, 128, 128)], "one among matrices with a scale per block");
    let whole = [0, 1].map(|i| tensor(&format!("blk.{i}.attn_output.weight"), &[64, COLS], TensorType::Q8_0, &[]));
    assert_eq!(notices(&whole), []);
}

#[test]
fn a_sources_own_default_has_no_tails() {
    struct None;
    impl TensorSource for None {
        fn tensors(&self) -> &[TensorInfo] {
            &[]
        }
        fn index_of(&self, _: &str) -> Option<usize> {
            Option::None
        }
        fn bytes(&self, index: usize) -> gguf_bitnet::Result<Bytes> {
            Err(gguf_bitnet::SourceError::NoTensor { index, n_tensors: 0 }.into())
        }
        fn release(&self, _: usize) {}
        fn prefetch(&self, _: usize) {}
        fn path(&self) -> &Path {
            Path::new("")
        }
    }
    let mapper = TensorNameMapper::new(ROWS.iter(), SplitDims::default(), 1);
    assert!(Weightless::find(&mapper.map(Arc::new(None)).unwrap()).unwrap().is_empty());
}
