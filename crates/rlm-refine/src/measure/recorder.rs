//! Taps that record a run for the gates: routing and margins, and on request scores, router inputs and final states.

use behavior_eval::model::{RoutingTable, Run, SubjectInfo, Want};
use moe_runtime::CraftsmanModel;
use moe_runtime::forward::{At, DecoderLayer, FeedForward, MoeRouter, RouterScratch, RoutingDecision, Taps};
use tl_kernels::{ActivationBuffer, Pool};

/// The router of a layer; `None` for a dense layer.
pub(super) fn router(model: &CraftsmanModel, layer: usize) -> Option<&MoeRouter> {
    router_of(model.layers().get(layer)?)
}

fn router_of(layer: &DecoderLayer) -> Option<&MoeRouter> {
    match layer.ffn() {
        FeedForward::Moe { router, .. } => Some(router),
        FeedForward::Dense(_) => None,
    }
}

/// Per token, the lowest selection score among the chosen minus the highest among the others; 0 without others.
/// `scores` `[n, n_experts]`, `ids` `[n, top_k]` ascending, `margins` `[n]`.
pub(super) fn write_margins(router: &MoeRouter, scores: &[f32], ids: &[u32], margins: &mut [f32]) {
    let config = router.config();
    let bias = |expert: usize| router.bias().map_or(0.0, |bias| bias[expert]);
    let rows = scores.chunks_exact(config.n_experts).zip(ids.chunks_exact(config.top_k));
    for ((scores, ids), margin) in rows.zip(margins) {
        let (mut lowest, mut highest) = (f32::INFINITY, f32::NEG_INFINITY);
        let mut chosen = ids.iter().peekable();
        for (expert, score) in scores.iter().enumerate() {
            let selection = score + bias(expert);
            match chosen.next_if(|&&id| usize::try_from(id) == Ok(expert)) {
                Some(_) => lowest = lowest.min(selection),
                None => highest = highest.max(selection),
            }
        }
        *margin = if highest > f32::NEG_INFINITY { lowest - highest } else { 0.0 };
    }
}

/// Routes inputs `[n, hidden]` that come from elsewhere: a table of one layer.
pub(super) fn route_rows(pool: &Pool, router: &MoeRouter, inputs: &[f32], hidden: usize) -> RoutingTable {
    let n = inputs.len() / hidden;
    let (mut acts, mut scratch) = (ActivationBuffer::new(), RouterScratch::default());
    acts.set(inputs, n, hidden);
    router.route(pool, &acts, &mut scratch);
    let decision = &scratch.decision;
    let mut margins = vec![0.0; n];
    write_margins(router, &scratch.scores, &decision.ids, &mut margins);
    let mut table = RoutingTable::new(n, decision.top_k);
    table.push_layer(&decision.ids, &decision.weights, &margins);
    table
}

/// The layers that are in memory.
#[derive(Clone, Copy)]
enum Layers<'a> {
    All(&'a CraftsmanModel),
    One(&'a DecoderLayer),
}

/// Writes each batch of a run to its rows of the columns.
pub(super) struct Recorder<'a> {
    layers: Layers<'a>,
    info: &'a SubjectInfo,
    /// Tokens of the run.
    n: usize,
    /// `[n, n_experts]` of the batch: the scores behind the decision that follows.
    scores: Vec<f32>,
    run: Run,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(model: &'a CraftsmanModel, info: &'a SubjectInfo, want: &Want, n: usize) -> Self {
        Self { layers: Layers::All(model), info, n, scores: Vec::new(), run: Self::columns(info, want, n) }
    }

    /// A recorder of one layer, which goes on with the columns of a run over `n` tokens.
    pub(super) fn of_layer(layer: &'a DecoderLayer, info: &'a SubjectInfo, run: Run, n: usize) -> Self {
        Self { layers: Layers::One(layer), info, n, scores: Vec::new(), run }
    }

    /// Columns of a run over `n` tokens, filled with zeros.
    pub(super) fn columns(info: &SubjectInfo, want: &Want, n: usize) -> Run {
        let rows = info.moe_layers.len() * n;
        let column = |wanted: bool, len: usize| wanted.then(|| vec![0.0; len]);
        let mut routing = RoutingTable::new(n, info.top_k);
        routing.push_layer(&vec![0; rows * info.top_k], &vec![0.0; rows * info.top_k], &vec![0.0; rows]);
        Run {
            routing,
            scores: column(want.scores, rows * info.n_experts),
            router_inputs: column(want.router_inputs, rows * info.hidden),
            final_hidden: column(want.final_hidden, n * info.hidden),
        }
    }

    /// The columns, complete after the last batch.
    pub(super) fn into_run(self) -> Run {
        self.run
    }

    /// The first row of a batch in columns `[layers, n, _]`; `None` for a layer without experts.
    fn first_row(&self, at: At) -> Option<usize> {
        let layer = self.info.moe_layers.iter().position(|&l| usize::try_from(l) == Ok(at.layer))?;
        Some(layer * self.n + at.first)
    }
}

/// Copies rows of `width` to row `first` of a column.
fn put<T: Copy>(column: &mut [T], first: usize, width: usize, rows: &[T]) {
    column[first * width..][..rows.len()].copy_from_slice(rows);
}

impl Taps for Recorder<'_> {
    fn ffn_in(&mut self, at: At, x: &[f32]) {
        if let (Some(row), Some(column)) = (self.first_row(at), &mut self.run.router_inputs) {
            put(column, row, self.info.hidden, x);
        }
    }

    fn router(&mut self, at: At, _logits: &[f32], scores: &[f32]) {
        self.scores.clear();
        self.scores.extend_from_slice(scores);
        if let (Some(row), Some(column)) = (self.first_row(at), &mut self.run.scores) {
            put(column, row, self.info.n_experts, scores);
        }
    }

    fn routing(&mut self, at: At, decision: &mut RoutingDecision) {
        let router = match self.layers {
            Layers::All(model) => router(model, at.layer),
            Layers::One(layer) => router_of(layer),
        };
        let (Some(row), Some(router)) = (self.first_row(at), router) else { return };
        let table = &mut self.run.routing;
        put(&mut table.ids, row, self.info.top_k, &decision.ids);
        put(&mut table.weights, row, self.info.top_k, &decision.weights);
        write_margins(router, &self.scores, &decision.ids, &mut table.margins[row..][..at.n]);
    }

    fn final_hidden(&mut self, first: usize, x: &[f32]) {
        if let Some(column) = &mut self.run.final_hidden {
            put(column, first, self.info.hidden, x);
        }
    }
}
