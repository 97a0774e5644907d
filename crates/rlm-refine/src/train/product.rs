//! The file that a run writes, and the units that it is written in: the student with trained values, or an adapter.
//!
//! **Invariant:** units cover all bytes of the file's tensors once, in order.

use std::ops::Range;

use gguf_bitnet::{GgufFile, LogicalTensor, TensorInfo, TensorSource, quantize_row};
use moe_runtime::ModelFiles;
use moe_runtime::adapters::AdapterFile;
use tl_kernels::Pool;

use super::adapter;
use super::error::TrainError;
use super::weights::Weights;
use super::write::{encode, places};
use crate::error::Result;

/// Bytes of a tensor that are written in one unit.
pub(super) const UNIT_BYTES: usize = 64 << 20;

/// The file that a run writes.
pub(super) enum Product<'a> {
    /// The student's file, whose tensors are those of the model at these places.
    Student(&'a GgufFile, Vec<Option<&'a LogicalTensor>>),
    /// The factors of an adapter, whose tensors are the entries of the registry.
    Adapter(Vec<TensorInfo>),
}

/// Some bytes of a tensor of the file.
pub(super) struct Unit {
    pub(super) tensor: usize,
    bytes: Range<usize>,
    /// The rows that these bytes are; `None` for a type that is stored without rows.
    rows: Option<Range<usize>>,
}

impl<'a> Product<'a> {
    /// The file of a run that trains these weights of `student`, or an adapter for it.
    ///
    /// # Errors
    /// A student that is no GGUF of one file, a trained tensor of a type that is only read.
    pub(super) fn of(student: &'a ModelFiles, weights: &Weights<'_>, trained: Option<&AdapterFile>) -> Result<Self> {
        if let Some(trained) = trained {
            return Ok(Self::Adapter(adapter::tensors(trained)));
        }
        let places = places(student, weights)?;
        let unusable = || TrainError::NoStudent { path: student.path().display().to_string() };
        Ok(Self::Student(student.gguf().ok_or_else(unusable)?, places))
    }

    pub(super) fn tensors(&self) -> &[TensorInfo] {
        match self {
            Product::Student(file, _) => file.tensors(),
            Product::Adapter(tensors) => tensors,
        }
    }

    /// All bytes of the tensors, in order, cut between rows where there are rows.
    pub(super) fn units(&self) -> impl Iterator<Item = Unit> + '_ {
        self.tensors().iter().enumerate().flat_map(|(tensor, info)| {
            let len = usize::try_from(info.bytes).unwrap_or(usize::MAX);
            let row = info.ty.row_bytes(info.cols()).ok().filter(|row| *row > 0);
            let step = row.map_or(UNIT_BYTES, |row| (UNIT_BYTES / row).max(1) * row);
            (0..len).step_by(step).map(move |start| {
                let bytes = start..len.min(start + step);
                Unit { tensor, rows: row.map(|row| bytes.start / row..bytes.end / row), bytes }
            })
        })
    }

    /// The bytes of a unit for the values as they are now.
    ///
    /// # Errors
    /// A student that cannot be read, values that the type of their tensor cannot store.
    pub(super) fn bytes(&self, pool: &Pool, weights: &Weights<'_>, unit: &Unit) -> Result<Vec<u8>> {
        let info = &self.tensors()[unit.tensor];
        match self {
            Product::Student(file, places) => {
                let mut bytes = file.bytes(unit.tensor)?[unit.bytes.clone()].to_vec();
                if let (Some(tensor), Some(rows)) = (places[unit.tensor], unit.rows.clone()) {
                    encode(pool, weights, tensor, info.ty, rows, &mut bytes)?;
                }
                file.release_range(unit.tensor, unit.bytes.clone());
                Ok(bytes)
            }
            Product::Adapter(_) => {
                let numbers = unit.bytes.start / 2..unit.bytes.end / 2;
                let values = &weights.params.list()[unit.tensor].values[numbers];
                let mut bytes = Vec::with_capacity(unit.bytes.len());
                quantize_row(info.ty, values, &mut bytes).map_err(|error| error.in_tensor(&info.name))?;
                Ok(bytes)
            }
        }
    }
}
