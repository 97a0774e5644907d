//! Weights of the teacher as a plan stores them: encoded, and decoded again.

use std::ops::Range;

use gguf_bitnet::{TensorClass, dequantize};
use moe_runtime::forward::SwiGlu;
use moe_runtime::{LoadError, ModelFiles};
use ternary_core::Rounding;
use tl_kernels::{Linear, Pool};

use crate::encode::{Encoding, Rows, encode_rows};
use crate::error::{Error, Result};
use crate::ptq::{LayerTensors, layer_of};
use crate::recipe::deciding_class;
use crate::student::StudentPlan;

/// A teacher, and how its weights become those of a student.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    pub(crate) files: &'a ModelFiles,
    pub(crate) pool: &'a Pool,
    /// The rounding of ternary types.
    pub(crate) rounding: Rounding,
}

/// A feed-forward network of the teacher.
pub(super) struct Network<'a> {
    pub(super) class: TensorClass,
    /// Its number in a stack.
    pub(super) expert: Option<usize>,
    pub(super) swiglu: &'a SwiGlu,
    /// The tokens that pass through it, each with its gate.
    pub(super) tokens: Vec<(usize, f32)>,
}

impl Weights<'_> {
    /// A network of a layer with its matrices as `plan` stores them.
    pub(super) fn network(&self, plan: &StudentPlan, layer: usize, network: &Network<'_>) -> Result<SwiGlu> {
        let suffix = match network.class {
            TensorClass::RoutedExpert => "_exps",
            TensorClass::SharedExpert => "_shexp",
            _ => "",
        };
        let matrix = |part: &str| {
            let index = index_of(plan, &format!("blk.{layer}.ffn_{part}{suffix}.weight"))?;
            let rows = self.files.catalog.tensors()[index].matrix_rows();
            let first = network.expert.unwrap_or(0) * rows;
            linear(plan.tensors[index].cols(), self.values(plan, index, first..first + rows)?)
        };
        Ok(network.swiglu.with_matrices(matrix("gate")?, matrix("up")?, matrix("down")?)?)
    }

    /// The attention of a layer, with its norms and biases.
    pub(super) fn attention(&self, plan: &StudentPlan, layer: usize) -> Result<LayerTensors> {
        let is_needed =
            |class| matches!(deciding_class(class), TensorClass::Attention | TensorClass::Norm | TensorClass::Bias);
        let tensors = plan.tensors.iter().enumerate();
        let tensors = tensors.filter(|(_, tensor)| layer_of(&tensor.name) == Some(layer) && is_needed(tensor.class));
        let tensors =
            tensors.map(|(index, tensor)| Ok((plan.info(index)?, self.encoded(plan, index, 0..tensor.rows())?)));
        Ok(LayerTensors::new(tensors.collect::<Result<Vec<_>>>()?, self.files.path()))
    }

    /// The values of rows of a tensor.
    pub(super) fn values(&self, plan: &StudentPlan, index: usize, rows: Range<usize>) -> Result<Vec<f32>> {
        let tensor = &plan.tensors[index];
        let mut values = vec![0.0; rows.len() * tensor.cols()];
        dequantize(tensor.assignment.ty, &self.encoded(plan, index, rows)?, &mut values)?;
        Ok(values)
    }

    fn encoded(&self, plan: &StudentPlan, index: usize, rows: Range<usize>) -> Result<Vec<u8>> {
        let catalog = &self.files.catalog;
        let (planned, tensor) = (&plan.tensors[index], &catalog.tensors()[index]);
        let encoding = Encoding { ty: planned.assignment.ty, rounding: self.rounding, cols: planned.cols() };
        let read = |rows, out: &mut [f32]| Ok(catalog.read_rows(tensor, rows, out)?);
        let mut bytes = Vec::new();
        encode_rows(self.pool, encoding, Rows { numbers: rows, read: &read }, &mut bytes)
            .map_err(|error| error.of_tensor(&planned.name, self.files.path()))?;
        Ok(bytes)
    }
}

/// The position of a tensor in a plan and in the catalog.
pub(super) fn index_of(plan: &StudentPlan, name: &str) -> Result<usize> {
    plan.tensors.iter().position(|tensor| tensor.name == name).ok_or_else(|| missing(name))
}

pub(super) fn missing(name: &str) -> Error {
    moe_runtime::Error::Load(LoadError::MissingTensor { tensor: name.to_owned() }).into()
}

/// A matrix of rows of `cols` values.
pub(super) fn linear(cols: usize, values: Vec<f32>) -> Result<Linear> {
    Ok(Linear::from_f32(values.len() / cols.max(1), cols, values).map_err(moe_runtime::Error::from)?)
}
