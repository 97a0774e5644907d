//! Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): its dimensions, weights and forward pass.

mod config;
mod forward;
mod weights;

pub use config::MlaConfig;
pub use forward::MlaAttention;
pub(crate) use forward::MlaScratch;
pub use weights::{MlaWeights, QueryProjection};
