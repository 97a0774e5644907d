//! Readers of a checkpoint's `config.json` that several architectures share: typed keys, and the parts built from them.
//!
//! Where transformers fixes a rule in code and not in the file, the architecture's own file fixes it too.

mod keys;
mod layers;
pub(crate) mod read;
pub(crate) mod sections;

pub(crate) use keys::HfKeys;
pub use layers::keep_layers;
