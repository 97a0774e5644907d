//! Answers of one model under the gates, and the routing figure beside them.

use crate::Result;
use crate::gates::{
    Answered, BehavioralGate, CitationReport, GateConfig, GateResult, RefusalReport, RefusalSignals, citations,
    refusals,
};
use crate::report::Settings;
use crate::stats::{Figure, IntervalKind, bootstrap};

/// Both gates over all answers.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) citations: CitationReport,
    pub(super) refusals: RefusalReport,
}

impl Judged {
    pub(super) fn new(answered: &[Answered<'_>], signals: &RefusalSignals, config: &GateConfig) -> Result<Self> {
        Ok(Self { citations: citations(answered, config)?, refusals: refusals(answered, signals, config)? })
    }

    /// The figure of a gate; `None` for routing, and where there is nothing to take a figure of.
    fn figure(&self, gate: BehavioralGate) -> Option<Figure> {
        let figure = match gate {
            BehavioralGate::RoutingAgreement => return None,
            BehavioralGate::CitationPrecision => self.citations.figures.precision,
            BehavioralGate::CitationRecall => self.citations.figures.recall,
            BehavioralGate::RefusalF1 => self.refusals.figures.f1,
            BehavioralGate::MustRefuse => self.refusals.figures.must_refuse,
            BehavioralGate::MustAnswer => self.refusals.figures.must_answer,
        };
        // Who never cites has no precision; F1 is 0 by definition where nobody refuses.
        let is_empty = gate != BehavioralGate::RefusalF1 && figure.denominator == Some(0);
        (!is_empty).then_some(figure)
    }

    /// The gates, in the order of the ship rule; without `routing` (the teacher, whose routing is the reference) those
    /// of the answers only.
    pub(super) fn gates(&self, routing: Option<Figure>, settings: &Settings) -> Vec<GateResult> {
        let gates = BehavioralGate::ALL.into_iter();
        let judged = gates.filter(|&gate| gate != BehavioralGate::RoutingAgreement || routing.is_some());
        judged
            .map(|gate| {
                let figure = if gate == BehavioralGate::RoutingAgreement { routing } else { self.figure(gate) };
                GateResult::judge(gate, figure, &settings.thresholds, settings.strict)
            })
            .collect()
    }
}

/// Routing agreement of prompts with these counts (decisions that agree, decisions), its interval by drawing prompts anew.
pub(super) fn routing_figure(counts: &[(u64, u64)], config: &GateConfig) -> Option<Figure> {
    let sum = |indices: &mut dyn Iterator<Item = usize>| {
        indices.map(|i| counts[i]).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    };
    let (agree, all) = sum(&mut (0..counts.len()));
    let share = crate::stats::Share::of(agree, all)?;
    let drawn = bootstrap(counts.len(), config.bootstrap, |draw| {
        let (agree, all) = sum(&mut draw.iter().copied());
        (all > 0).then(|| agree as f64 / all as f64)
    })?;
    let (low95, high95, interval) = if drawn.low95 < drawn.high95 {
        (drawn.low95.min(share.value), drawn.high95.max(share.value), IntervalKind::Bootstrap)
    } else {
        // No draw differs: what is known is that of as many prompts.
        let prompts = crate::stats::Share::of((share.value * counts.len() as f64).round() as u64, counts.len() as u64)?;
        (prompts.low95.min(share.value), prompts.high95.max(share.value), IntervalKind::Wilson)
    };
    let n = counts.len() as u64;
    Some(Figure { value: share.value, numerator: Some(agree), denominator: Some(all), n, low95, high95, interval })
}

#[cfg(test)]
mod tests {
    use super::routing_figure;
    use crate::gates::GateConfig;
    use crate::stats::IntervalKind;

    #[test]
    fn a_routing_figure_counts_decisions_and_draws_prompts() {
        let counts: Vec<(u64, u64)> = (0..50).map(|i| (if i % 5 == 0 { 60 } else { 100 }, 100)).collect();
        let figure = routing_figure(&counts, &GateConfig::default()).unwrap();
        assert_eq!((figure.value, figure.numerator, figure.denominator, figure.n), (0.92, Some(4600), Some(5000), 50));
        assert!(figure.low95 < 0.90 && figure.high95 > 0.94, "clusters are wider than 5000 coins: {figure:?}");
        let whole = routing_figure(&[(100, 100); 40], &GateConfig::default()).unwrap();
        assert_eq!((whole.value, whole.high95, whole.interval), (1.0, 1.0, IntervalKind::Wilson));
        assert!(whole.low95 > 0.9 && whole.low95 < 1.0);
        assert!(routing_figure(&[], &GateConfig::default()).is_none());
        assert!(routing_figure(&[(0, 0)], &GateConfig::default()).is_none());
    }
}
