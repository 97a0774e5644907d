//! Figures about steps and slots, which the metrics of a server show.

use tl_kernels::ActivationBuffer;

use crate::forward::router::RoutingDecision;
use crate::forward::taps::{At, ExpertId, Taps};

/// A step that was computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepReport {
    /// Sequences that had rows in it.
    pub sequences: usize,
    /// Rows of prompts of all its sequences together.
    pub prompt_rows: usize,
    /// Rows of answers, one for each sequence that answers.
    pub answer_rows: usize,
    /// Tokens of drafts, which are rows too.
    pub draft_rows: usize,
    /// Tokens of drafts that became part of answers.
    pub accepted_rows: usize,
    /// Layers with experts that were computed.
    pub expert_layers: usize,
    /// The different experts that were read in each of these layers, added up.
    pub distinct_experts: usize,
}

/// A slot and its job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotStatus {
    /// Tokens whose positions are held.
    pub held_tokens: usize,
    /// Tokens of the prompt and of the answer of the job that runs in it.
    pub running: Option<(usize, usize)>,
}

/// Counts the experts of a step.
#[derive(Debug, Default)]
pub(super) struct ExpertCount {
    pub(super) layers: usize,
    pub(super) distinct: usize,
}

impl Taps for ExpertCount {
    fn routing(&mut self, _at: At, _decision: &mut RoutingDecision) {
        self.layers += 1;
    }

    fn expert_in(&mut self, _at: At, expert: ExpertId, _tokens: &[u32], _x: &ActivationBuffer) {
        self.distinct += usize::from(matches!(expert, ExpertId::Routed(_)));
    }
}
