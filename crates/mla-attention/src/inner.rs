//! The projections inside of an attention, whose inputs a caller can read.

/// A projection whose input arises inside of the attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InnerProjection {
    /// From the compressed query to the queries of all heads; only where queries are compressed.
    Query,
    /// From the attended values of all heads to the residual stream.
    Output,
}
