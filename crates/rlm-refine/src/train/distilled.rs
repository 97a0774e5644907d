//! The experts behind a distillation, each announced with the share of its trits that changed.

use std::collections::BTreeMap;

use super::weights::ChangedMatrix;
use crate::ptq::layer_of;

/// The event `ExpertDistilled` for each routed expert whose trits were trained.
pub(super) fn announce_experts(matrices: &[ChangedMatrix<'_>]) {
    let mut experts: BTreeMap<(usize, usize), (u64, u64)> = BTreeMap::new();
    for matrix in matrices {
        if let (Some(layer), true) = (layer_of(matrix.tensor), matrix.tensor.contains("_exps.")) {
            let (changed, all) = experts.entry((layer, matrix.number)).or_default();
            *changed += matrix.changed;
            *all += matrix.trits;
        }
    }
    for ((layer, expert), (changed, trits)) in experts {
        let changed_trits = changed as f64 / trits.max(1) as f64;
        tracing::info!(name: "ExpertDistilled", layer, expert, trits, changed_trits, "ExpertDistilled");
    }
}
