//! Tests of attention as a whole: against an oracle, and against itself in chunks of other sizes.

mod batches;
mod expanded;
mod gqa;
mod layers;
mod mla;
mod rope;
mod segments;
