//! An adapter in training: where it starts, and its file.
//!
//! **Invariant:** the model that an adapter belongs to stays as it is.

use gguf_bitnet::{TensorClass, TensorInfo, TensorType};
use moe_runtime::ModelFiles;
use moe_runtime::adapters::{AdapterFile, FactorPair};

use crate::adapt::{AdaptError, check_rank};
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
            let (stack, matrix) = tensor.shape.split_at(tensor.shape.len() - 2);
            let [a_shape, b_shape] = [[rank, matrix[1]], [matrix[0], rank]].map(|shape| [stack, &shape[..]].concat());
            let zeros = |shape: &[usize]| vec![0.0; shape.iter().product()];
            let (a, b) = (zeros(&a_shape), zeros(&b_shape));
            pairs.push(FactorPair { tensor: tensor.name.clone(), a_shape, b_shape, a, b });
        }
    }
    if pairs.is_empty() {
        return Err(AdaptError::NothingTernary.into());
    }
    pairs.sort_by(|a, b| a.tensor.cmp(&b.tensor));
    Ok(AdapterFile { pairs, ..adapter_of(student, None) })
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
