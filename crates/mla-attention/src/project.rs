//! Products with a layer's matrices, with what an adapter adds to them, and the buffers they are written to.

use tl_kernels::{ActivationBuffer, Linear, LowRank, Pool, Product, forward_all};

/// Low-rank additions to the projections of one attention layer; `None` for a projection that stays as it is.
///
/// The absorbed projections of latent attention, one matrix per head, take none.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the fields are named as the weights that they are added to")]
pub struct AttentionAdapter {
    pub q: Option<LowRank>,
    pub q_a: Option<LowRank>,
    pub q_b: Option<LowRank>,
    pub kv_a: Option<LowRank>,
    pub k: Option<LowRank>,
    pub v: Option<LowRank>,
    pub out: Option<LowRank>,
}

impl AttentionAdapter {
    /// Additions to no projection.
    pub(crate) const NONE: &AttentionAdapter =
        &AttentionAdapter { q: None, q_a: None, q_b: None, kv_a: None, k: None, v: None, out: None };

    /// The addition to each projection, in the order of the fields.
    #[must_use]
    pub fn places(&self) -> [Option<&LowRank>; 7] {
        let AttentionAdapter { q, q_a, q_b, kv_a, k, v, out } = self;
        [q, q_a, q_b, kv_a, k, v, out].map(Option::as_ref)
    }
}

/// The threads that multiply, and the additions to the products.
#[derive(Clone, Copy, Debug)]
pub struct Projector<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) adapter: &'a AttentionAdapter,
}

impl<'a> Projector<'a> {
    /// Products on the threads of `pool`, with the additions of `adapter`.
    #[must_use]
    pub fn new(pool: &'a Pool, adapter: Option<&'a AttentionAdapter>) -> Projector<'a> {
        Projector { pool, adapter: adapter.unwrap_or(AttentionAdapter::NONE) }
    }
}

/// `y = linear(acts)`, `[n, rows]`; quantises the input first if this matrix reads quantised activations and no earlier
/// matrix has asked for them.
pub(crate) fn project(pool: &Pool, linear: &Linear, acts: &mut ActivationBuffer, y: &mut [f32]) {
    acts.quantize(linear.act_mode());
    linear.forward(pool, acts, y);
}

/// As [`project`], with what `addition` adds.
pub(crate) fn project_adapted(
    pool: &Pool,
    (linear, addition): (&Linear, &Option<LowRank>),
    acts: &mut ActivationBuffer,
    y: &mut [f32],
) {
    project(pool, linear, acts, y);
    add(pool, addition, acts, y);
}

/// Adds the outputs of an addition for the rows of `acts` to `y` `[n, rows]`.
pub(crate) fn add(pool: &Pool, addition: &Option<LowRank>, acts: &ActivationBuffer, y: &mut [f32]) {
    if let Some(addition) = addition {
        addition.add(pool, acts, y);
    }
}

/// As [`project`], for two matrices that read the same input: one work list, so the threads wait for each other once.
pub(crate) fn project_two(
    pool: &Pool,
    (a, y_a): (&Linear, &mut [f32]),
    (b, y_b): (&Linear, &mut [f32]),
    acts: &mut ActivationBuffer,
) {
    acts.quantize(a.act_mode());
    acts.quantize(b.act_mode());
    forward_all(pool, [Product { linear: a, acts, y: y_a }, Product { linear: b, acts, y: y_b }]);
}

/// The first `len` values of a buffer that grows when it must and never shrinks.
pub(crate) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}
