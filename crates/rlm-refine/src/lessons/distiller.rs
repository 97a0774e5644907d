//! From the reports of runs to lessons, each of them once.
//!
//! ```text
//! report of a refinement, drift of experts ──┐
//! report of the gates ───────────────────────┴──► lessons ──► without repetitions ──► store
//! ```
//! Two lessons are the same when the Jaccard index of their words and the cosine of their figures are both 0.85 or more. The
//! later one is left out.
//!
//! **Invariant:** lessons follow from the reports alone.

use std::collections::BTreeSet;

use behavior_eval::report::GateReport;

use crate::policy::{Finding, KeyLesson, LearnedBy, Part};
use crate::train::{ExpertDrift, RefineReport};

/// The least likeness of two lessons that are the same.
const SAME: f64 = 0.85;
/// Experts and layers that a run may name as the worst.
const WORST: usize = 4;

/// Collects the lessons of a run, without those that are known.
#[derive(Debug, Default)]
pub struct MemoryDistiller {
    known: Vec<KeyLesson>,
    fresh: Vec<KeyLesson>,
}

impl MemoryDistiller {
    /// A collection that leaves out what `known` says already.
    #[must_use]
    pub fn new(known: Vec<KeyLesson>) -> Self {
        Self { known, fresh: Vec::new() }
    }

    /// Adds a lesson, unless it is known; says whether it was added.
    pub fn add(&mut self, lesson: KeyLesson) -> bool {
        let is_new = self.known.iter().chain(&self.fresh).all(|other| !are_same(other, &lesson));
        if is_new {
            self.fresh.push(lesson);
        }
        is_new
    }

    /// Adds the lessons of a refinement: whether its `settings` helped, which routers were repaired, and which experts drift
    /// most behind it.
    pub fn add_refinement(&mut self, settings: &str, report: &RefineReport, drift: &[ExpertDrift]) {
        let learned_by = LearnedBy::Refinement;
        if let [Some(before), Some(after)] = report.held_out_kl {
            let finding = if after < before { Finding::SettingsHelped } else { Finding::SettingsDidNotHelp };
            let about = Part::Settings(settings.to_owned());
            self.add(KeyLesson { learned_by, about, finding, before, after: Some(after), n: report.tokens });
        }
        for router in report.repair.iter().flat_map(|repair| &repair.routers) {
            let finding = if router.is_kept { Finding::RouterRepaired } else { Finding::RouterStays };
            self.add(KeyLesson {
                learned_by,
                about: Part::Layer(router.layer),
                finding,
                before: router.agreement_before,
                after: Some(router.agreement_after),
                n: report.tokens,
            });
        }
        let mut worst: Vec<&ExpertDrift> = drift.iter().filter(|drift| drift.tokens > 0).collect();
        worst.sort_by(|a, b| b.relative_error.total_cmp(&a.relative_error).then(a.layer.cmp(&b.layer)));
        for drift in worst.into_iter().take(WORST) {
            self.add(KeyLesson {
                learned_by,
                about: Part::Expert { layer: drift.layer, expert: drift.expert },
                finding: Finding::ExpertDrifts,
                before: drift.relative_error,
                after: None,
                n: drift.tokens as u64,
            });
        }
    }

    /// Adds the lessons of a run of the gates: the failed ones with their worst prompts, and the layers that agree least
    /// with the teacher where routing failed.
    pub fn add_gates(&mut self, report: &GateReport) {
        let learned_by = LearnedBy::Gates;
        for failure in &report.failures {
            let Some(figure) = report.student.figure(failure.gate) else { continue };
            let prompts = failure.worst_prompts.iter().map(|prompt| prompt.prompt_id.clone()).collect();
            self.add(KeyLesson {
                learned_by,
                about: Part::Gate { name: failure.gate.name().to_owned(), prompts },
                finding: Finding::GateFails,
                before: figure.value,
                after: None,
                n: figure.n,
            });
            for &worst in failure.worst_layers.iter().take(WORST) {
                let Some(layer) = report.routing.layers.iter().find(|layer| layer.layer == worst) else { continue };
                let agreement = layer.figures.agreement;
                self.add(KeyLesson {
                    learned_by,
                    about: Part::Layer(worst as usize),
                    finding: Finding::LayerMisroutes,
                    before: agreement.value,
                    after: None,
                    n: agreement.n,
                });
            }
        }
    }

    /// The lessons that were not known.
    #[must_use]
    pub fn into_lessons(self) -> Vec<KeyLesson> {
        self.fresh
    }
}

fn are_same(a: &KeyLesson, b: &KeyLesson) -> bool {
    let [x, y] = [a, b].map(|lesson| lesson.words().into_iter().collect::<BTreeSet<_>>());
    let both = x.intersection(&y).count() as f64;
    let either = x.union(&y).count().max(1) as f64;
    // Parts are names: those of two experts differ in one word only.
    a.about.name() == b.about.name() && both / either >= SAME && cosine(&figures(a), &figures(b)) >= SAME
}

fn figures(lesson: &KeyLesson) -> [f64; 2] {
    [lesson.before, lesson.after.unwrap_or(0.0)]
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { f64::from(u8::from(a == b)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lesson(about: Part, before: f64, after: Option<f64>) -> KeyLesson {
        KeyLesson { learned_by: LearnedBy::Refinement, about, finding: Finding::RouterRepaired, before, after, n: 100 }
    }

    #[test]
    fn a_lesson_that_is_known_is_left_out_and_others_are_kept() {
        let known = lesson(Part::Layer(3), 0.9, Some(0.95));
        let mut distiller = MemoryDistiller::new(vec![known.clone()]);
        assert!(!distiller.add(lesson(Part::Layer(3), 0.91, Some(0.95))), "nearly the same figures");
        assert!(distiller.add(lesson(Part::Layer(3), 0.9, Some(0.1))), "the same part fared otherwise");
        assert!(distiller.add(lesson(Part::Layer(4), 0.9, Some(0.95))), "another part");
        assert!(distiller.add(KeyLesson { finding: Finding::RouterStays, ..known.clone() }), "another finding");
        let gate = |prompts: &[&str]| {
            let prompts = prompts.iter().map(|prompt| (*prompt).to_owned()).collect();
            lesson(Part::Gate { name: "must_refuse".to_owned(), prompts }, 0.5, None)
        };
        assert!(distiller.add(gate(&["p-1", "p-2", "p-3"])));
        assert!(!distiller.add(gate(&["p-3", "p-2", "p-1"])), "the same prompts in another order");
        assert!(distiller.add(gate(&["p-7", "p-8", "p-9"])), "other prompts");
        assert_eq!(distiller.into_lessons().len(), 5);
    }

    #[test]
    fn a_refinement_names_the_experts_that_drift_most() {
        let drift = |expert, relative_error| ExpertDrift { layer: 2, expert, tokens: 10, relative_error };
        let drifts: Vec<ExpertDrift> = (0..8).map(|e| drift(e, f64::from(u8::try_from(e * 3 % 8).unwrap()))).collect();
        let report = RefineReport {
            steps: 1,
            tokens: 7,
            trained: Vec::new(),
            held_out_kl: [Some(0.2), Some(0.1)],
            changed_trits: None,
            repair: None,
            protection: None,
            rewards: None,
            dropped_groups: None,
            output_bytes: 0,
        };
        let mut distiller = MemoryDistiller::default();
        distiller.add_refinement("{}", &report, &drifts);
        let lessons = distiller.into_lessons();
        assert_eq!((lessons[0].finding, lessons[0].after), (Finding::SettingsHelped, Some(0.1)));
        let experts: Vec<Part> = lessons[1..].iter().map(|lesson| lesson.about.clone()).collect();
        assert_eq!(experts, [5, 2, 7, 4].map(|expert| Part::Expert { layer: 2, expert }));
    }
}
