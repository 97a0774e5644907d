//! Figures with intervals, and the arithmetic behind them.

mod bootstrap;
mod correlation;
mod estimate;
mod figure;
mod numeric;
mod random;

pub use bootstrap::{Difference, paired_difference};
pub use estimate::{Estimate, Share, quantile};
pub use figure::{Figure, IntervalKind};

pub(crate) use correlation::Correlation;
pub(crate) use estimate::Moments;
pub(crate) use figure::Counts;
pub(crate) use numeric::{exp, ln, log_sum_exp};
pub(crate) use random::{SplitMix64, split_mix};
