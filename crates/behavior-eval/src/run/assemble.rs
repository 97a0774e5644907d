//! The third step: from recordings to a report, in one pass over the prompts.

use std::collections::BTreeMap;

use super::failures::failures;
use super::gate_run::GateRun;
use super::measure::StudentSide;
use super::summary::summary;
use super::sums::{Sums, write_trace};
use super::teacher::TeacherSide;
use crate::Result;
use crate::gates::{GateResult, Measured, PromptRecord, RoutingGate, Verdict};
use crate::labels::{FigureMove, LabelCounts, PromptLabel, Stability};
use crate::model::{Answer, AnswerEnd, SubjectInfo};
use crate::records::trace::TraceWriter;
use crate::report::{GateReport, LabelSource, ModelReport, PromptReport, Retention, RunFacts, SCHEMA, SuiteFacts};
use crate::suite::Prompt;

impl GateRun<'_> {
    /// Computes the report and writes the trace.
    ///
    /// # Errors
    /// Suites and figures that decide nothing ([`GateError`](crate::gates::GateError)), damaged recordings, a disk that
    /// refuses.
    pub fn report(
        &self,
        teacher: &TeacherSide,
        student: &StudentSide,
        mut trace: Option<&mut TraceWriter>,
    ) -> Result<GateReport> {
        let (settings, min_samples) = (self.settings(), self.config.thresholds.min_samples);
        let prompts = self.suite.prompts().iter().zip(&self.labels.prompts);
        let (mut taught, mut learnt) = (Vec::new(), Vec::new());
        let mut sums = Sums::new(&student.info);
        for (i, (prompt, label)) in prompts.enumerate() {
            taught.push(self.record(prompt, label, teacher.base.answer(i)?));
            let mut record = self.record(prompt, label, student.base.answer(i).clone());
            let (routing, stored) = (teacher.base.routing(i)?, student.base.read(i)?);
            record.routing = Some(sums.push((&teacher.base, i), &routing, &stored)?);
            if let Some(trace) = trace.as_deref_mut() {
                write_trace(trace, &record, &student.info.moe_layers, &routing, &stored)?;
            }
            learnt.push(record);
        }
        let summed = sums.finish()?;
        let teacher_report = self.model_report(&teacher.info, &taught, Measured::of(&taught, min_samples)?);
        let student_report = self.model_report(&student.info, &learnt, Measured::of(&learnt, min_samples)?);
        let pairs: Vec<_> = learnt.iter().zip(&taught).collect();
        let thresholds = &settings.thresholds;
        let mut report = GateReport {
            verdict: Verdict::of(&student_report.gates, thresholds)?,
            summary: Vec::new(),
            schema: SCHEMA,
            suite: self.suite_facts(),
            retention: retention(&teacher_report.gates, &student_report.gates),
            failures: failures(&student_report, &pairs, &summed.routing, settings.strict, &|i| {
                Ok((teacher.base.routing(i)?, student.base.read(i)?.routing))
            })?,
            prompts: pairs.iter().map(|(student, teacher)| PromptReport::of(student, teacher, thresholds)).collect(),
            settings,
            teacher: teacher_report,
            student: student_report,
            routing: summed.routing,
            local_routing: summed.local,
            coherence: summed.coherence,
            fidelity: summed.fidelity,
            labels: self.labels.figures.clone(),
            perturbation: self.stability(teacher, student, &learnt)?,
            baseline: None,
            repaired: None,
            run: RunFacts::default(),
        };
        report.summary = summary(&report);
        Ok(report)
    }

    /// The faults of each prompt that was run; for a part of a suite, which decides nothing.
    ///
    /// # Errors
    /// Damaged recordings.
    pub fn check_prompts(&self, teacher: &TeacherSide, student: &StudentSide) -> Result<Vec<PromptReport>> {
        let mut reports = Vec::new();
        for (at, prompt) in self.chosen_prompts().into_iter().enumerate() {
            let place = teacher.base.place_of(prompt)?;
            let label = &self.labels.prompts[place];
            let taught = self.record(prompt, label, teacher.base.answer(place)?);
            let mut record = self.record(prompt, label, student.base.answer(at).clone());
            let mut gate = RoutingGate::new(&student.info.moe_layers);
            record.routing =
                Some(gate.push(&prompt.id, &teacher.base.routing(place)?, &student.base.read(at)?.routing)?);
            reports.push(PromptReport::of(&record, &taught, &self.config.thresholds));
        }
        Ok(reports)
    }

    fn record<'p>(&self, prompt: &'p Prompt, label: &'p PromptLabel, answer: Answer) -> PromptRecord<'p> {
        PromptRecord::new(prompt, Some(label), answer, &self.config.signals)
    }

    fn model_report(&self, info: &SubjectInfo, records: &[PromptRecord<'_>], measured: Measured) -> ModelReport {
        let tokens: usize = records.iter().map(|record| record.answer.tokens.len()).sum();
        let cut_off = records.iter().filter(|record| record.answer.stop_reason != AnswerEnd::Stop);
        ModelReport {
            name: info.name.clone(),
            identity: info.id.clone(),
            gates: measured.gates(&self.config.thresholds, self.config.strict),
            citations: measured.citations,
            refusal: measured.refusals,
            answer_tokens: tokens as f64 / records.len().max(1) as f64,
            cut_off: cut_off.count() as u64,
        }
    }

    fn suite_facts(&self) -> SuiteFacts {
        let labels = &self.labels.prompts;
        let (own, all) = (labels.iter().filter(|prompt| prompt.true_label.is_some()).count(), labels.len());
        SuiteFacts {
            name: self.suite_name.clone(),
            identity: self.suite.identity().to_owned(),
            prompts: all as u64,
            counts: LabelCounts::of(labels.iter().map(PromptLabel::gating)),
            labels: match own {
                0 => LabelSource::Automatic,
                own if own == all => LabelSource::Suite,
                _ => LabelSource::Both,
            },
        }
    }

    /// The same gates over the prompts that keep their label, with all of the evidence and with less.
    fn stability(
        &self,
        teacher: &TeacherSide,
        student: &StudentSide,
        records: &[PromptRecord<'_>],
    ) -> Result<Option<Stability>> {
        let (Some(less), Some(artifact), Some(journal)) = (&self.perturbed, &teacher.perturbed, &student.perturbed)
        else {
            return Ok(None);
        };
        let mut touched = BTreeMap::new();
        for (at, &i) in less.touched.iter().enumerate() {
            let prompt = &less.suite.prompts()[i];
            let mut record = self.record(prompt, &less.labels.prompts[i], journal.answer(at).clone());
            let mut gate = RoutingGate::new(&artifact.spec().model.moe_layers);
            record.routing = Some(gate.push(&prompt.id, &artifact.routing(at)?, &journal.read(at)?.routing)?);
            touched.insert(i, record);
        }
        let before: Vec<&PromptRecord<'_>> = less.kept.iter().map(|&i| &records[i]).collect();
        let after: Vec<&PromptRecord<'_>> = less.kept.iter().map(|i| touched.get(i).unwrap_or(&records[*i])).collect();
        let gates = |records: &[&PromptRecord<'_>]| -> Result<Vec<GateResult>> {
            let measured = Measured::of(records, self.config.thresholds.min_samples)?;
            Ok(measured.gates(&self.config.thresholds, self.config.strict))
        };
        let (before, after) = (gates(&before)?, gates(&after)?);
        let value = |result: &GateResult| result.figure.map_or(f64::NAN, |figure| figure.value);
        let pairs = before.iter().zip(&after).filter(|(b, a)| b.figure.is_some() || a.figure.is_some());
        let moves = pairs.map(|(b, a)| FigureMove::new(b.gate.name(), value(b), value(a), a.passed())).collect();
        Ok(Some(Stability::new(less, moves)))
    }
}

fn retention(teacher: &[GateResult], student: &[GateResult]) -> Vec<Retention> {
    let pairs = student.iter().filter_map(|result| {
        let of = teacher.iter().find(|other| other.gate == result.gate)?.figure?.value;
        let own = result.figure?.value;
        Some(Retention { gate: result.gate, teacher: of, student: own, kept: (of > 0.0).then(|| own / of) })
    });
    pairs.collect()
}
