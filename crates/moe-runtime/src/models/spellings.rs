//! Spellings of feed-forward tensors that several architectures share: fused gates, stacked experts, old GGUF names.

use gguf_bitnet::{Piece, Spelling};

const WHOLE: Piece = Piece::Whole;
const GATE: Piece = Piece::FirstHalf;
const UP: Piece = Piece::SecondHalf;

/// The selection bias under the names that converters gave it before it was called a bias.
pub(crate) const SELECTION_BIAS: &[Spelling] =
    &[Spelling::gguf("exp_probs_b.weight", WHOLE), Spelling::gguf("exp_probs_b", WHOLE)];

/// The gate of a dense part, fused with its up.
pub(crate) const DENSE_GATE: &[Spelling] = &[Spelling::checkpoint("mlp.gate_up_proj.weight", GATE)];
/// The up of a dense part, fused with its gate.
pub(crate) const DENSE_UP: &[Spelling] = &[Spelling::checkpoint("mlp.gate_up_proj.weight", UP)];

/// The gate of the shared expert, fused with its up.
pub(crate) const SHARED_GATE: &[Spelling] = &[Spelling::checkpoint("mlp.shared_experts.gate_up_proj.weight", GATE)];
/// The up of the shared expert, fused with its gate.
pub(crate) const SHARED_UP: &[Spelling] = &[Spelling::checkpoint("mlp.shared_experts.gate_up_proj.weight", UP)];

/// The gates of the routed experts: stacked (a parameter of its own, or a module's weight), or fused with the ups.
pub(crate) const ROUTED_GATES: &[Spelling] = &[
    Spelling::gguf("ffn_gate.{}.weight", WHOLE),
    Spelling::gguf("ffn_gate_up_exps.weight", GATE),
    Spelling::checkpoint("mlp.experts.gate_proj", WHOLE),
    Spelling::checkpoint("mlp.experts.gate_proj.weight", WHOLE),
    Spelling::checkpoint("mlp.experts.gate_up_proj", GATE),
    Spelling::checkpoint("mlp.experts.gate_up_proj.weight", GATE),
    Spelling::checkpoint("mlp.experts.{}.gate_up_proj.weight", GATE),
];
/// The ups of the routed experts, in the same forms.
pub(crate) const ROUTED_UPS: &[Spelling] = &[
    Spelling::gguf("ffn_up.{}.weight", WHOLE),
    Spelling::gguf("ffn_gate_up_exps.weight", UP),
    Spelling::checkpoint("mlp.experts.up_proj", WHOLE),
    Spelling::checkpoint("mlp.experts.up_proj.weight", WHOLE),
    Spelling::checkpoint("mlp.experts.gate_up_proj", UP),
    Spelling::checkpoint("mlp.experts.gate_up_proj.weight", UP),
    Spelling::checkpoint("mlp.experts.{}.gate_up_proj.weight", UP),
];
/// The downs of the routed experts, stacked.
pub(crate) const ROUTED_DOWNS: &[Spelling] = &[
    Spelling::gguf("ffn_down.{}.weight", WHOLE),
    Spelling::checkpoint("mlp.experts.down_proj", WHOLE),
    Spelling::checkpoint("mlp.experts.down_proj.weight", WHOLE),
];
