//! The time of a forward step by the number of its rows, estimated from the shape of a model.
//!
//! ```text
//! cost(n) = bytes(n) / bytes(1) + ROW * (n - 1)
//! bytes(n) = shared + routed * (1 - (1 - k/E)^n) / (k/E)
//! ```
//!
//! `shared` are the bytes of weights that every token reads, `routed` those of the `k` experts of `E` that one token
//! chooses. Reading bounds a step of few rows, and rows that choose the same expert read it once. `ROW` is the share of a
//! step of one row that the arithmetic of each further row adds; docs/benchmarks.md has the steps that it was taken from.
//!
//! **Invariant:** the table is a function of the model alone. No clock is read, so equal models give equal drafts on every
//! machine.

use gguf_bitnet::TensorClass;

use crate::load::files::ModelFiles;

/// Time that a further row of a step adds beside the weights that it reads, in steps of one row.
const ROW: f64 = 0.1;

/// The time of a step by its rows, in steps of one row.
///
/// ```
/// let files = moe_runtime::ModelFiles::open(&fixtures::path("goldens/glm-tiny"))?;
/// let costs = files.step_costs();
/// assert_eq!(costs.of(1), 1.0);
/// assert!(costs.of(4) > costs.of(2) && costs.of(4) < 4.0, "rows share the weights that they read");
/// # Ok::<(), moe_runtime::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct StepCosts {
    /// The cost of `i + 1` rows.
    table: Vec<f64>,
}

impl StepCosts {
    /// Largest number of rows with an entry of their own.
    pub const MAX_ROWS: usize = 64;

    /// The costs where each token reads `shared` bytes of weights that all tokens read, and `routed` bytes of experts, which
    /// are the share `chosen` of all experts. A model without experts has 0 routed bytes.
    #[must_use]
    pub fn new(shared: u64, routed: u64, chosen: f64) -> StepCosts {
        let (shared, routed) = (shared as f64, routed as f64);
        let one = (shared + routed).max(1.0);
        // The share of experts that no row so far has chosen, and the experts that were chosen, in those of one token.
        let (mut unread, mut read) = (1.0, 0.0);
        let mut cost = |further: usize| {
            read += unread;
            unread *= 1.0 - chosen;
            (shared + routed * read) / one + ROW * further as f64
        };
        StepCosts { table: (0..Self::MAX_ROWS).map(&mut cost).collect() }
    }

    /// The cost of a step of `rows` rows; beyond the table that of its last entry, and 0 without rows.
    #[must_use]
    pub fn of(&self, rows: usize) -> f64 {
        match rows.min(self.table.len()).checked_sub(1) {
            Some(index) => self.table[index],
            None => 0.0,
        }
    }
}

impl ModelFiles {
    /// The costs of steps by the weights of this model.
    #[must_use]
    pub fn step_costs(&self) -> StepCosts {
        let all = self.weight_bytes_per_token();
        match &self.config.moe {
            None => StepCosts::new(all, 0, 1.0),
            Some(moe) => {
                let routed = self.weight_bytes_where(|tensor| {
                    tensor.class == TensorClass::RoutedExpert && !self.config.is_of_mtp(&tensor.name)
                });
                let chosen = moe.router.top_k as f64 / moe.router.n_experts.max(1) as f64;
                StepCosts::new(all.saturating_sub(routed), routed, chosen)
            }
        }
    }

    /// The time of one guess of the MTP block, in steps of one row; 0 without a block.
    #[must_use]
    pub fn mtp_cost(&self) -> f64 {
        self.mtp_bytes_per_token() as f64 / self.weight_bytes_per_token().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::{ROW, StepCosts};

    /// The distinct experts of n tokens, 4 of 64, by the closed form 64 (1 - (60/64)^n).
    #[test]
    fn experts_that_rows_share_are_read_once() {
        let costs = StepCosts::new(1_220, 449, 4.0 / 64.0);
        for (rows, distinct) in [(1, 4.0), (2, 7.75), (4, 14.56), (8, 25.81)] {
            let want = (1_220.0 + 449.0 * distinct / 4.0) / 1_669.0 + ROW * (rows as f64 - 1.0);
            assert!((costs.of(rows) - want).abs() < 1e-3, "{rows} rows: {} against {want}", costs.of(rows));
        }
        assert_eq!((costs.of(0), costs.of(1)), (0.0, 1.0));
        assert_eq!(costs.of(1000), costs.of(StepCosts::MAX_ROWS));
    }

    #[test]
    fn a_model_without_experts_pays_for_arithmetic_alone() {
        let costs = StepCosts::new(100, 0, 1.0);
        assert_eq!(costs.of(3), 1.0 + 2.0 * ROW);
        assert!(StepCosts::new(0, 0, 1.0).of(2).is_finite());
    }
}
