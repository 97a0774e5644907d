//! `--lessons` of `refine` and `distill`: what the run taught, kept for people and for later runs.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use moe_runtime::ModelFiles;
use rlm_refine::lessons::MemoryDistiller;
use rlm_refine::policy::{Finding, KeyLesson, Part, Policy, PolicyStore, RouterPolicy};
use rlm_refine::train::{Focus, RefineReport, RouterRepair, expert_drift};
use tl_kernels::Pool;

use crate::output;

/// A store, and its lessons about students of one teacher.
pub(super) struct Lessons<'a> {
    store: &'a Path,
    /// BLAKE3 of the teacher.
    teacher: String,
    known: Vec<KeyLesson>,
}

/// A run that is done.
pub(super) struct Run<'a> {
    /// The file that it wrote.
    pub(super) student: &'a ModelFiles,
    pub(super) report: &'a RefineReport,
    /// The settings as JSON.
    pub(super) settings: &'a str,
}

impl<'a> Lessons<'a> {
    /// The lessons of the store about students of the teacher with this BLAKE3.
    ///
    /// # Errors
    /// A file that is no store.
    pub(super) fn open(store: &'a Path, teacher: String) -> Result<Self> {
        let known = PolicyStore::open(store)?.lessons()?.remove(&teacher).unwrap_or_default();
        Ok(Self { store, teacher, known })
    }

    /// Larger steps for the experts that lessons about this student name; `None`, with a note, where they name none.
    ///
    /// # Errors
    /// A student that cannot be read.
    pub(super) fn focus(&self, factor: f32, student: &ModelFiles) -> Result<Option<Focus>> {
        let experts = named_experts(&self.known, &student.identity(&mut |_, _| {})?);
        if experts.is_empty() {
            let path = self.store.display();
            output::note(format_args!("note: {path} names no expert of this student yet, so all take equal steps"));
        }
        let n_experts = student.config.moe.as_ref().map_or(0, |moe| moe.router.n_experts);
        Ok((!experts.is_empty()).then_some(Focus { experts, factor, n_experts }))
    }

    /// Measures the drift of the written student's experts on the windows, and adds the lessons to the store; returns their
    /// number. Without a teacher's checkpoint no drift is measured.
    ///
    /// # Errors
    /// Weights that cannot be read, a store that cannot be written.
    pub(super) fn keep(
        self,
        run: &Run<'_>,
        teacher: Option<&ModelFiles>,
        held_out: &[Vec<u32>],
        pool: &Pool,
    ) -> Result<usize> {
        let drift = teacher.map(|teacher| expert_drift([run.student, teacher], held_out, pool));
        let mut distiller = MemoryDistiller::new(self.known);
        let student = run.student.identity(&mut |_, _| {})?;
        distiller.add_refinement(&student, run.settings, run.report, &drift.transpose()?.unwrap_or_default());
        let lessons = distiller.into_lessons();
        let n = lessons.len();
        let routers = run.report.repair.iter().flat_map(routers);
        let policies: Vec<(String, Policy)> = lessons.into_iter().map(Policy::of_lesson).chain(routers).collect();
        PolicyStore::open(self.store)?.append(&self.teacher, &policies)?;
        Ok(n)
    }
}

/// The experts of a student whose outputs drift, ascending.
fn named_experts(lessons: &[KeyLesson], student: &str) -> Vec<(usize, usize)> {
    let of_student = lessons.iter().filter(|lesson| lesson.student == student);
    let drifting = of_student.filter(|lesson| lesson.finding == Finding::ExpertDrifts);
    let experts: BTreeSet<(usize, usize)> = drifting
        .filter_map(|lesson| match lesson.about {
            Part::Expert { layer, expert } => Some((layer, expert)),
            _ => None,
        })
        .collect();
    experts.into_iter().collect()
}

/// The fit of each router as an entry of a store.
fn routers(repair: &RouterRepair) -> impl Iterator<Item = (String, Policy)> + '_ {
    repair.routers.iter().map(|router| {
        let policy = RouterPolicy {
            method: repair.method.name().to_owned(),
            agreement_before: router.agreement_before,
            agreement_after: router.agreement_after,
            is_kept: router.is_kept,
        };
        (format!("blk.{}.ffn_gate_inp.weight", router.layer), Policy::Router(policy))
    })
}

#[cfg(test)]
mod tests {
    use rlm_refine::policy::LearnedBy;

    use super::*;

    #[test]
    fn a_focus_follows_the_lessons_about_its_own_student() {
        let lesson = |student: &str, layer, expert, finding| KeyLesson {
            student: student.to_owned(),
            learned_by: LearnedBy::Refinement,
            about: Part::Expert { layer, expert },
            finding,
            before: 0.5,
            after: None,
            n: 9,
        };
        let drifts = Finding::ExpertDrifts;
        let lessons = [
            lesson("a", 4, 1, drifts),
            lesson("a", 2, 7, drifts),
            lesson("b", 3, 3, drifts),
            lesson("a", 2, 7, drifts),
            KeyLesson { about: Part::Layer(1), ..lesson("a", 0, 0, Finding::RouterStays) },
        ];
        assert_eq!(named_experts(&lessons, "a"), [(2, 7), (4, 1)]);
        assert_eq!(named_experts(&lessons, "b"), [(3, 3)]);
        assert!(named_experts(&lessons, "c").is_empty());
    }
}
