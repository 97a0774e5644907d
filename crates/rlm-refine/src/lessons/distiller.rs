//! From the reports of runs to lessons, each of them once.
//!
//! ```text
//! report of a refinement, drift of experts ──┐
//! report of the gates ───────────────────────┴──► lessons ──► without repetitions ──► store
//! ```
//! Two lessons are the same when they are about the same part of the same student, learned by the same kind of run with the same
//! finding, and no figure differs by more than 15 % of the larger one. Lessons about a gate must share 0.85 of their prompts
//! (Jaccard index). The later one is left out.
//!
//! **Invariant:** lessons follow from the reports alone.

use std::collections::BTreeSet;

use behavior_eval::report::GateReport;

use crate::policy::{Finding, KeyLesson, LearnedBy, Part};
use crate::train::{ExpertDrift, RefineReport};

/// The share of the larger figure by which figures of the same lesson may differ.
const FIGURES_APART: f64 = 0.15;
/// The least Jaccard index of the prompts of the same lesson about a gate.
const PROMPTS_SHARED: f64 = 0.85;
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

    /// Adds the lessons of the refinement that wrote `student`: whether its `settings` helped, which routers were repaired, and
    /// which experts drift most behind it.
    pub fn add_refinement(&mut self, student: &str, settings: &str, report: &RefineReport, drift: &[ExpertDrift]) {
        let (student, learned_by) = (|| student.to_owned(), LearnedBy::Refinement);
        if let [Some(before), Some(after)] = report.held_out_kl {
            let finding = if after < before { Finding::SettingsHelped } else { Finding::SettingsDidNotHelp };
            let about = Part::Settings(settings.to_owned());
            let (student, after, n) = (student(), Some(after), report.tokens);
            self.add(KeyLesson { student, learned_by, about, finding, before, after, n });
        }
        for router in report.repair.iter().flat_map(|repair| &repair.routers) {
            let finding = if router.is_kept { Finding::RouterRepaired } else { Finding::RouterStays };
            self.add(KeyLesson {
                student: student(),
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
                student: student(),
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
        let (student, learned_by) = (|| report.student.identity.clone(), LearnedBy::Gates);
        for failure in &report.failures {
            let Some(figure) = report.student.figure(failure.gate) else { continue };
            let prompts = failure.worst_prompts.iter().map(|prompt| prompt.prompt_id.clone()).collect();
            self.add(KeyLesson {
                student: student(),
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
                    student: student(),
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
    let kind = |lesson: &KeyLesson| (lesson.learned_by, lesson.finding);
    a.student == b.student
        && kind(a) == kind(b)
        && are_same_part(&a.about, &b.about)
        && are_near(Some(a.before), Some(b.before))
        && are_near(a.after, b.after)
}

fn are_same_part(a: &Part, b: &Part) -> bool {
    match (a, b) {
        (Part::Gate { name, prompts }, Part::Gate { name: other, prompts: others }) => {
            name == other && shared(prompts, others) >= PROMPTS_SHARED
        }
        _ => a == b,
    }
}

/// The Jaccard index of two sets of prompts; 1 for two empty ones.
fn shared(a: &[String], b: &[String]) -> f64 {
    let [a, b] = [a, b].map(|prompts| prompts.iter().collect::<BTreeSet<_>>());
    let (both, either) = (a.intersection(&b).count(), a.union(&b).count());
    if either == 0 { 1.0 } else { both as f64 / either as f64 }
}

fn are_near(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= FIGURES_APART * a.abs().max(b.abs()),
        (a, b) => a.is_none() && b.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::TrainMemory;

    fn lesson(about: Part, before: f64, after: Option<f64>) -> KeyLesson {
        let (student, learned_by, finding) = ("s".to_owned(), LearnedBy::Refinement, Finding::RouterRepaired);
        KeyLesson { student, learned_by, about, finding, before, after, n: 100 }
    }

    #[test]
    fn a_lesson_that_is_known_is_left_out_and_others_are_kept() {
        let known = lesson(Part::Layer(3), 0.9, Some(0.95));
        let mut distiller = MemoryDistiller::new(vec![known.clone()]);
        assert!(!distiller.add(lesson(Part::Layer(3), 0.91, Some(0.95))), "nearly the same figures");
        assert!(distiller.add(lesson(Part::Layer(3), 0.9, Some(0.1))), "the same part fared otherwise");
        assert!(distiller.add(lesson(Part::Layer(4), 0.9, Some(0.95))), "another part");
        assert!(distiller.add(KeyLesson { finding: Finding::RouterStays, ..known.clone() }), "another finding");
        assert!(distiller.add(KeyLesson { learned_by: LearnedBy::Gates, ..known.clone() }), "another kind of run");
        assert!(distiller.add(KeyLesson { student: "t".to_owned(), ..known.clone() }), "another student");
        assert!(distiller.add(KeyLesson { after: None, ..known.clone() }), "a figure less");
        // One figure points where the other does, however far it is away.
        let drift = |before| lesson(Part::Expert { layer: 3, expert: 5 }, before, None);
        assert!(distiller.add(drift(0.1)) && distiller.add(drift(0.3)), "three times the error");
        assert!(!distiller.add(drift(0.11)) && !distiller.add(drift(0.0905)), "within 15 %");
        assert!(distiller.add(drift(0.0)) && !distiller.add(drift(0.0)));
        let gate = |prompts: &[&str]| {
            let prompts = prompts.iter().map(|prompt| (*prompt).to_owned()).collect();
            lesson(Part::Gate { name: "must_refuse".to_owned(), prompts }, 0.5, None)
        };
        assert!(distiller.add(gate(&["p-1", "p-2", "p-3"])));
        assert!(!distiller.add(gate(&["p-3", "p-2", "p-1"])), "the same prompts in another order");
        assert!(distiller.add(gate(&["p-7", "p-8", "p-9"])), "other prompts");
        assert!(distiller.add(gate(&["p-1", "p-2", "p-3", "p-4"])), "three of four prompts");
        assert!(distiller.add(gate(&[])) && !distiller.add(gate(&[])));
        let settings = |text: &str| lesson(Part::Settings(text.to_owned()), 0.2, Some(0.1));
        assert!(distiller.add(settings(r#"{"lr":0.1}"#)) && !distiller.add(settings(r#"{"lr":0.1}"#)));
        assert!(distiller.add(settings(r#"{"lr":0.2}"#)), "other settings");
        assert_eq!(distiller.into_lessons().len(), 15);
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
            memory: TrainMemory::default(),
        };
        let mut distiller = MemoryDistiller::default();
        distiller.add_refinement("s", "{}", &report, &drifts);
        let lessons = distiller.into_lessons();
        assert!(lessons.iter().all(|lesson| lesson.student == "s"));
        assert_eq!((lessons[0].finding, lessons[0].after), (Finding::SettingsHelped, Some(0.1)));
        let experts: Vec<Part> = lessons[1..].iter().map(|lesson| lesson.about.clone()).collect();
        assert_eq!(experts, [5, 2, 7, 4].map(|expert| Part::Expert { layer: 2, expert }));
    }
}
