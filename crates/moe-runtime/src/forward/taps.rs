//! The places where a caller may observe the forward pass, and where it may replace a value.
//!
//! ```text
//! x ──layer_in──► norm ──attention_in──► attention ──attention_out──► + ──► norm ──ffn_in──┐
//!                                                                     │                    │
//!        ┌──────────── router ──► scores, decision ◄───────────────────┼────────────────────┤
//!        └─► expert_in ──► gate, up ──► expert_hidden ──► down ──► expert_out ──► + ──layer_out──►
//! ```
//!
//! Arguments that are `&mut` may be overwritten: that replaces an input or forces a routing. Batches arrive in the order
//! in which they are computed, so a long prompt calls each tap several times with growing [`At::first`].
//!
//! **Invariant:** `()` taps nothing and costs nothing: every method is an empty default and the forward pass is generic.

use tl_kernels::ActivationBuffer;

use crate::forward::router::RoutingDecision;

/// The batch and the layer a tap is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Index of the layer in the model.
    pub layer: usize,
    /// Position of the batch's first token in its sequence. Tokens of other sequences may follow behind it
    /// ([`Step`](crate::Step)).
    pub first: usize,
    /// Tokens in the batch.
    pub n: usize,
}

/// A feed-forward network within a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExpertId {
    /// Routed expert, by index.
    Routed(usize),
    /// The expert that all tokens pass through.
    Shared,
    /// The only network of a dense layer.
    Dense,
}

/// Observers and overrides of a forward pass; every method may be left out.
#[expect(unused_variables, reason = "the defaults do nothing; the names document the arguments")]
pub trait Taps {
    /// The residual stream before a layer, `[n, hidden]`.
    fn layer_in(&mut self, at: At, x: &mut [f32]) {}

    /// The normed input of the attention, `[n, hidden]`.
    fn attention_in(&mut self, at: At, x: &[f32]) {}

    /// The output of the attention, which is added to the residual stream, `[n, hidden]`.
    fn attention_out(&mut self, at: At, y: &mut [f32]) {}

    /// The normed input of the feed-forward part, `[n, hidden]`.
    fn ffn_in(&mut self, at: At, x: &[f32]) {}

    /// All router logits and the scores they became, each `[n, n_experts]`, before any bias.
    fn router(&mut self, at: At, logits: &[f32], scores: &[f32]) {}

    /// The selected experts and their weights. Every id must stay below the number of experts.
    fn routing(&mut self, at: At, decision: &mut RoutingDecision) {}

    /// An expert reads the rows `tokens` of the batch `x`.
    fn expert_in(&mut self, at: At, expert: ExpertId, tokens: &[u32], x: &ActivationBuffer) {}

    /// `silu(gate) * up` of those rows, `[tokens.len(), ff]`: the input of the expert's down projection.
    fn expert_hidden(&mut self, at: At, expert: ExpertId, tokens: &[u32], rows: &[f32]) {}

    /// The expert's output before its weight, `[tokens.len(), hidden]`.
    fn expert_out(&mut self, at: At, expert: ExpertId, tokens: &[u32], y: &[f32]) {}

    /// The residual stream after a layer, `[n, hidden]`.
    fn layer_out(&mut self, at: At, x: &mut [f32]) {}

    /// The residual stream after the final norm, `[n, hidden]`, of positions from `first` on.
    fn final_hidden(&mut self, first: usize, x: &[f32]) {}
}

impl Taps for () {}

impl<T: Taps + ?Sized> Taps for &mut T {
    fn layer_in(&mut self, at: At, x: &mut [f32]) {
        (**self).layer_in(at, x);
    }
    fn attention_in(&mut self, at: At, x: &[f32]) {
        (**self).attention_in(at, x);
    }
    fn attention_out(&mut self, at: At, y: &mut [f32]) {
        (**self).attention_out(at, y);
    }
    fn ffn_in(&mut self, at: At, x: &[f32]) {
        (**self).ffn_in(at, x);
    }
    fn router(&mut self, at: At, logits: &[f32], scores: &[f32]) {
        (**self).router(at, logits, scores);
    }
    fn routing(&mut self, at: At, decision: &mut RoutingDecision) {
        (**self).routing(at, decision);
    }
    fn expert_in(&mut self, at: At, expert: ExpertId, tokens: &[u32], x: &ActivationBuffer) {
        (**self).expert_in(at, expert, tokens, x);
    }
    fn expert_hidden(&mut self, at: At, expert: ExpertId, tokens: &[u32], rows: &[f32]) {
        (**self).expert_hidden(at, expert, tokens, rows);
    }
    fn expert_out(&mut self, at: At, expert: ExpertId, tokens: &[u32], y: &[f32]) {
        (**self).expert_out(at, expert, tokens, y);
    }
    fn layer_out(&mut self, at: At, x: &mut [f32]) {
        (**self).layer_out(at, x);
    }
    fn final_hidden(&mut self, first: usize, x: &[f32]) {
        (**self).final_hidden(first, x);
    }
}
