//! The memory that a measurement takes, summed before it begins.

use gguf_bitnet::{TensorClass, TensorType};
use mla_attention::CacheType;
use moe_runtime::{MemoryPlan, ModelFiles};

use super::head::HEAD_ROWS;
use super::sensitivity::BATCH_TOKENS;
use crate::ptq::layer_of;
use crate::recipe::deciding_class;

/// Upper bound of the memory of a measurement on these windows, beyond that of writing rows.
pub(crate) fn memory_bytes(files: &ModelFiles, windows: &[Vec<u32>]) -> u64 {
    let config = &files.config;
    let product = |factors: &[usize]| factors.iter().fold(1u64, |p, &f| p.saturating_mul(f as u64));
    let tokens = windows.iter().map(Vec::len).sum();
    let longest = windows.iter().map(Vec::len).max().unwrap_or(0);
    let ff = config.moe.as_ref().map_or(0, |moe| moe.expert_ff.max(moe.shared_ff())).max(config.dense_ff);
    // The stream in front of a layer, behind its attention and behind it; a network's inputs, the teacher's and the student's
    // outputs, and what three types of two classes change. The head needs fewer.
    let streams = product(&[tokens, config.hidden, 4, 12]);
    // A network in F32, and one matrix as bytes, as values and once more while it is built.
    let network = product(&[config.hidden, ff, 4 * 6]);
    let head = product(&[HEAD_ROWS, config.hidden, 4 * 5]).saturating_add(product(&[HEAD_ROWS, tokens, 4]));
    let run = MemoryPlan::new(config, &files.catalog, longest, CacheType::F32, BATCH_TOKENS.max(longest));
    // The largest layer of the teacher, mapped or in F32, with its attention twice in the student's type; or the ends of the model.
    let mut layers = vec![0u64; config.n_layers + 1];
    for tensor in files.catalog.tensors() {
        let layer = layer_of(&tensor.name).unwrap_or(config.n_layers);
        let is_attention = deciding_class(tensor.class) == TensorClass::Attention;
        let in_memory = |ty: TensorType, params: u64, bytes: u64| match (is_attention, is_kept(ty)) {
            (true, _) => bytes.saturating_add(params.saturating_mul(12)),
            (false, true) => bytes,
            (false, false) => bytes.saturating_add(params.saturating_mul(4)),
        };
        let storage = files.catalog.storage(tensor).into_iter();
        let bytes = storage.fold(0u64, |sum, (ty, (params, bytes))| sum.saturating_add(in_memory(ty, params, bytes)));
        if let Some(sum) = layers.get_mut(layer) {
            *sum = sum.saturating_add(bytes);
        }
    }
    let layer = layers.into_iter().max().unwrap_or(0);
    [streams, network.max(head), run.scratch_bytes, run.cache_bytes, layer].into_iter().fold(0u64, u64::saturating_add)
}

/// Whether the runtime computes with a type as it is in the file.
fn is_kept(ty: TensorType) -> bool {
    ty.is_ternary() || ty.is_writable()
}
