//! The additions to the matrices of one layer, as the forward pass reads them.

use mla_attention::AttentionAdapter;
use tl_kernels::{ColumnBlock, LowRank, Pool};

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
    /// The sidecar: to the residual stream, from the normed input of the feed-forward part.
    pub sidecar: Option<LowRank>,
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
    /// The addition to each matrix: attention first, then the sidecar, routed experts last.
    pub fn places(&self) -> impl Iterator<Item = Option<&LowRank>> {
        let networks = std::iter::once(&self.always).chain(&self.routed);
        let first = self.attention.places().into_iter().chain([self.sidecar.as_ref()]);
        first.chain(networks.flat_map(FfnAdapter::places))
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

impl FfnAdapter {
    /// Ranks of the additions to gate and up.
    pub(crate) fn input_ranks(&self) -> usize {
        [&self.gate, &self.up].into_iter().flatten().map(LowRank::rank).sum()
    }
}

/// `s (A x)` of the additions of some networks for all their rows: computed once, before pieces of the outputs are.
#[derive(Debug, Default)]
pub(crate) struct RankRows {
    /// `[rows, width]`; a row of fewer ranks leaves the rest of its place as it was.
    values: Vec<f32>,
    width: usize,
}

impl RankRows {
    /// Makes `n` rows of at most `width` ranks; `fill` writes the row of this number.
    pub(crate) fn make(&mut self, pool: &Pool, [n, width]: [usize; 2], fill: impl Fn(usize, &mut [f32]) + Sync) {
        self.width = width;
        self.values.resize(n * width, 0.0);
        if width > 0 {
            pool.chunks_mut(&mut self.values, width, fill);
        }
    }

    fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..][..self.width]
    }

    /// Writes the ranks of gate, then those of up, for the input `x` of a network.
    pub(crate) fn of_input(adapter: &FfnAdapter, x: &[f32], out: &mut [f32]) {
        let mut rest = out;
        for addition in [&adapter.gate, &adapter.up].into_iter().flatten() {
            let (own, behind) = rest.split_at_mut(addition.rank());
            addition.ranks(x, own);
            rest = behind;
        }
    }

    /// Adds the outputs `out.columns()` of an addition; row i of `out` is row `first + i` here, whose ranks begin at `at`.
    pub(crate) fn add(&self, addition: &Option<LowRank>, [first, at]: [usize; 2], out: &mut ColumnBlock<'_, f32>) {
        let Some(addition) = addition else { return };
        for row in 0..out.n_rows() {
            let ranks = &self.row(first + row)[at..][..addition.rank()];
            addition.add_ranks(ranks, out.columns(), out.row_mut(row));
        }
    }
}

/// The additions of a network, and the ranks of its rows.
#[derive(Clone, Copy)]
pub(crate) struct AdaptedRows<'a> {
    pub(crate) adapter: &'a FfnAdapter,
    pub(crate) ranks: &'a RankRows,
    /// The network's first row among those of `ranks`.
    pub(crate) first: usize,
}

impl AdaptedRows<'_> {
    /// Adds the outputs of `gate` and of `up` to two blocks of the same columns.
    pub(crate) fn add_gate_and_up(&self, gate: &mut ColumnBlock<'_, f32>, up: &mut ColumnBlock<'_, f32>) {
        let up_at = self.adapter.gate.as_ref().map_or(0, LowRank::rank);
        self.ranks.add(&self.adapter.gate, [self.first, 0], gate);
        self.ranks.add(&self.adapter.up, [self.first, up_at], up);
    }
}
