//! Failures of adapters.

/// An adapter that cannot be used, or not with this model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message names its fields")]
pub enum AdapterError {
    /// A file of another purpose.
    #[error("`{key}` is {got}, and not `{expected}`; give a LoRA adapter in GGUF, as `bitnet adapt` writes it")]
    Kind { key: &'static str, expected: &'static str, got: String },
    /// An adapter of another architecture.
    #[error("the adapter is made for the architecture {adapter}, and the model has {model}; use it with its own model")]
    Architecture { adapter: String, model: String },
    /// An adapter of another model.
    #[error(
        "the adapter is made for the model {adapter}, and this model is {model}; use it with its own model, or make one for this model with `bitnet adapt`"
    )]
    OtherModel { adapter: String, model: String },
    /// A file without any addition.
    #[error("the adapter has no tensors; make it again")]
    Empty,
    /// A tensor that is no factor of an addition.
    #[error("`{tensor}` ends in neither `.lora_a` nor `.lora_b`; convert the adapter again")]
    NoFactor { tensor: String },
    /// A factor without the other one.
    #[error("`{tensor}` has no partner `{missing}`; the adapter is incomplete: make or convert it again")]
    Unpaired { tensor: String, missing: String },
    /// An addition to a tensor that the model does not have.
    #[error("the model has no tensor `{tensor}`; use the adapter with its own model")]
    NoTensor { tensor: String },
    /// An addition to a tensor that takes none.
    #[error(
        "an adapter cannot change `{tensor}`; additions go to projections of the attention that stand by themselves, feed-forward matrices, the head and sidecars"
    )]
    Unsupported { tensor: String },
    /// A factor of other dimensions than the model's matrix asks for.
    #[error(
        "`{tensor}` has the shape {got:?}, and the model asks for {expected:?}; use the adapter with its own model"
    )]
    Shape { tensor: String, expected: Vec<usize>, got: Vec<usize> },
    /// A rank that no product of two thin matrices has.
    #[error("the addition to `{tensor}` has rank {rank}, and a matrix of its size takes 1 to {limit}")]
    Rank { tensor: String, rank: usize, limit: usize },
    /// A factor with a number that is not finite.
    #[error("`{tensor}` holds a number that is NaN or infinite; make the adapter again")]
    NotFinite { tensor: String },
    /// A strength that is not a number.
    #[error("the adapter has the {name} {value}; give a finite number")]
    Scale { name: &'static str, value: f32 },
    /// An adapter that takes effect only behind certain tokens.
    #[error("the adapter takes effect behind certain tokens only (`{key}`), which is not supported")]
    Invocation { key: &'static str },
}
