//! What a model is: its configuration, and the tensors that its file must hold.

pub(crate) mod config;
pub(crate) mod tensors;
