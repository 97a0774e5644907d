//! Sums over the prompts of recordings: routing, coherence and the divergence of predictions.

use crate::Result;
use crate::gates::{PromptRecord, RoutingFigures, RoutingGate, RoutingReport, agreement};
use crate::model::{RoutingTable, SubjectInfo};
use crate::records::StudentRecord;
use crate::records::artifact::TeacherArtifact;
use crate::records::trace::{CitationTrace, RefusalTrace, TraceRecord, TraceWriter};
use crate::report::{AnswerFidelity, Coherence};
use crate::stats::{Moments, Share};

/// The sums so far.
#[derive(Default)]
pub(super) struct Sums {
    routing: RoutingGate,
    local: Option<RoutingGate>,
    coherence: Moments,
    lowest: f64,
    kl: Moments,
    kl_by_position: Vec<Moments>,
    same_top1: Vec<Share>,
    tail: Moments,
}

/// The figures they give.
pub(super) struct Summed {
    pub(super) routing: RoutingReport,
    pub(super) local: Option<RoutingReport>,
    pub(super) coherence: Option<Coherence>,
    pub(super) fidelity: Option<AnswerFidelity>,
}

impl Sums {
    pub(super) fn new(info: &SubjectInfo) -> Self {
        Self { routing: RoutingGate::new(&info.moe_layers), lowest: f64::INFINITY, ..Self::default() }
    }

    /// Takes prompt number `place` of a recording, with the teacher's routing. Returns the prompt's routing figures.
    pub(super) fn push(
        &mut self,
        (teacher, place): (&TeacherArtifact, usize),
        routing: &RoutingTable,
        student: &StudentRecord,
    ) -> Result<RoutingFigures> {
        let figures = self.routing.push(&student.prompt_id, routing, &student.routing)?;
        if let (Some(reference), Some(local)) = (teacher.local_routing(place)?, &student.local) {
            let gate = self.local.get_or_insert_with(|| RoutingGate::new(&teacher.spec().model.moe_layers));
            gate.push(&student.prompt_id, &reference, local)?;
        }
        for &cosine in student.coherence.iter().flatten() {
            self.coherence.push(cosine);
            self.lowest = self.lowest.min(cosine);
        }
        if let (Some(rows), Some(divergence)) = (teacher.sparse_logits(place)?, &student.divergence) {
            let same = divergence.iter().filter(|(_, same)| *same).count();
            self.same_top1.extend(Share::of(same as u64, divergence.len() as u64));
            rows.iter().for_each(|row| self.tail.push(row.tail));
            self.kl_by_position.resize_with(self.kl_by_position.len().max(divergence.len()), Moments::default);
            for (at_position, &(kl, _)) in self.kl_by_position.iter_mut().zip(divergence) {
                self.kl.push(kl);
                at_position.push(kl);
            }
        }
        Ok(figures)
    }

    pub(super) fn finish(self) -> Result<Summed> {
        let n = self.coherence.n();
        let same_top1 = agreement(self.same_top1.into_iter());
        Ok(Summed {
            routing: self.routing.finish()?,
            local: self.local.map(RoutingGate::finish).transpose()?,
            coherence: (n > 0).then(|| Coherence { mean: self.coherence.mean(), lowest: self.lowest, n }),
            fidelity: same_top1.map(|same_top1| AnswerFidelity {
                kl_mean: self.kl.mean(),
                tail_mass: self.tail.mean(),
                same_top1,
                kl_by_position: self.kl_by_position.iter().map(Moments::mean).collect(),
            }),
        })
    }
}

/// Writes the lines of one prompt, token by token and layer by layer.
pub(super) fn write_trace(
    trace: &mut TraceWriter,
    record: &PromptRecord<'_>,
    moe_layers: &[u32],
    teacher: &RoutingTable,
    student: &StudentRecord,
) -> Result<()> {
    for token in 0..teacher.n {
        for (layer, &layer_idx) in moe_layers.iter().enumerate() {
            let (t, s) = (teacher.at(layer, token), student.routing.at(layer, token));
            let mut line = TraceRecord::new(&record.prompt.id, token as u64, layer_idx, t, s);
            line.coherence_score = student.coherence.as_ref().and_then(|all| all.get(token)).copied();
            if token + 1 == teacher.n && layer + 1 == moe_layers.len() {
                let citation = |c: &crate::gates::JudgedCitation| CitationTrace {
                    chunk_id: c.chunk_id.clone(),
                    span: c.said.clone(),
                    valid: c.valid,
                    ..CitationTrace::default()
                };
                line.citations = record.citations.iter().map(citation).collect();
                line.refusal = Some(RefusalTrace::new(record.should_refuse(), record.did_refuse()));
                line.stop_reason = Some(record.answer.stop_reason.to_string());
            }
            trace.write(&line)?;
        }
    }
    Ok(())
}
