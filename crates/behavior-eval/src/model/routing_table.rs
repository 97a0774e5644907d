//! The experts that computed each token in each layer.
//!
//! ```text
//!   ids, weights   [layers, n, top_k]     ids ascend within a token
//!   margins        [layers, n]
//! ```
//!
//! **Invariant:** layers are outermost, so that a layer that was routed alone can be appended.

/// The experts of `n` tokens in some MoE layers.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct RoutingTable {
    pub n: usize,
    pub top_k: usize,
    /// `[layers, n, top_k]`, ascending within a token.
    pub ids: Vec<u32>,
    /// `[layers, n, top_k]`, in the order of `ids`, as the experts' outputs are multiplied.
    pub weights: Vec<f32>,
    /// `[layers, n]`: the lowest selection score (bias included) among the selected minus the highest among the others;
    /// 0 where no expert is left out. Small margins tip over easily.
    pub margins: Vec<f32>,
}

impl RoutingTable {
    /// A table without layers.
    pub fn new(n: usize, top_k: usize) -> Self {
        Self { n, top_k, ..Self::default() }
    }

    /// Number of layers that were appended.
    pub fn n_layers(&self) -> usize {
        self.margins.len().checked_div(self.n).unwrap_or(0)
    }

    /// Appends one layer: ids and weights `[n, top_k]`, margins `[n]`.
    pub fn push_layer(&mut self, ids: &[u32], weights: &[f32], margins: &[f32]) {
        self.ids.extend_from_slice(ids);
        self.weights.extend_from_slice(weights);
        self.margins.extend_from_slice(margins);
    }

    /// The ids and weights of one token in one layer.
    ///
    /// # Panics
    /// When there is no such token or layer.
    pub fn at(&self, layer: usize, token: usize) -> (&[u32], &[f32]) {
        assert!(token < self.n, "token {token} of {}", self.n);
        let start = (layer * self.n + token) * self.top_k;
        (&self.ids[start..][..self.top_k], &self.weights[start..][..self.top_k])
    }

    /// The margin of one token in one layer.
    ///
    /// # Panics
    /// When there is no such token or layer.
    pub fn margin(&self, layer: usize, token: usize) -> f32 {
        assert!(token < self.n, "token {token} of {}", self.n);
        self.margins[layer * self.n + token]
    }

    /// Whether the table has these sizes, and all its columns do.
    pub(crate) fn has_shape(&self, layers: usize, n: usize, top_k: usize) -> bool {
        let entries = layers.checked_mul(n).and_then(|rows| rows.checked_mul(top_k));
        self.n == n
            && self.top_k == top_k
            && Some(self.ids.len()) == entries
            && self.weights.len() == self.ids.len()
            && Some(self.margins.len()) == layers.checked_mul(n)
    }

    /// The first thing in it that cannot be: an unknown expert, ids that do not ascend, a number that is none.
    pub fn defect(&self, n_experts: usize) -> Option<String> {
        let known = |id: u32| usize::try_from(id).is_ok_and(|id| id < n_experts);
        if let Some(id) = self.ids.iter().find(|&&id| !known(id)) {
            return Some(format!("expert {id} of {n_experts}"));
        }
        let ascends = |ids: &[u32]| ids.windows(2).all(|pair| pair[0] < pair[1]);
        if let Some(ids) = self.ids.chunks_exact(self.top_k.max(1)).find(|ids| !ascends(ids)) {
            return Some(format!("experts {ids:?}, which do not ascend"));
        }
        let number = self.weights.iter().chain(&self.margins).find(|x| !x.is_finite());
        number.map(|x| format!("{x} as a weight or margin"))
    }
}
