//! Grouped-query attention (arXiv 2305.13245): its dimensions, weights and forward pass.

mod config;
mod forward;
mod weights;

pub use config::GqaConfig;
pub use forward::GqaAttention;
pub(crate) use forward::GqaScratch;
pub use weights::GqaWeights;
