//! From named tensors in a file to the matrices and vectors that layers compute with.
//!
//! Types that a kernel reads as they are stay where the file is mapped. All others (Q4_K, F8_E4M3, ...) are dequantised to F32
//! here, and the pages they came from are given back. Vectors and the router become F32, whatever the file holds. Matrices of
//! trits with one scale (I2_S, and the linear layers of BitNet checkpoints) become TQ2_0 with that scale.
//!
//! **Invariant:** a shape is compared with the configuration before memory for it is taken, and no layer computes with a
//! kernel that was not tested on a tensor of its type ([`KernelSelector`]).

use std::sync::Arc;

use gguf_bitnet::{Catalog, LogicalTensor, Matrix, TensorClass, TensorSource, TensorType};
use ternary_core::{ActMode, BLOCK, Bytes, Packing, Scales, TernaryTensor, f16};
use tl_kernels::{DenseType, KernelSelector, Linear};

use crate::error::{Error, Result};
use crate::load::error::LoadError;
use crate::models::table::Presence;

/// Reads one model's tensors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WeightReader<'a> {
    catalog: &'a Catalog,
    mode: ActMode,
    /// Whether layers of trits with one scale compute in floating point, as their training does.
    float_products: bool,
    kernels: &'a KernelSelector,
}

impl<'a> WeightReader<'a> {
    pub(crate) fn new(catalog: &'a Catalog, mode: ActMode, kernels: &'a KernelSelector) -> WeightReader<'a> {
        WeightReader { catalog, mode, float_products: false, kernels }
    }

    /// The same reader for layers of trits that compute in floating point where activations are rounded per token.
    pub(crate) fn with_float_products(self, float_products: bool) -> WeightReader<'a> {
        WeightReader { float_products, ..self }
    }

    /// The tensor called `name`, of exactly this shape.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<&'a LogicalTensor> {
        let Some(tensor) = self.catalog.find(name) else {
            return Err(Error::Load(LoadError::MissingTensor { tensor: name.to_owned() }));
        };
        if tensor.shape == shape {
            return Ok(tensor);
        }
        Err(Error::Load(LoadError::Shape {
            tensor: name.to_owned(),
            expected: shape.to_vec(),
            got: tensor.shape.clone(),
        }))
    }

    fn wanted(&self, presence: Presence, name: &str) -> bool {
        match presence {
            Presence::Required => true,
            Presence::Absent => false,
            Presence::Detect => self.catalog.find(name).is_some(),
        }
    }

    /// A vector of `len` values.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.floats(self.tensor(name, &[len])?)
    }

    pub(crate) fn optional_vector(&self, presence: Presence, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        self.wanted(presence, name).then(|| self.vector(name, len)).transpose()
    }

    /// A matrix in the file's own precision.
    pub(crate) fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Linear> {
        let tensor = self.tensor(name, &[rows, cols])?;
        self.linear(tensor, 0)
    }

    pub(crate) fn optional_matrix(
        &self,
        presence: Presence,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Option<Linear>> {
        self.wanted(presence, name).then(|| self.matrix(name, rows, cols)).transpose()
    }

    /// The stored tensor whose bytes are those of a matrix.
    pub(crate) fn stored_at(&self, name: &str) -> Option<(Arc<dyn TensorSource>, usize)> {
        let (stored, _) = self.catalog.matrix_span(self.catalog.find(name)?, 0)?;
        Some((self.catalog.source().clone(), stored))
    }

    /// A matrix widened to F32.
    pub(crate) fn matrix_f32(&self, name: &str, rows: usize, cols: usize) -> Result<Linear> {
        let tensor = self.tensor(name, &[rows, cols])?;
        self.on_selected_kernel(tensor, Linear::from_f32(rows, cols, self.floats(tensor)?)?)
    }

    /// The matrices of a stack `[outer, rows, cols]`.
    pub(crate) fn stack(&self, name: &str, outer: usize, rows: usize, cols: usize) -> Result<Vec<Linear>> {
        let tensor = self.tensor(name, &[outer, rows, cols])?;
        (0..outer).map(|index| self.linear(tensor, index)).collect()
    }

    /// One matrix of a tensor, on the kernel for its type.
    fn linear(&self, tensor: &LogicalTensor, outer: usize) -> Result<Linear> {
        self.on_selected_kernel(tensor, self.read_linear(tensor, outer)?)
    }

    /// Gives a matrix the kernel that passed the self-test for its type.
    fn on_selected_kernel(&self, tensor: &LogicalTensor, linear: Linear) -> Result<Linear> {
        self.kernels
            .select(linear)
            .map_err(|source| Error::Load(LoadError::Weight { tensor: tensor.name.clone(), source }))
    }

    /// One matrix of a tensor as the file stores it, before a kernel is chosen.
    fn read_linear(&self, tensor: &LogicalTensor, outer: usize) -> Result<Linear> {
        if let Some(scale) = self.catalog.trit_scale(tensor)? {
            if self.computes_in_floats() {
                return self.rounded(tensor, outer, scale);
            }
            let mut row = vec![0.0; tensor.cols()];
            let first = outer * tensor.matrix_rows();
            let linear = self.trits(tensor, scale, |r, trits| {
                self.catalog.read_rows(tensor, first + r..first + r + 1, &mut row)?;
                trits
                    .iter_mut()
                    .zip(&row)
                    .for_each(|(trit, &value)| *trit = i8::from(value > 0.0) - i8::from(value < 0.0));
                Ok(())
            })?;
            self.catalog.release(tensor);
            return match linear {
                Some(linear) => Ok(linear),
                None => self.dequantised(tensor, outer, tensor.matrix_rows(), tensor.cols()),
            };
        }
        if self.catalog.has_scales(tensor) {
            return self.dequantised(tensor, outer, tensor.matrix_rows(), tensor.cols());
        }
        let Matrix { ty, rows, cols, bytes } = self.catalog.matrix(tensor, outer)?;
        let located = |source| Error::Load(LoadError::Weight { tensor: tensor.name.clone(), source });
        if let Some(dense) = dense_type(ty) {
            let linear = Linear::dense(dense, rows, cols, bytes).map_err(located)?;
            return Ok(linear.with_act_mode(self.mode));
        }
        let in_blocks = cols.is_multiple_of(BLOCK);
        // Blocks over the flattened tensor are blocks of rows where each row is a number of whole blocks.
        let ty = if ty == TensorType::BitnetT158Flat && in_blocks { TensorType::BitnetT158 } else { ty };
        let ternary = |t: TernaryTensor| Linear::ternary(t, self.mode).map_err(located);
        if let Some(packing) = ty.packing() {
            let packed = TernaryTensor::new(packing, rows, cols, bytes, Scales::PerBlock);
            let packed = packed.map_err(|e| located(e.into()))?;
            // Routed experts are most of the file and checked when they are first used.
            if tensor.class != TensorClass::RoutedExpert {
                packed.validate().map_err(|e| located(e.into()))?;
            }
            return ternary(packed);
        }
        let layout = match ty {
            TensorType::I2s => Some(ternary_core::I2sLayout::X86),
            TensorType::I2sArm => Some(ternary_core::I2sLayout::Arm),
            _ => None,
        };
        if let Some(layout) = layout {
            let (codes, scale) = layout.decode(&bytes, rows * cols).map_err(|e| located(e.into()))?;
            if self.computes_in_floats() {
                return self.rounded(tensor, outer, scale);
            }
            let linear = self.trits(tensor, scale, |r, trits| {
                trits.copy_from_slice(&codes[r * cols..(r + 1) * cols]);
                Ok(())
            })?;
            if let Some(linear) = linear {
                self.catalog.release(tensor);
                return Ok(linear);
            }
        }
        self.dequantised(tensor, outer, rows, cols)
    }

    fn computes_in_floats(&self) -> bool {
        self.float_products && self.mode == ActMode::A8Token
    }

    /// One matrix of a tensor whose weights are trits times `scale`, for products in floating point: packed trits multiply
    /// codes and are scaled afterwards, numbers that the model rounds have their scale.
    fn rounded(&self, tensor: &LogicalTensor, outer: usize, scale: f32) -> Result<Linear> {
        let (rows, cols) = (tensor.matrix_rows(), tensor.cols());
        let located = |source| Error::Load(LoadError::Weight { tensor: tensor.name.clone(), source });
        let packed = self.catalog.tensor_type(tensor).is_some_and(TensorType::is_ternary);
        let bytes = self.values(tensor, outer, |value| match packed {
            true => f32::from(i8::from(value > 0.0) - i8::from(value < 0.0)),
            false => value,
        })?;
        Linear::rounded(rows, cols, bytes, packed.then_some(scale)).map_err(located)
    }

    /// One matrix of a tensor as trits with one scale, padded to whole blocks; `write` gives the trits of a row. `None` where
    /// no product reads them: rows that fill no whole blocks, with activations that are not rounded.
    fn trits(
        &self,
        tensor: &LogicalTensor,
        scale: f32,
        mut write: impl FnMut(usize, &mut [i8]) -> Result<()>,
    ) -> Result<Option<Linear>> {
        let (rows, cols) = (tensor.matrix_rows(), tensor.cols());
        let whole = cols.is_multiple_of(BLOCK);
        if !whole && self.mode == ActMode::F32 {
            return Ok(None);
        }
        let located = |source| Error::Load(LoadError::Weight { tensor: tensor.name.clone(), source });
        let (packing, padded) = (Packing::Tq2_0, cols.next_multiple_of(BLOCK));
        let row_bytes = packing.row_bytes(padded).map_err(|e| located(e.into()))?;
        let size = rows.saturating_mul(row_bytes);
        let no_memory = |_| Error::Load(LoadError::Memory { what: tensor.name.clone(), bytes: size });
        let (mut bytes, mut trits) = (Vec::new(), vec![0; padded]);
        bytes.try_reserve_exact(size).map_err(no_memory)?;
        bytes.resize(size, 0);
        for (r, packed) in bytes.chunks_exact_mut(row_bytes).enumerate() {
            write(r, &mut trits[..cols])?;
            for (block, out) in trits.as_chunks().0.iter().zip(packed.chunks_exact_mut(packing.block_bytes())) {
                packing.encode(block, f16::ONE, out);
            }
        }
        let packed = TernaryTensor::new(packing, rows, padded, Bytes::from(bytes), Scales::PerTensor(scale));
        let packed = packed.map_err(|e| located(e.into()))?;
        let linear = match whole {
            true => Linear::ternary(packed, self.mode),
            false => Linear::ternary_padded(packed, cols, self.mode),
        };
        linear.map(Some).map_err(located)
    }

    /// One matrix of a tensor as F32, a row at a time.
    fn dequantised(&self, tensor: &LogicalTensor, outer: usize, rows: usize, cols: usize) -> Result<Linear> {
        let bytes = self.values(tensor, outer, |value| value)?;
        let located = |source| Error::Load(LoadError::Weight { tensor: tensor.name.clone(), source });
        Linear::dense(DenseType::F32, rows, cols, bytes).map_err(located)
    }

    /// The values of one matrix of a tensor, changed by `change`, as F32.
    fn values(&self, tensor: &LogicalTensor, outer: usize, change: impl Fn(f32) -> f32) -> Result<Bytes> {
        let (rows, cols) = (tensor.matrix_rows(), tensor.cols());
        let mut row = vec![0.0; cols];
        let mut bytes = Vec::new();
        let size = rows.checked_mul(cols).and_then(|n| n.checked_mul(4)).unwrap_or(usize::MAX);
        let no_memory = |_| Error::Load(LoadError::Memory { what: tensor.name.clone(), bytes: size });
        bytes.try_reserve_exact(size).map_err(no_memory)?;
        for r in outer * rows..(outer + 1) * rows {
            self.catalog.read_rows(tensor, r..r + 1, &mut row)?;
            bytes.extend(row.iter().flat_map(|&x| change(x).to_le_bytes()));
        }
        self.catalog.release(tensor);
        Ok(Bytes::from(bytes))
    }

    fn floats(&self, tensor: &LogicalTensor) -> Result<Vec<f32>> {
        let mut values = vec![0.0; tensor.elements()];
        self.catalog.read_rows(tensor, 0..tensor.rows(), &mut values)?;
        self.catalog.release(tensor);
        Ok(values)
    }
}

/// The kernel type of a dense storage type that is computed with as it is.
pub(crate) fn dense_type(ty: TensorType) -> Option<DenseType> {
    Some(match ty {
        TensorType::F32 => DenseType::F32,
        TensorType::F16 => DenseType::F16,
        TensorType::Bf16 => DenseType::Bf16,
        TensorType::Q8_0 => DenseType::Q8_0,
        TensorType::Q6K => DenseType::Q6K,
        TensorType::Q2_0 => DenseType::Q2_0,
        _ => return None,
    })
}
