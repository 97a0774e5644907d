//! An adapter in training: where it starts, and its file.
//!
//! **Invariant:** the model that an adapter belongs to stays as it is.

use gguf_bitnet::{TensorClass, TensorInfo, TensorType};
use moe_runtime::ModelFiles;
use moe_runtime::adapters::{AdapterFile, FactorPair, sidecar_name};

use super::error::TrainError;
use super::params::Group;
use crate::adapt::{AdaptError, check_rank, check_rank_within};
use crate::error::Result;

/// An adapter that adds nothing to the ternary feed-forward matrices of `student`, as a start for training.
///
/// # Errors
/// A student without such matrices, a rank that they do not have.
pub fn blank_adapter(student: &ModelFiles, rank: usize) -> Result<AdapterFile> {
    check_rank(student, rank)?;
    let is_network =
        |class| matches!(class, TensorClass::RoutedExpert | TensorClass::SharedExpert | TensorClass::DenseFfn);
    let mut pairs = Vec::new();
    for tensor in student.catalog.tensors().iter().filter(|tensor| is_network(tensor.class)) {
        if student.catalog.tensor_type(tensor).is_some_and(TensorType::is_ternary) {
            pairs.push(zeros(&tensor.name, &tensor.shape, rank));
        }
    }
    if pairs.is_empty() {
        return Err(AdaptError::NothingTernary.into());
    }
    pairs.sort_by(|a, b| a.tensor.cmp(&b.tensor));
    Ok(AdapterFile { pairs, ..adapter_of(student, None) })
}

/// An adapter whose sidecars, one per layer of `student`, add nothing, as a start for training.
///
/// # Errors
/// A rank above the width of the residual stream, and 0.
pub fn blank_sidecar(student: &ModelFiles, rank: usize) -> Result<AdapterFile> {
    let (limit, layers) = (student.config.hidden, 0..student.config.n_layers);
    check_rank_within(rank, limit)?;
    let mut pairs: Vec<_> = layers.map(|layer| zeros(&sidecar_name(layer), &[limit, limit], rank)).collect();
    pairs.sort_by(|a, b| a.tensor.cmp(&b.tensor));
    Ok(AdapterFile { pairs, ..adapter_of(student, None) })
}

/// The groups of an adapter's additions, in the order of reports.
#[must_use]
pub fn groups_of(adapter: &AdapterFile) -> Vec<Group> {
    let has = |group| adapter.pairs.iter().any(|pair| Group::of_addition(&pair.tensor) == group);
    Group::ALL.into_iter().filter(|group| group.is_of_adapter() && has(*group)).collect()
}

/// Refuses groups other than those of the additions that a run starts from.
pub(super) fn check_groups(groups: &[Group], adapter: Option<&AdapterFile>) -> Result<(), TrainError> {
    let asked: Vec<Group> = groups.iter().copied().filter(|group| group.is_of_adapter()).collect();
    let held = adapter.map(groups_of).unwrap_or_default();
    if adapter.is_some() == asked.is_empty() {
        return Err(TrainError::NoAdapter);
    }
    let is_in = |groups: &[Group], others: &[Group]| groups.iter().all(|group| others.contains(group));
    if is_in(&asked, &held) && is_in(&held, &asked) {
        return Ok(());
    }
    let names = |groups: &[Group]| groups.iter().map(|group| group.name()).collect::<Vec<_>>().join(", ");
    Err(TrainError::AdapterGroups { held: names(&held), asked: names(&asked) })
}

/// An addition of nothing to a matrix or a stack of this shape.
fn zeros(tensor: &str, shape: &[usize], rank: usize) -> FactorPair {
    let (stack, matrix) = shape.split_at(shape.len() - 2);
    let [a_shape, b_shape] = [[rank, matrix[1]], [matrix[0], rank]].map(|shape| [stack, &shape[..]].concat());
    let zeros = |shape: &[usize]| vec![0.0; shape.iter().product()];
    let (a, b) = (zeros(&a_shape), zeros(&b_shape));
    FactorPair { tensor: tensor.to_owned(), a_shape, b_shape, a, b }
}

/// An adapter without additions, whose factors count as they are.
pub(super) fn adapter_of(student: &ModelFiles, model: Option<&str>) -> AdapterFile {
    AdapterFile {
        architecture: student.config.arch.gguf_name().to_owned(),
        model: model.map(str::to_owned),
        alpha: 0.0,
        pairs: Vec::new(),
    }
}

/// BLAKE3 of the additions that an adapter starts from.
pub(super) fn blake3_of(adapter: &AdapterFile) -> String {
    let mut hasher = blake3::Hasher::new();
    for pair in &adapter.pairs {
        hasher.update(format!("{} {:?} {:?} ", pair.tensor, pair.a_shape, pair.b_shape).as_bytes());
        hasher.update(&adapter.scale(pair.rank()).to_le_bytes());
        pair.a.iter().chain(&pair.b).for_each(|value| {
            hasher.update(&value.to_le_bytes());
        });
    }
    hasher.finalize().to_string()
}

/// The tensors of an adapter's file, in the order of the entries of the registry.
pub(super) fn tensors(adapter: &AdapterFile) -> Vec<TensorInfo> {
    let tensor = |name: String, shape: &[usize]| {
        let bytes = 2 * shape.iter().product::<usize>() as u64;
        TensorInfo { name, shape: shape.to_vec(), ty: TensorType::F16, bytes }
    };
    let of_pair = |pair: &FactorPair| {
        [(".lora_a", &pair.a_shape), (".lora_b", &pair.b_shape)]
            .map(|(end, shape)| tensor(format!("{}{end}", pair.tensor), shape))
    };
    adapter.pairs.iter().flat_map(of_pair).collect()
}
