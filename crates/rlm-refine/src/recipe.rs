//! The type that each tensor of a student gets.
//!
//! One [`Recipe`] is shared by quantisation, synthetic models and inspection, so that the three cannot disagree.
//! It holds the layer filter of the project: **routers, norms, biases, the embedding and the head are never ternary**;
//! an override that asks for it is refused.
//!
//! | preset | routed experts | shared experts | dense FFN | attention | `attn_k_b`, `attn_v_b` | embedding, head |
//! |---|---|---|---|---|---|---|
//! | `quality`  | TQ2_0 | Q8_0  | Q8_0  | Q8_0  | Q8_0 | Q8_0 |
//! | `balanced` | TQ2_0 | Q6_K  | Q6_K  | Q6_K  | Q6_K | Q6_K |
//! | `8g`       | TQ1_0 | Q6_K  | Q6_K  | Q6_K  | Q6_K | Q6_K |
//! | `phase1`   | TQ2_0 | TQ2_0 | F16   | F16   | F16  | F16  |
//! | `phase2`   | TQ2_0 | TQ2_0 | TQ2_0 | TQ2_0 | Q8_0 | F16  |
//!
//! A search within a byte budget ([`PrecisionOptions`](crate::PrecisionOptions)) replaces the preset by a type per class.
//!
//! A model without experts has the type of routed experts in its feed-forward parts.
//!
//! A row that does not fill the blocks of its type falls back to Q8_0 (rows of 32) or F16, and the report names it:
//! `attn_k_b` of GLM-4.7-Flash has rows of 192 and becomes Q8_0 where the table says Q6_K. Rows of 64 weights can be ternary
//! as Q2_0, on request.

mod assign;
mod error;
mod overrides;
mod preset;

pub(crate) use assign::deciding_class;
pub use assign::{Assignment, Reason, Recipe, Ternary};
pub use error::RecipeError;
pub use overrides::Override;
pub use preset::Preset;
