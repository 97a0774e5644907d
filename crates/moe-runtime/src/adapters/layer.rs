//! The additions to the matrices of one layer, as the forward pass reads them.

use mla_attention::AttentionAdapter;
use tl_kernels::{ActivationBuffer, ColumnBlock, LowRank};

/// The additions to the three matrices of a feed-forward network; `None` for a matrix that stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the fields are named as the matrices that they are added to")]
pub struct FfnAdapter {
    pub gate: Option<LowRank>,
    pub up: Option<LowRank>,
    pub down: Option<LowRank>,
}

/// The additions to the matrices of one layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerAdapter {
    /// The additions to the projections of the attention.
    pub attention: AttentionAdapter,
    /// Of the network that all tokens pass through: the dense one, or the shared expert.
    pub always: FfnAdapter,
    /// Of the routed experts, by id; empty where none is changed.
    pub routed: Vec<FfnAdapter>,
}

impl FfnAdapter {
    /// The addition to each matrix, in the order of the fields.
    #[must_use]
    pub fn places(&self) -> [Option<&LowRank>; 3] {
        [&self.gate, &self.up, &self.down].map(Option::as_ref)
    }
}

impl LayerAdapter {
    /// The addition to each matrix: attention first, routed experts last.
    pub fn places(&self) -> impl Iterator<Item = Option<&LowRank>> {
        let networks = std::iter::once(&self.always).chain(&self.routed);
        self.attention.places().into_iter().chain(networks.flat_map(FfnAdapter::places))
    }

    /// The additions that exist, in the order of [`LayerAdapter::places`].
    pub fn parts(&self) -> impl Iterator<Item = &LowRank> {
        self.places().flatten()
    }

    /// The additions to routed expert `expert`.
    pub(crate) fn routed(&self, expert: usize) -> Option<&FfnAdapter> {
        self.routed.get(expert)
    }
}

/// The F32 rows that the additions of a network read, and the network's additions.
#[derive(Clone, Copy)]
pub(crate) struct AdaptedRows<'a> {
    pub(crate) adapter: &'a FfnAdapter,
    /// The batch, `[n, hidden]`.
    pub(crate) x: &'a ActivationBuffer,
    /// The rows of the batch that the network computes; `None` for all of them.
    pub(crate) tokens: Option<&'a [u32]>,
}

impl AdaptedRows<'_> {
    /// Adds the outputs of `gate` and of `up` to two blocks of the same columns.
    pub(crate) fn add_gate_and_up(&self, gate: &mut ColumnBlock<'_, f32>, up: &mut ColumnBlock<'_, f32>) {
        let input = |row: usize| self.x.row(self.tokens.map_or(row, |tokens| tokens[row] as usize));
        add(&self.adapter.gate, gate, input);
        add(&self.adapter.up, up, input);
    }
}

/// Adds the outputs `out.columns()` of an addition whose input for row `i` of `out` is `input(i)`.
pub(crate) fn add<'a>(addition: &Option<LowRank>, out: &mut ColumnBlock<'_, f32>, input: impl Fn(usize) -> &'a [f32]) {
    let Some(addition) = addition else { return };
    for row in 0..out.n_rows() {
        addition.add_row(input(row), out.columns(), out.row_mut(row));
    }
}
