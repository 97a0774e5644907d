//! `--lessons` of `refine` and `distill`: what the run taught, kept for people and for later runs.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use moe_runtime::ModelFiles;
use rlm_refine::lessons::MemoryDistiller;
use rlm_refine::policy::{Finding, KeyLesson, Part, Policy, PolicyStore, RouterPolicy};
use rlm_refine::train::{Focus, RefineReport, expert_drift};
use tl_kernels::Pool;

use crate::output;

/// The lessons about students of a teacher that a store holds.
///
/// # Errors
/// A file that is no store.
pub(super) fn known(store: &Path, teacher: &str) -> Result<Vec<KeyLesson>> {
    Ok(PolicyStore::open(store)?.lessons()?.remove(teacher).unwrap_or_default())
}

/// Larger steps for the experts that lessons name; `None` where they name none.
pub(super) fn focus(lessons: &[KeyLesson], factor: f32, student: &ModelFiles) -> Option<Focus> {
    let n_experts = student.config.moe.as_ref()?.router.n_experts;
    let named = lessons.iter().filter(|lesson| lesson.finding == Finding::ExpertDrifts);
    let experts: BTreeSet<(usize, usize)> = named
        .filter_map(|lesson| match lesson.about {
            Part::Expert { layer, expert } => Some((layer, expert)),
            _ => None,
        })
        .collect();
    (!experts.is_empty()).then(|| Focus { experts: experts.into_iter().collect(), factor, n_experts })
}

/// A run whose lessons are kept.
pub(super) struct Run<'a> {
    pub(super) store: &'a Path,
    /// BLAKE3 of the teacher.
    pub(super) teacher: &'a str,
    pub(super) known: Vec<KeyLesson>,
    pub(super) report: &'a RefineReport,
    /// The settings as JSON.
    pub(super) settings: &'a str,
}

impl Run<'_> {
    /// Measures the drift of the refined student's experts on the windows, and adds the lessons to the store; returns their
    /// number. Without a teacher's checkpoint no drift is measured.
    ///
    /// # Errors
    /// Weights that cannot be read, a store that cannot be written.
    pub(super) fn keep(self, models: Option<[&ModelFiles; 2]>, held_out: &[Vec<u32>], pool: &Pool) -> Result<usize> {
        let drift = models.map(|models| expert_drift(models, held_out, pool)).transpose()?.unwrap_or_default();
        let mut distiller = MemoryDistiller::new(self.known);
        distiller.add_refinement(self.settings, self.report, &drift);
        let lessons = distiller.into_lessons();
        let store = PolicyStore::open(self.store)?;
        store.append_lessons(self.teacher, &lessons)?;
        if let Some(repair) = &self.report.repair {
            let routers = repair.routers.iter().map(|router| {
                let policy = RouterPolicy {
                    method: repair.method.name().to_owned(),
                    agreement_before: router.agreement_before,
                    agreement_after: router.agreement_after,
                    is_kept: router.is_kept,
                };
                (format!("blk.{}.ffn_gate_inp.weight", router.layer), Policy::Router(policy))
            });
            store.append(self.teacher, &routers.collect::<Vec<_>>())?;
        }
        Ok(lessons.len())
    }
}

/// Says that the store names no expert.
pub(super) fn note_no_focus(store: &Path) {
    output::note(format_args!("note: {} names no expert yet, so all take equal steps", store.display()));
}
