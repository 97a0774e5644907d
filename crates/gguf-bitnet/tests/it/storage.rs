//! Catalogs over quantised storage: rows and matrices of every kind of layout, cut and transposed.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use gguf_bitnet::{
    Catalog, Error, NameRow, NamesError, Piece, Result, SplitDims, TensorClass, TensorInfo, TensorNameMapper,
    TensorSource, TensorType, dequantize,
};
use ternary_core::{Bytes, I2sLayout};

use crate::support::ROWS;
/// Tensors in memory, so that layouts which are only read can be tested too.
struct Memory {
    infos: Vec<TensorInfo>,
    data: Vec<Bytes>,
}

impl Memory {
    fn new(tensors: Vec<(&str, &[usize], TensorType, Vec<u8>)>) -> Memory {
        let (mut infos, mut data) = (Vec::new(), Vec::new());
        for (name, shape, ty, bytes) in tensors {
            assert_eq!(ty.tensor_bytes(shape).unwrap(), bytes.len() as u64, "{name}");
            infos.push(TensorInfo { name: name.into(), shape: shape.to_vec(), ty, bytes: bytes.len() as u64 });
            data.push(Bytes::from(bytes));
        }
        Memory { infos, data }
    }

    fn map(self, dims: SplitDims) -> Result<Catalog> {
        TensorNameMapper::new(ROWS, dims, 8).map(Arc::new(self))
    }
}

impl TensorSource for Memory {
    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }
    fn index_of(&self, name: &str) -> Option<usize> {
        self.infos.iter().position(|info| info.name == name)
    }
    fn bytes(&self, index: usize) -> Result<Bytes> {
        Ok(self.data[index].clone())
    }
    fn release(&self, _: usize) {}
    fn prefetch(&self, _: usize) {}
    fn path(&self) -> &Path {
        Path::new("memory")
    }
}

/// Finite pseudo-random blocks: every byte varies, scales are small F16 numbers.
fn blocks(ty: TensorType, n: usize) -> Vec<u8> {
    let (size, scale_at) = match ty {
        TensorType::Q8_0 => (34, 0),
        TensorType::Tq2_0 | TensorType::BitnetT158Flat => (66, 64),
        _ => panic!("{ty} is not used by this test"),
    };
    let mut bytes = vec![0u8; n * size];
    for (b, block) in bytes.chunks_exact_mut(size).enumerate() {
        for (i, byte) in block.iter_mut().enumerate() {
            // Two-bit codes 0..=2 only.
            *byte = [0x64, 0x19, 0x86, 0x12, 0x49][(b * 7 + i * 3 + i / 5) % 5];
        }
        block[scale_at..scale_at + 2].copy_from_slice(&(0x2c00 + 17 * b as u16).to_le_bytes());
    }
    bytes
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn decode(ty: TensorType, bytes: &[u8], n: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; n];
    dequantize(ty, bytes, &mut out).unwrap();
    out
}

fn read(catalog: &Catalog, name: &str, rows: Range<usize>) -> Vec<f32> {
    let tensor = catalog.find(name).unwrap();
    let mut out = vec![f32::NAN; rows.len() * tensor.cols()];
    catalog.read_rows(tensor, rows, &mut out).unwrap();
    out
}

/// Every run of rows and every matrix of a tensor equals the same part of `want`.
fn check(catalog: &Catalog, name: &str, want: &[f32]) {
    let tensor = catalog.find(name).unwrap();
    let (rows, cols) = (tensor.rows(), tensor.cols());
    assert_eq!(rows * cols, want.len());
    for start in 0..rows {
        for end in start..=rows {
            assert_eq!(bits(&read(catalog, name, start..end)), bits(&want[start * cols..end * cols]), "{start}..{end}");
        }
    }
    for (outer, want) in want.chunks(tensor.matrix_rows() * cols).enumerate() {
        let matrix = catalog.matrix(tensor, outer).unwrap();
        assert_eq!((matrix.rows, matrix.cols), (tensor.matrix_rows(), cols));
        assert_eq!(bits(&decode(matrix.ty, &matrix.bytes, want.len())), bits(want), "matrix {outer}");
    }
}

#[test]
fn expert_slices_of_a_ternary_stack_are_views() {
    let stack = blocks(TensorType::Tq2_0, 3 * 4 * 2);
    let want = decode(TensorType::Tq2_0, &stack, 3 * 4 * 512);
    let memory = Memory::new(vec![("blk.1.ffn_up_exps.weight", &[3, 4, 512], TensorType::Tq2_0, stack)]);
    let start = memory.data[0].as_ptr();
    let catalog = memory.map(SplitDims::default()).unwrap();
    check(&catalog, "blk.1.ffn_up_exps.weight", &want);
    let tensor = catalog.find("blk.1.ffn_up_exps.weight").unwrap();
    for expert in 0..3 {
        let view = catalog.matrix(tensor, expert).unwrap().bytes;
        assert_eq!(view.as_ptr(), start.wrapping_add(expert * 4 * 132));
        assert_eq!(view.len(), 4 * 132);
    }
}

#[test]
fn keys_of_a_quantised_fused_kv_b_are_transposed() {
    let (heads, nope, v, latent) = (2, 3, 5, 64);
    let fused = blocks(TensorType::Q8_0, heads * (nope + v) * 2);
    let all = decode(TensorType::Q8_0, &fused, heads * (nope + v) * latent);
    let (mut keys, mut vals) = (Vec::new(), Vec::new());
    for head in all.chunks((nope + v) * latent) {
        keys.extend((0..latent).flat_map(|c| (0..nope).map(move |n| head[n * latent + c])));
        vals.extend(&head[nope * latent..]);
    }
    let memory = Memory::new(vec![("blk.0.attn_kv_b.weight", &[heads * (nope + v), latent], TensorType::Q8_0, fused)]);
    let catalog = memory.map(SplitDims { n_heads: heads, qk_nope: nope, v_head: v, paired: 0 }).unwrap();
    check(&catalog, "blk.0.attn_k_b.weight", &keys);
    check(&catalog, "blk.0.attn_v_b.weight", &vals);
    let matrix = |name: &str| catalog.matrix(catalog.find(name).unwrap(), 1).unwrap().ty;
    assert_eq!(matrix("blk.0.attn_k_b.weight"), TensorType::F32);
    assert_eq!(matrix("blk.0.attn_v_b.weight"), TensorType::Q8_0);
}

#[test]
fn whole_tensor_layouts_give_up_rows_and_matrices() {
    for (ty, layout) in [(TensorType::I2s, I2sLayout::X86), (TensorType::I2sArm, I2sLayout::Arm)] {
        // Rows of 64 do not start at the groups of 128 of one of the layouts.
        for shape in [&[6, 128][..], &[2, 3, 128], &[4, 64], &[2, 2, 64], &[6, 3, 64], &[512]] {
            let n: usize = shape.iter().product();
            let trits: Vec<i8> = (0..n).map(|i| [-1, 0, 1, 1, 0][(i * 3 + i / 7) % 5]).collect();
            let bytes = layout.encode(&trits, 0.375).unwrap();
            let want: Vec<f32> = trits.iter().map(|&t| f32::from(t) * 0.375).collect();
            let catalog =
                Memory::new(vec![("blk.1.ffn_down_exps.weight", shape, ty, bytes)]).map(SplitDims::default()).unwrap();
            // Compared by value: the layout may decode -0.0.
            let tensor = catalog.find("blk.1.ffn_down_exps.weight").unwrap();
            let cols = tensor.cols();
            for row in 0..tensor.rows() {
                assert_eq!(read(&catalog, &tensor.name, row..row + 1), want[row * cols..(row + 1) * cols], "{shape:?}");
            }
            assert_eq!(read(&catalog, &tensor.name, 0..tensor.rows()), want);
            let elements = tensor.matrix_rows() * cols;
            for (outer, want) in want.chunks(elements).enumerate() {
                let matrix = catalog.matrix(tensor, outer).unwrap();
                assert_eq!(decode(matrix.ty, &matrix.bytes, elements), want, "{shape:?} {outer}");
            }
            assert_eq!(catalog.storage(tensor)[&ty].0, n as u64);
        }
    }
}

#[test]
fn blocks_over_the_flattened_tensor_give_up_rows() {
    let (rows, cols) = (7, 100);
    let bytes = blocks(TensorType::BitnetT158Flat, 3);
    let want = decode(TensorType::BitnetT158Flat, &bytes, rows * cols);
    let memory = Memory::new(vec![("output.weight", &[rows, cols], TensorType::BitnetT158Flat, bytes)]);
    let catalog = memory.map(SplitDims::default()).unwrap();
    check(&catalog, "output.weight", &want);
    let matrix = catalog.matrix(catalog.find("output.weight").unwrap(), 0).unwrap();
    assert_eq!(matrix.ty, TensorType::F32, "rows that start inside of a block are decoded");
}

#[test]
fn layouts_without_rows_cannot_be_split() {
    let trits = vec![1i8; 16 * 128];
    let bytes = I2sLayout::X86.encode(&trits, 1.0).unwrap();
    for (name, shape) in [("blk.0.attn_kv_b.weight", &[16, 128][..]), ("blk.0.ffn_gate_up_exps.weight", &[2, 8, 128])] {
        let memory = Memory::new(vec![(name, shape, TensorType::I2s, bytes.clone())]);
        let error = memory.map(SplitDims { n_heads: 2, qk_nope: 4, v_head: 4, paired: 0 }).unwrap_err();
        assert!(matches!(error.root(), Error::Names(NamesError::NotDivisible { ty: TensorType::I2s })), "{error}");
    }
}

#[test]
fn experts_of_different_types_are_counted_under_each() {
    let memory = Memory::new(vec![
        ("blk.1.ffn_up.0.weight", &[2, 256], TensorType::Tq2_0, blocks(TensorType::Tq2_0, 2)),
        ("blk.1.ffn_up.1.weight", &[2, 256], TensorType::Q8_0, blocks(TensorType::Q8_0, 16)),
    ]);
    let catalog = memory.map(SplitDims::default()).unwrap();
    let tensor = catalog.find("blk.1.ffn_up_exps.weight").unwrap();
    assert_eq!(catalog.tensor_type(tensor), None);
    let storage = catalog.storage(tensor);
    assert_eq!(storage[&TensorType::Tq2_0], (512, 132));
    assert_eq!(storage[&TensorType::Q8_0], (512, 544));
    assert_eq!(catalog.matrix(tensor, 0).unwrap().ty, TensorType::Tq2_0);
    assert_eq!(catalog.matrix(tensor, 1).unwrap().ty, TensorType::Q8_0);
    assert_eq!(read(&catalog, &tensor.name, 1..3).len(), 512);
}

#[test]
fn scalars_and_vectors_are_one_row() {
    let four = 1.5f32.to_le_bytes().to_vec();
    let memory = Memory::new(vec![
        ("output_norm.weight", &[], TensorType::F32, four.clone()),
        ("blk.0.attn_norm.weight", &[3], TensorType::F32, four.repeat(3)),
    ]);
    let catalog = memory.map(SplitDims::default()).unwrap();
    assert_eq!(catalog.find("output_norm.weight").unwrap().shape, [1]);
    check(&catalog, "output_norm.weight", &[1.5]);
    check(&catalog, "blk.0.attn_norm.weight", &[1.5; 3]);
}

#[test]
fn heads_in_halves_are_read_in_pairs() {
    const ROWS: &[NameRow] =
        &[NameRow::layer("attn_q.weight", "self_attn.q_proj.weight", TensorClass::Attention).piece(Piece::HeadPairs)];
    let map = |name, shape: &[usize], ty, bytes, paired| {
        let dims = SplitDims { paired, ..SplitDims::default() };
        TensorNameMapper::new(ROWS, dims, 1).map(Arc::new(Memory::new(vec![(name, shape, ty, bytes)])))
    };
    let stored = "model.layers.0.self_attn.q_proj.weight";
    for (ty, cols) in [(TensorType::Q8_0, 64), (TensorType::Tq2_0, 512)] {
        let bytes = blocks(ty, 12 * cols / ty.block_len());
        let mut values = vec![0.0; 12 * cols];
        dequantize(ty, &bytes, &mut values).unwrap();
        // Two heads of six rows: each row of the first half, then its partner in the second.
        let order = [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11];
        let wanted: Vec<f32> = order.iter().flat_map(|&row: &usize| values[row * cols..][..cols].to_vec()).collect();
        let catalog = map(stored, &[12, cols], ty, bytes.clone(), 6).unwrap();
        let tensor = &catalog.tensors()[0];
        for rows in [0..12, 4..9, 7..8] {
            let mut out = vec![0.0; rows.len() * cols];
            catalog.read_rows(tensor, rows.clone(), &mut out).unwrap();
            assert_eq!(out, wanted[rows.start * cols..rows.end * cols], "{ty}: {rows:?}");
        }
        let matrix = catalog.matrix(tensor, 0).unwrap();
        assert_eq!((matrix.ty, matrix.rows), (ty, 12), "the rows are copied as they are stored");
        let mut out = vec![0.0; 12 * cols];
        dequantize(ty, &matrix.bytes, &mut out).unwrap();
        assert_eq!(out, wanted, "{ty}");
        assert_eq!(catalog.matrix_span(tensor, 0), None, "no run of the file holds the matrix");
        // GGUF files store the pairs.
        let catalog = map("blk.0.attn_q.weight", &[12, cols], ty, bytes, 6).unwrap();
        let mut out = vec![0.0; 12 * cols];
        catalog.read_rows(&catalog.tensors()[0], 0..12, &mut out).unwrap();
        assert_eq!(out, values);
    }
    for paired in [0, 1, 3, 5, 8, 24] {
        let error = map(stored, &[12, 64], TensorType::Q8_0, blocks(TensorType::Q8_0, 24), paired).unwrap_err();
        assert!(matches!(error.root(), Error::Names(NamesError::HeadShape { .. })), "{paired}: {error}");
    }
}
