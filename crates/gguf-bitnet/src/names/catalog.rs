//! The canonical tensors of a model over a source of any naming.
//!
//! A [`LogicalTensor`] is a concatenation of row runs of stored tensors:
//!
//! ```text
//! per expert    blk.1.ffn_up_exps  [E, I, H] = expert 0 rows 0..I | expert 1 rows 0..I | ...
//! fused gate_up blk.1.ffn_up_exps  [E, I, H] = rows I..2I of matrix 0 | rows I..2I of matrix 1 | ...
//! fused kv_b    blk.1.attn_v_b     [h, v, c] = per head: its last v rows
//!               blk.1.attn_k_b     [h, c, n] = per head: its first n rows, transposed
//! halves        blk.1.attn_q       [h d, H]  = per head: rows 0, d/2, 1, d/2 + 1, ...
//! ```
//!
//! **Invariant:** the parts of a logical tensor are equal in size when there is more than one, one
//! matrix never straddles two parts, and each part lies inside its stored tensor. Only rows in
//! another order than the stored one and rows of layouts without rows are copied.

mod assemble;
mod rows;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use ternary_core::Bytes;

use super::error::NamesError;
use crate::error::{Error, Result};
use crate::formats::TensorType;
use crate::names::class::TensorClass;
use crate::source::{TensorInfo, TensorSource};

use rows::{i2s_slice, packed_trit_scale, read_stored_rows};

/// A run of rows of one stored tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Index of the stored tensor in the source.
    pub source: usize,
    /// Rows of the stored tensor, flattened to `[rows, cols]`.
    pub rows: Range<usize>,
    /// The order of the logical rows.
    pub order: RowOrder,
}

/// The logical rows of a part, by its stored rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOrder {
    /// Logical row `i` is stored row `i`.
    AsStored,
    /// The columns of the stored rows.
    Transposed,
    /// Heads of `head` stored rows: first rows `i` and `i + head / 2` for `i` = 0, then for 1, and so on.
    Pairs {
        /// Rows of a head: even, and a divisor of the rows of the part.
        head: usize,
    },
}

impl RowOrder {
    /// The stored row, counted from the start of its part, that is logical row `row` of an order that keeps rows whole.
    fn stored_row(self, row: usize) -> usize {
        match self {
            RowOrder::AsStored | RowOrder::Transposed => row,
            RowOrder::Pairs { head } => row / head * head + row % 2 * (head / 2) + row % head / 2,
        }
    }
}

/// A tensor of the model under its canonical name.
#[derive(Clone, Debug)]
pub struct LogicalTensor {
    /// llama.cpp's name, such as `blk.1.ffn_up_exps.weight`.
    pub name: String,
    /// Row-major dimensions, outermost first; `[n]` for a vector.
    pub shape: Vec<usize>,
    /// The role of the tensor in its model.
    pub class: TensorClass,
    /// The runs of stored rows that make up the tensor, in order.
    pub parts: Vec<Part>,
}

impl LogicalTensor {
    /// Length of a row: the last dimension.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Rows of the tensor flattened to `[rows, cols]`; 1 for a vector.
    pub fn rows(&self) -> usize {
        self.shape[..self.shape.len().saturating_sub(1)].iter().product()
    }

    /// Number of elements in all matrices.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Number of matrices: the product of all but the last two dimensions.
    pub fn outer(&self) -> usize {
        self.shape[..self.shape.len().saturating_sub(2)].iter().product()
    }

    /// Rows of one matrix; 1 for a vector.
    pub fn matrix_rows(&self) -> usize {
        self.shape.len().checked_sub(2).map_or(1, |second_last| self.shape[second_last])
    }
}

/// One matrix of a logical tensor as it is stored.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// Storage type of the rows.
    pub ty: TensorType,
    /// Rows of this one matrix.
    pub rows: usize,
    /// Length of a row.
    pub cols: usize,
    /// `rows` rows in storage type `ty`; for I2_S the packed codes and the 32-byte tail.
    pub bytes: Bytes,
}

/// The canonical tensors of a source. Made by [`TensorNameMapper::map`](crate::TensorNameMapper::map).
#[derive(Clone)]
pub struct Catalog {
    source: Arc<dyn TensorSource>,
    tensors: Vec<LogicalTensor>,
    by_name: HashMap<String, usize>,
    unmapped: Vec<String>,
    skipped: Vec<String>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog")
            .field("path", &self.source.path())
            .field("tensors", &self.tensors.len())
            .field("unmapped", &self.unmapped)
            .field("skipped", &self.skipped.len())
            .finish()
    }
}

impl Catalog {
    /// Every canonical tensor, in the order of written files: embedding, final norm, head, then the blocks.
    pub fn tensors(&self) -> &[LogicalTensor] {
        &self.tensors
    }

    /// The tensor with a canonical name.
    pub fn find(&self, name: &str) -> Option<&LogicalTensor> {
        self.by_name.get(name).map(|&index| &self.tensors[index])
    }

    /// Stored tensors whose names are not known, as the source spells them.
    pub fn unmapped(&self) -> &[String] {
        &self.unmapped
    }

    /// Stored tensors that are known and left out (multi-token prediction), as the source spells them.
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// Leaves a tensor out although the source has it: it moves to [`Catalog::skipped`]. A name without a
    /// tensor has no effect.
    pub fn skip(&mut self, name: &str) {
        if let Some(index) = self.by_name.get(name).copied() {
            let tensor = self.tensors.remove(index);
            self.skipped.extend(stored(&tensor).map(|stored| self.source.tensors()[stored].name.clone()));
            self.by_name = self.tensors.iter().enumerate().map(|(index, t)| (t.name.clone(), index)).collect();
        }
    }

    /// Whether weights of a tensor are multiplied by scales that the source stores beside them, so that its stored bytes
    /// are not its weights.
    pub fn has_scales(&self, tensor: &LogicalTensor) -> bool {
        tensor.parts.iter().any(|part| self.source.scales(part.source).is_some())
    }

    /// The scale of a tensor whose weights are all -1, 0 or +1 times one number: packed trits of a checkpoint, or numbers
    /// that the model rounds to trits. `None` for all others, and for parts with different scales.
    ///
    /// # Errors
    /// When the scale cannot be read, or is no positive number.
    pub fn trit_scale(&self, tensor: &LogicalTensor) -> Result<Option<f32>> {
        let mut found = None;
        for index in stored(tensor) {
            let scale = packed_trit_scale(&*self.source, index).map_err(|error| self.locate(tensor, error))?;
            match scale {
                None => return Ok(None),
                Some(scale) if found.is_some_and(|found| found != scale) => return Ok(None),
                scale => found = scale,
            }
        }
        Ok(found)
    }

    /// The source the tensors are read from.
    pub fn source(&self) -> &Arc<dyn TensorSource> {
        &self.source
    }

    /// The storage type of a tensor, or `None` when its parts differ.
    pub fn tensor_type(&self, tensor: &LogicalTensor) -> Option<TensorType> {
        let mut types = tensor.parts.iter().map(|part| self.info(part).ty);
        let first = types.next()?;
        types.all(|ty| ty == first).then_some(first)
    }

    /// Stored elements and bytes of a tensor by storage type.
    pub fn storage(&self, tensor: &LogicalTensor) -> BTreeMap<TensorType, (u64, u64)> {
        let mut by_type = BTreeMap::new();
        for part in &tensor.parts {
            let info = self.info(part);
            let (rows, cols) = (part.rows.len() as u64, info.cols() as u64);
            // A part of a whole-tensor layout is the whole tensor.
            let bytes = match info.ty.row_bytes(info.cols()) {
                Ok(row_bytes) => rows * row_bytes as u64,
                Err(_) => info.bytes,
            };
            let entry: &mut (u64, u64) = by_type.entry(info.ty).or_default();
            entry.0 += rows * cols;
            entry.1 += bytes;
        }
        by_type
    }

    /// Decodes rows of a tensor flattened to `[rows, cols]` into `out`, of length
    /// `rows.len() * cols`.
    ///
    /// # Errors
    /// [`NamesError::NotFinite`] for NaN and infinite weights; when the rows do not exist, `out` has
    /// another length or the stored data cannot be decoded.
    pub fn read_rows(&self, tensor: &LogicalTensor, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        self.decode_rows(tensor, rows, out).map_err(|error| self.locate(tensor, error))
    }

    /// One matrix of a tensor: expert or head `outer` of a stack, 0 for a matrix or a vector.
    ///
    /// Zero-copy, but for: a transposed `attn_k_b` (copied in a 16-bit or 32-bit storage type,
    /// else decoded to F32), heads whose halves become pairs (copied row by row), one matrix of an I2_S stack (copied), a layout without rows that
    /// cannot be cut and weights with scales beside them (decoded to F32).
    ///
    /// # Errors
    /// When there is no such matrix, or stored data that must be decoded are invalid.
    pub fn matrix(&self, tensor: &LogicalTensor, outer: usize) -> Result<Matrix> {
        self.stored_matrix(tensor, outer).map_err(|error| self.locate(tensor, error))
    }

    /// Tells the operating system that the pages of a tensor are not needed for now.
    pub fn release(&self, tensor: &LogicalTensor) {
        for index in stored(tensor) {
            self.source.release(index);
            if let Some(scales) = self.source.scales(index) {
                self.source.release(scales.tensor);
            }
        }
    }

    /// Asks the operating system to read the pages of a tensor ahead.
    pub fn prefetch(&self, tensor: &LogicalTensor) {
        for index in stored(tensor) {
            self.source.prefetch(index);
        }
    }

    /// The place of matrix `outer` of a tensor: the stored tensor and the range of its bytes. `None` where the matrix
    /// does not exist or its stored bytes are not those of the matrix.
    pub fn matrix_span(&self, tensor: &LogicalTensor, outer: usize) -> Option<(usize, Range<usize>)> {
        let (rows, cols) = (tensor.matrix_rows(), tensor.cols());
        if outer >= tensor.outer() {
            return None;
        }
        let per_part = tensor.rows().checked_div(tensor.parts.len())?;
        let part = tensor.parts.get((outer * rows).checked_div(per_part)?)?;
        let as_stored = part.order == RowOrder::AsStored && self.source.scales(part.source).is_none();
        let row_bytes = self.info(part).ty.row_bytes(cols).ok().filter(|_| as_stored)?;
        let first = part.rows.start + outer * rows % per_part;
        Some((part.source, first * row_bytes..(first + rows) * row_bytes))
    }

    fn locate(&self, tensor: &LogicalTensor, error: Error) -> Error {
        error.in_tensor(&tensor.name).in_file(self.source.path())
    }

    fn info(&self, part: &Part) -> &TensorInfo {
        &self.source.tensors()[part.source]
    }

    fn decode_rows(&self, tensor: &LogicalTensor, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let (n_rows, cols) = (tensor.rows(), tensor.cols());
        if rows.start > rows.end || rows.end > n_rows {
            return Err(NamesError::RowRange { start: rows.start, end: rows.end, rows: n_rows }.into());
        }
        let expected = rows.len() * cols;
        if out.len() != expected {
            return Err(NamesError::BufferLength { expected, got: out.len() }.into());
        }
        let mut next = rows.start;
        let mut rest = &mut *out;
        let rows_per_part = n_rows / tensor.parts.len().max(1);
        while next < rows.end {
            let part = &tensor.parts[next / rows_per_part];
            let within = next % rows_per_part;
            let count = (rows.end - next).min(rows_per_part - within);
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(count * cols);
            let stored = |rows: Range<usize>| part.rows.start + rows.start..part.rows.start + rows.end;
            match part.order {
                RowOrder::AsStored => {
                    read_stored_rows(&*self.source, part.source, stored(within..within + count), head)?;
                }
                RowOrder::Transposed => self.read_transposed(part, within..within + count, head)?,
                RowOrder::Pairs { .. } => {
                    for (row, out) in (within..within + count).zip(head.chunks_exact_mut(cols)) {
                        let row = part.order.stored_row(row);
                        read_stored_rows(&*self.source, part.source, stored(row..row + 1), out)?;
                    }
                }
            }
            rest = tail;
            next += count;
        }
        check_finite(out, cols, rows.start)
    }

    /// Rows `columns` of the transpose of a part: `out` is `[columns.len(), part.rows.len()]`.
    fn read_transposed(&self, part: &Part, columns: Range<usize>, out: &mut [f32]) -> Result<()> {
        let (stored_rows, stored_cols) = (part.rows.len(), self.info(part).cols());
        let mut row = vec![0.0; stored_cols];
        for n in 0..stored_rows {
            let at = part.rows.start + n;
            read_stored_rows(&*self.source, part.source, at..at + 1, &mut row)?;
            for (r, &value) in row[columns.clone()].iter().enumerate() {
                out[r * stored_rows + n] = value;
            }
        }
        Ok(())
    }

    fn stored_matrix(&self, tensor: &LogicalTensor, outer: usize) -> Result<Matrix> {
        let count = tensor.outer();
        if outer >= count {
            return Err(NamesError::OuterRange { outer, count }.into());
        }
        let (rows, cols) = (tensor.matrix_rows(), tensor.cols());
        let per_part = tensor.rows() / tensor.parts.len().max(1);
        let (part, within) = (&tensor.parts[outer * rows / per_part], outer * rows % per_part);
        let info = self.info(part);
        if part.order == RowOrder::Transposed {
            return self.transposed_matrix(tensor, part, outer);
        }
        if self.source.scales(part.source).is_some() {
            return self.decoded_matrix(tensor, outer);
        }
        let bytes = self.source.bytes(part.source)?;
        let first = part.rows.start + within;
        let bytes = match info.ty.row_bytes(cols) {
            Ok(row_bytes) if part.order != RowOrder::AsStored => {
                let row = |row| (part.rows.start + part.order.stored_row(within + row)) * row_bytes;
                let rows = (0..rows).map(|at| &bytes[row(at)..row(at) + row_bytes]);
                rows.collect::<Vec<_>>().concat().into()
            }
            Err(_) if part.order != RowOrder::AsStored => return self.decoded_matrix(tensor, outer),
            Ok(row_bytes) => bytes.slice(first * row_bytes..(first + rows) * row_bytes),
            Err(_) if rows == info.rows() && info.ty != TensorType::BitnetT158Flat => bytes,
            Err(_) => match i2s_slice(info, &bytes, first * cols..(first + rows) * cols) {
                Some(copy) => copy,
                None => return self.decoded_matrix(tensor, outer),
            },
        };
        Ok(Matrix { ty: info.ty, rows, cols, bytes })
    }

    fn decoded_matrix(&self, tensor: &LogicalTensor, outer: usize) -> Result<Matrix> {
        let (rows, cols) = (tensor.matrix_rows(), tensor.cols());
        let mut values = vec![0.0f32; rows * cols];
        self.decode_rows(tensor, outer * rows..(outer + 1) * rows, &mut values)?;
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Ok(Matrix { ty: TensorType::F32, rows, cols, bytes: bytes.into() })
    }

    /// The transpose of a part: rows and columns of its elements exchanged, bit for bit.
    fn transposed_matrix(&self, tensor: &LogicalTensor, part: &Part, outer: usize) -> Result<Matrix> {
        let info = self.info(part);
        let (rows, cols) = (tensor.matrix_rows(), tensor.cols());
        let width = match info.ty {
            TensorType::F16 | TensorType::Bf16 => 2,
            TensorType::F32 => 4,
            _ => return self.decoded_matrix(tensor, outer),
        };
        let stored = self.source.bytes(part.source)?;
        let row_bytes = rows * width;
        let stored = stored.slice(part.rows.start * row_bytes..part.rows.end * row_bytes);
        let mut bytes = vec![0u8; rows * cols * width];
        for (n, stored_row) in stored.chunks_exact(row_bytes).enumerate() {
            for (r, element) in stored_row.chunks_exact(width).enumerate() {
                let at = (r * cols + n) * width;
                bytes[at..at + width].copy_from_slice(element);
            }
        }
        Ok(Matrix { ty: info.ty, rows, cols, bytes: bytes.into() })
    }
}

/// Indices of the stored tensors of a logical one, each once.
fn stored(tensor: &LogicalTensor) -> impl Iterator<Item = usize> + '_ {
    let mut last = None;
    tensor.parts.iter().map(|part| part.source).filter(move |&index| last.replace(index) != Some(index))
}

fn check_finite(values: &[f32], cols: usize, first_row: usize) -> Result<()> {
    for (row, values) in values.chunks(cols.max(1)).enumerate() {
        // The sum of all values times zero is NaN exactly if some value is NaN or infinite; eight partial sums keep
        // the loop vectorised.
        let mut lanes = [0.0f32; 8];
        let (chunks, rest) = values.as_chunks::<8>();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane += value * 0.0;
            }
        }
        let sum = lanes.iter().chain(rest).fold(0.0, |sum, value| sum + value * 0.0);
        if sum.is_nan() {
            return Err(NamesError::NotFinite { row: first_row + row }.into());
        }
    }
    Ok(())
}
