//! The purpose of an open file, recognised by its metadata and by the names of its tensors.
//!
//! Sources: `general.type` and the metadata that llama.cpp's converters write; the names that the tensors of adapters have
//! in llama.cpp and in PEFT.

use super::role::Role;
use crate::gguf::{Metadata, Value};
use crate::source::TensorSource;

impl Role {
    /// The purpose of an open file, by the metadata of a GGUF (`None` for safetensors) and by the names of its tensors.
    ///
    /// ```
    /// use gguf_bitnet::{OpenModel, Role};
    /// let model = OpenModel::open(&fixtures::path("goldens/glm-tiny"))?;
    /// assert_eq!(model.role(), Role::Model);
    /// # Ok::<(), gguf_bitnet::Error>(())
    /// ```
    pub fn of(source: &dyn TensorSource, metadata: Option<&Metadata>) -> Role {
        let text = |key: &str| match metadata.and_then(|metadata| metadata.get(key)) {
            Some(Value::String(text)) => text.as_str(),
            _ => "",
        };
        let has = |prefix: &str| metadata.is_some_and(|m| m.iter().any(|(key, _)| key.starts_with(prefix)));
        let every = |is: fn(&str) -> bool| {
            !source.tensors().is_empty() && source.tensors().iter().all(|tensor| is(&tensor.name))
        };
        let (kind, architecture) = (text("general.type"), text("general.architecture"));
        if kind == "adapter" || has("adapter.") || every(is_adapter_tensor) {
            Role::Adapter
        } else if kind == "imatrix" || has("imatrix.") || every(is_importance_tensor) {
            Role::ImportanceMatrix
        } else if kind == "mmproj" || architecture == "clip" || has("clip.") {
            Role::Projector
        } else if architecture == "controlvector" || has("controlvector.") {
            Role::ControlVector
        } else if kind == "vocab" || (source.tensors().is_empty() && has("tokenizer.")) {
            Role::Vocabulary
        } else {
            Role::Model
        }
    }
}

/// Whether a tensor is part of an adapter, as `blk.0.attn_q.weight.lora_a` (llama.cpp) and
/// `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` (PEFT) are.
fn is_adapter_tensor(name: &str) -> bool {
    [".lora_a", ".lora_b"].iter().any(|end| name.ends_with(end))
        || [".lora_A.", ".lora_B.", ".lora_embedding_", ".lora_magnitude_vector"].iter().any(|part| name.contains(part))
}

/// Whether a tensor is part of an importance matrix: sums of squares such as `blk.0.attn_q.weight.in_sum2`, or counts.
fn is_importance_tensor(name: &str) -> bool {
    name.ends_with(".in_sum2") || name.ends_with(".counts")
}
