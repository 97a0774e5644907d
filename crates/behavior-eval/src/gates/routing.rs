//! The routing gate: does the student send every token to the experts its teacher chose?
//!
//! One case is one token in one MoE layer. The figure that gates is the share of cases with the same set of experts,
//! order ignored, when both models run the same tokens on their own hidden states. In local mode the student's routers
//! read the teacher's states instead: what is lost there is damage of the router, the rest is drift.
//!
//! Of every case, besides: the overlap |S and T| / k; the mass, sum of min(g_S, g_T) over the experts, as a share of
//! the sum of g_T; whether the expert with the largest weight is the same (the lower id wins a tie); and over all
//! cases Pearson's correlation of the margins.
//!
//! **Invariant:** a model against itself has exactly 1.0 everywhere; fractions come from counts, never from products.
//!
//! Wilson's interval takes cases as independent, which those of one prompt are not; the bootstrap over prompts does
//! not, and is the wider one as a rule. Both are reported.

use serde::Serialize;

use super::error::GateError;
use crate::model::RoutingTable;
use crate::stats::{Correlation, Counts, Figure, Share};

/// Figures of a set of cases.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RoutingFigures {
    /// Cases with the same set of experts.
    pub agreement: Share,
    /// Mean share of the teacher's experts that the student chose too.
    pub overlap: f64,
    /// Mean share of the teacher's weight that the student gives to the same experts.
    pub mass: f64,
    /// Cases with the same heaviest expert.
    pub top1: Share,
    /// Pearson's correlation of the margins; absent where one side does not vary.
    pub margin_correlation: Option<f64>,
}

/// The figures of one layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct LayerFigures {
    /// Index of the layer in the model.
    pub layer: u32,
    #[serde(flatten)]
    pub figures: RoutingFigures,
}

/// The gate's figures over a whole run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct RoutingReport {
    #[serde(flatten)]
    pub figures: RoutingFigures,
    /// By layer, in the model's order.
    pub layers: Vec<LayerFigures>,
    /// The layer with the lowest agreement; of equals the first.
    pub worst_layer: u32,
}

/// The agreement of prompts with these shares, over all their decisions; its interval comes from drawing prompts anew.
/// `None` for no decisions.
pub fn agreement(prompts: impl Iterator<Item = Share>) -> Option<Figure> {
    let counts: Vec<Counts> = prompts.map(|share| Counts { numerator: share.count, denominator: share.n }).collect();
    let figure = Figure::quotient(&counts);
    (figure.denominator != Some(0)).then_some(figure)
}

/// Gathers figures from cases.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cases {
    n: u64,
    same_set: u64,
    same_top: u64,
    /// Experts chosen by both, and experts chosen by the teacher.
    shared: u64,
    chosen: u64,
    mass: f64,
    margins: Correlation,
}

impl Cases {
    /// Takes a case: ascending ids with their weights of teacher and student; whether the sets are the same.
    pub(crate) fn push(&mut self, teacher: (&[u32], &[f32]), student: (&[u32], &[f32])) -> bool {
        let (mut shared, mut mass) = (0, 0.0);
        for (id, &g) in teacher.0.iter().zip(teacher.1) {
            if let Some(at) = student.0.iter().position(|other| other == id) {
                shared += 1;
                mass += f64::from(g.min(student.1[at]));
            }
        }
        let total: f64 = teacher.1.iter().map(|&g| f64::from(g)).sum();
        let same = shared == teacher.0.len() && student.0.len() == teacher.0.len();
        self.n += 1;
        self.shared += shared as u64;
        self.chosen += teacher.0.len() as u64;
        self.same_set += u64::from(same);
        self.same_top += u64::from(heaviest(teacher) == heaviest(student));
        // Weights of nothing are shared in full.
        self.mass += if total > 0.0 { mass / total } else { 1.0 };
        same
    }

    /// Takes the margins of a case.
    pub(crate) fn push_margins(&mut self, teacher: f32, student: f32) {
        self.margins.push(f64::from(teacher), f64::from(student));
    }

    /// `None` for no cases.
    pub(crate) fn figures(&self) -> Option<RoutingFigures> {
        let agreement = Share::of(self.same_set, self.n)?;
        Some(RoutingFigures {
            agreement,
            overlap: self.shared as f64 / self.chosen.max(1) as f64,
            mass: self.mass / self.n as f64,
            top1: Share::of(self.same_top, self.n)?,
            margin_correlation: self.margins.value(),
        })
    }
}

/// The expert with the largest weight; of equals the first.
fn heaviest((ids, weights): (&[u32], &[f32])) -> Option<u32> {
    let mut best: Option<(u32, f32)> = None;
    for (&id, &g) in ids.iter().zip(weights) {
        if best.is_none_or(|(_, largest)| g > largest) {
            best = Some((id, g));
        }
    }
    best.map(|(id, _)| id)
}

/// Compares routing tables prompt by prompt.
///
/// ```
/// use behavior_eval::gates::RoutingGate;
/// use behavior_eval::model::RoutingTable;
/// let table = |ids: &[u32]| {
///     let mut table = RoutingTable::new(2, 2);
///     table.push_layer(ids, &[0.5; 4], &[0.1, 0.2]);
///     table
/// };
/// let mut gate = RoutingGate::new(&[7]);
/// gate.push("p-1", &table(&[0, 1, 2, 3]), &table(&[0, 1, 2, 4]))?;
/// let report = gate.finish()?;
/// assert_eq!((report.figures.agreement.value, report.figures.overlap), (0.5, 0.75));
/// assert_eq!(report.worst_layer, 7);
/// # Ok::<(), behavior_eval::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct RoutingGate {
    moe_layers: Vec<u32>,
    all: Cases,
    layers: Vec<Cases>,
}

impl RoutingGate {
    /// A gate over the MoE layers with these indices.
    pub fn new(moe_layers: &[u32]) -> Self {
        let layers = vec![Cases::default(); moe_layers.len()];
        Self { moe_layers: moe_layers.to_vec(), all: Cases::default(), layers }
    }

    /// Takes what teacher and student decided on the tokens of one prompt. Returns the prompt's figures.
    ///
    /// # Errors
    /// [`GateError::RoutingShape`] for tables of different shapes, or of no token.
    pub fn push(
        &mut self,
        prompt_id: &str,
        teacher: &RoutingTable,
        student: &RoutingTable,
    ) -> Result<RoutingFigures, GateError> {
        let (layers, n) = (self.moe_layers.len(), teacher.n);
        let shape = |table: &RoutingTable| [table.n_layers(), table.n, table.top_k];
        let wrong = || GateError::RoutingShape {
            prompt_id: prompt_id.to_owned(),
            teacher: shape(teacher),
            student: shape(student),
        };
        if !teacher.has_shape(layers, n, teacher.top_k) || !student.has_shape(layers, n, teacher.top_k) {
            return Err(wrong());
        }
        let mut cases = Cases::default();
        for layer in 0..layers {
            for token in 0..n {
                let (t, s) = (teacher.at(layer, token), student.at(layer, token));
                let margins = (teacher.margin(layer, token), student.margin(layer, token));
                for cases in [&mut cases, &mut self.all, &mut self.layers[layer]] {
                    cases.push(t, s);
                    cases.push_margins(margins.0, margins.1);
                }
            }
        }
        cases.figures().ok_or_else(wrong)
    }

    /// The figures over everything.
    ///
    /// # Errors
    /// [`GateError::NoCases`] when no prompt came.
    pub fn finish(self) -> Result<RoutingReport, GateError> {
        let figures = self.all.figures().ok_or(GateError::NoCases)?;
        let mut layers = Vec::with_capacity(self.layers.len());
        for (&layer, cases) in self.moe_layers.iter().zip(&self.layers) {
            layers.push(LayerFigures { layer, figures: cases.figures().ok_or(GateError::NoCases)? });
        }
        let worst = layers.iter().reduce(|worst, layer| {
            let lower = layer.figures.agreement.value < worst.figures.agreement.value;
            if lower { layer } else { worst }
        });
        let worst_layer = worst.ok_or(GateError::NoCases)?.layer;
        Ok(RoutingReport { figures, layers, worst_layer })
    }
}

#[cfg(test)]
mod tests {
    use super::agreement;
    use crate::stats::{IntervalKind, Share};

    #[test]
    fn an_agreement_counts_decisions_and_draws_prompts() {
        let of = |counts: &[(u64, u64)]| agreement(counts.iter().filter_map(|&(count, n)| Share::of(count, n)));
        let counts: Vec<(u64, u64)> = (0..50).map(|i| (if i % 5 == 0 { 60 } else { 100 }, 100)).collect();
        let figure = of(&counts).unwrap();
        assert_eq!((figure.value, figure.numerator, figure.denominator, figure.n), (0.92, Some(4600), Some(5000), 50));
        assert!(figure.low95 < 0.90 && figure.high95 > 0.94, "clusters are wider than 5000 coins: {figure:?}");
        let whole = of(&[(100, 100); 40]).unwrap();
        assert_eq!((whole.value, whole.high95, whole.interval), (1.0, 1.0, IntervalKind::Wilson));
        assert!(whole.low95 > 0.9 && whole.low95 < 1.0);
        assert!(of(&[]).is_none());
        assert!(of(&[(0, 0)]).is_none());
    }
}
