//! The tensors of one layer of a student in the making: encoded without calibration, loaded, and replaced row by row.

use std::collections::BTreeMap;

use gguf_bitnet::Trits;
use moe_runtime::ModelFiles;
use moe_runtime::forward::DecoderLayer;
use ternary_core::Rounding;
use tl_kernels::Pool;

use super::problem::Matrix;
use super::rows::TernaryRow;
use super::source::LayerTensors;
use super::steps::Search;
use crate::encode::{Encoding, Rows, encode_rows};
use crate::error::Result;
use crate::policy::{KnownSettings, policy_subject};
use crate::student::StudentPlan;

/// The inputs of a layer besides the streams.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) files: &'a ModelFiles,
    pub(super) plan: &'a StudentPlan,
    pub(super) search: &'a Search,
    /// The settings that earlier runs chose.
    pub(super) known: &'a KnownSettings,
    pub(super) pool: &'a Pool,
}

/// The endings of the tensors' names of a dense network, of routed experts and of shared ones.
pub(super) const DENSE: &str = "";
pub(super) const ROUTED: &str = "_exps";
pub(super) const SHARED: &str = "_shexp";

/// Indices of gate, up and down in the plan.
pub(super) type Names = [usize; 3];

/// The tensors of the networks with this ending in a layer, if any is ternary.
pub(super) fn ternary_names(plan: &StudentPlan, layer: usize, suffix: &str) -> Option<Names> {
    let find = |part: &str| {
        let name = format!("blk.{layer}.ffn_{part}{suffix}.weight");
        plan.tensors.iter().position(|tensor| tensor.name == name)
    };
    let names = [find("gate")?, find("up")?, find("down")?];
    names.iter().any(|&index| plan.tensors[index].assignment.ty.is_ternary()).then_some(names)
}

/// The layers with a ternary network, ascending, and the bytes of the ternary matrices of their networks.
pub(crate) fn ternary_layers(plan: &StudentPlan, n_layers: usize) -> Vec<(usize, u64)> {
    let bytes_of = |index: usize| {
        let planned = &plan.tensors[index];
        let bytes = planned.assignment.ty.is_ternary().then(|| planned.assignment.ty.tensor_bytes(&planned.shape).ok());
        bytes.flatten().unwrap_or(0)
    };
    let bytes = |layer: usize| {
        let names: Vec<Names> =
            [DENSE, ROUTED, SHARED].into_iter().filter_map(|suffix| ternary_names(plan, layer, suffix)).collect();
        (!names.is_empty()).then(|| (layer, names.into_iter().flatten().map(bytes_of).sum()))
    };
    (0..n_layers).filter_map(bytes).collect()
}

/// The layer that a tensor belongs to, by its canonical name.
pub(crate) fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split_once('.')?.0.parse().ok()
}

/// Every tensor of the layer in its type, without calibration, by its index in the plan.
pub(super) fn plain_tensors(context: Context<'_>, layer: usize) -> Result<BTreeMap<usize, Vec<u8>>> {
    let Context { files, plan, pool, .. } = context;
    let mut made = BTreeMap::new();
    for (index, planned) in plan.tensors.iter().enumerate() {
        if layer_of(&planned.name) != Some(layer) {
            continue;
        }
        let tensor = &files.catalog.tensors()[index];
        let encoding = Encoding { ty: planned.assignment.ty, rounding: Rounding::LeastSquares, cols: planned.cols() };
        let read = |rows, out: &mut [f32]| Ok(files.catalog.read_rows(tensor, rows, out)?);
        let mut bytes = Vec::new();
        encode_rows(pool, encoding, Rows { numbers: 0..planned.rows(), read: &read }, &mut bytes)
            .map_err(|error| error.of_tensor(&planned.name, files.path()))?;
        made.insert(index, bytes);
    }
    Ok(made)
}

/// The layer of the student as the runtime computes it.
pub(super) fn load(context: Context<'_>, layer: usize, tensors: &BTreeMap<usize, Vec<u8>>) -> Result<DecoderLayer> {
    let infos = tensors.iter().map(|(&index, bytes)| Ok((context.plan.info(index)?, bytes.clone())));
    let tensors = LayerTensors::new(infos.collect::<Result<Vec<_>>>()?, context.files.path());
    tensors.load(&context.files.config, layer)
}

/// One matrix of the teacher, with the values that its plain bytes hold.
pub(super) fn matrix(context: Context<'_>, expert: Option<usize>, index: usize, plain: &[u8]) -> Result<Matrix> {
    let Context { files, plan, known, .. } = context;
    let (planned, tensor) = (&plan.tensors[index], &files.catalog.tensors()[index]);
    let (rows, cols, ty) = (tensor.matrix_rows(), planned.cols(), planned.assignment.ty);
    let first = expert.unwrap_or(0) * rows;
    let mut teacher = vec![0.0; rows * cols];
    files.catalog.read_rows(tensor, first..first + rows, &mut teacher)?;
    let row_bytes = ty.row_bytes(cols)?;
    let mut values = vec![0.0; rows * cols];
    gguf_bitnet::dequantize(ty, &plain[first * row_bytes..][..rows * row_bytes], &mut values)?;
    let known = known.get(&policy_subject(&planned.name, expert)).copied();
    Ok(Matrix { teacher, plain: values, cols, block: ty.trit_block(), known })
}

/// Writes the rows of a matrix that were solved for over the plain ones.
pub(super) fn splice(
    plan: &StudentPlan,
    expert: Option<usize>,
    index: usize,
    rows: &[Option<TernaryRow>],
    tensors: &mut BTreeMap<usize, Vec<u8>>,
) -> Result<()> {
    let (ty, cols) = (plan.tensors[index].assignment.ty, plan.tensors[index].cols());
    let Some(bytes) = tensors.get_mut(&index) else { return Ok(()) };
    let row_bytes = ty.row_bytes(cols)?;
    let bytes = &mut bytes[expert.unwrap_or(0) * rows.len() * row_bytes..][..rows.len() * row_bytes];
    for (bytes, row) in bytes.chunks_exact_mut(row_bytes).zip(rows) {
        if let Some(TernaryRow { trits, scales }) = row {
            let scales = scales.iter().map(|scale| scale.to_f32()).collect();
            bytes.copy_from_slice(&Trits::new(cols, trits.clone(), scales).write(ty)?);
        }
    }
    Ok(())
}
