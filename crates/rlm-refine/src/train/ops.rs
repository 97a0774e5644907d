//! The operations of a training pass, each forward and backward, on slices.
//!
//! | file | contents |
//! |---|---|
//! | `norm` | RMSNorm |
//! | `rope` | rotary position embedding |
//! | `attend` | causal attention over expanded queries, keys and values |
//! | `gate` | the functions between gate and up of a feed-forward network |
//! | `route` | weights of the chosen experts |
//! | `loss` | divergence from full and from sparse teacher logits, cross entropy |
//!
//! A backward operation is named after its forward one and adds to the gradients that it is given, unless its comment says
//! otherwise. Gradients are named `d_x` for the derivative of the loss by `x`.

pub mod attend;
pub mod gate;
pub mod loss;
pub mod norm;
pub mod rope;
pub mod route;
