//! From recordings to a report: one pass over the prompts, then figures.

use super::answers::{Judged, routing_figure};
use super::blame;
use super::blame::Case;
use super::gate_run::{GateRun, StudentSide, TeacherSide};
use crate::gates::{
    Answered, GateResult, PromptCitations, PromptFigures, PromptRefusal, RoutingGate, Verdict, judge_citations,
    judge_refusal,
};
use crate::labels::{FigureMove, Perturbed, Stability};
use crate::model::{Answer, StopReason, SubjectInfo};
use crate::records::StudentJournal;
use crate::records::artifact::TeacherArtifact;
use crate::records::trace::{CitationTrace, RefusalTrace, TraceRecord, TraceWriter};
use crate::report::{
    AnswerFidelity, Coherence, GateReport, LabelSection, LabelSource, ModelReport, PromptReport, Retention,
    RoutingSection, RunFacts, SCHEMA, SuiteFacts,
};
use crate::stats::{BootstrapConfig, Figure, Moments};
use crate::suite::{Label, Prompt, Suite};
use crate::text::sentences;
use crate::{Error, Result};

/// See [`GateRun::report`].
pub(super) fn report(
    run: &GateRun<'_>,
    teacher: &TeacherSide,
    student: &StudentSide,
    mut trace: Option<&mut TraceWriter>,
) -> Result<GateReport> {
    let prompts = run.suite.prompts();
    let (settings, config) = (run.settings(), run.gate_config());
    let teacher_answers: Vec<Answer> = (0..prompts.len()).map(|i| teacher.base.answer(i)).collect::<Result<_>>()?;
    let student_answers: Vec<Answer> = (0..prompts.len()).map(|i| student.base.answer(i).clone()).collect();
    let teacher_judged = Judged::new(&answered(run, &teacher_answers), &run.config.signals, &config)?;
    let student_judged = Judged::new(&answered(run, &student_answers), &run.config.signals, &config)?;

    let mut sums = Sums::new(&student.info);
    for (i, prompt) in prompts.iter().enumerate() {
        let judged = (&student_judged.citations.prompts[i], &student_judged.refusals.prompts[i]);
        sums.push(&teacher.base, &student.base, (i, i), prompt, judged, trace.as_deref_mut())?;
    }
    let measured = sums.finish()?;
    let counts: Vec<(u64, u64)> = measured.prompts.iter().map(decisions).collect();
    let teacher_report =
        model_report(&teacher.info, &teacher_judged, &teacher_answers, teacher_judged.gates(None, &settings));
    let student_gates = student_judged.gates(routing_figure(&counts, &config), &settings);
    let verdict = Verdict::of(&student_gates, &settings.thresholds)?;
    let student_report = model_report(&student.info, &student_judged, &student_answers, student_gates);

    let cases: Vec<Case<'_>> = prompts
        .iter()
        .enumerate()
        .map(|(i, prompt)| Case {
            prompt,
            label: run.labels.prompts[i].gating(),
            routing: &measured.prompts[i],
            citations: &student_judged.citations.prompts[i],
            refusal: &student_judged.refusals.prompts[i],
            teacher_refused: teacher_judged.refusals.prompts[i].did_refuse,
            answer: &student_answers[i],
            teacher_answer: &teacher_answers[i],
        })
        .collect();
    let failed = student_report.misses().copied().collect::<Vec<_>>();
    let misrouted =
        |i: usize| blame::misrouted(&prompts[i].id, &student.info, &teacher.base.routing(i)?, &student.base, i);
    let failures = blame::failures(&failed, &cases, &measured.routing, settings.strict, &misrouted)?;
    let perturbation = match (&run.perturbed, &teacher.perturbed, &student.perturbed) {
        (Some(perturbed), Some(artifact), Some(journal)) => {
            Some(stability(run, perturbed, (artifact, journal), &student_answers, &counts)?)
        }
        _ => None,
    };
    let labels = LabelSection::from(&run.labels);
    let mut report = GateReport {
        verdict,
        summary: Vec::new(),
        schema: SCHEMA,
        suite: suite_facts(run),
        retention: retention(&teacher_report.gates, &student_report.gates),
        settings,
        teacher: teacher_report,
        student: student_report,
        routing: measured.routing,
        local_routing: measured.local,
        coherence: measured.coherence,
        fidelity: measured.fidelity,
        labels,
        perturbation,
        failures,
        prompts: cases.iter().map(|case| case.report(&run.config.thresholds)).collect(),
        baseline: None,
        run: RunFacts::default(),
    };
    report.summary = blame::summary(&report);
    Ok(report)
}

/// See [`GateRun::check_prompts`].
pub(super) fn check_prompts(
    run: &GateRun<'_>,
    teacher: &TeacherSide,
    student: &StudentSide,
) -> Result<Vec<PromptReport>> {
    let mut reports = Vec::new();
    for (at, prompt) in run.base_prompts().into_iter().enumerate() {
        let unknown = || Error::UnknownPrompt { prompt_id: prompt.id.clone() };
        let index = teacher.base.find(&prompt.id).ok_or_else(unknown)?;
        let (answer, teacher_answer) = (student.base.answer(at), teacher.base.answer(index)?);
        let label = &run.labels.prompts[index];
        let judge = |text| Answered::new(prompt, text).with_evidence(label);
        let own = judge(&answer.text);
        let (citations, refusal) = (judge_citations(&own), judge_refusal(&own, &run.config.signals));
        let mut gate = RoutingGate::new(&student.info.moe_layers);
        let figures = gate.push(&prompt.id, &teacher.base.routing(index)?, &student.base.read(at)?.routing)?;
        let case = Case {
            prompt,
            label: label.gating(),
            routing: figures,
            citations: &citations,
            refusal: &refusal,
            teacher_refused: judge_refusal(&judge(&teacher_answer.text), &run.config.signals).did_refuse,
            answer,
            teacher_answer: &teacher_answer,
        };
        reports.push(case.report(&run.config.thresholds));
    }
    Ok(reports)
}

/// The answers with what they are judged by.
fn answered<'a>(run: &'a GateRun<'_>, answers: &'a [Answer]) -> Vec<Answered<'a>> {
    let prompts = run.suite.prompts().iter().zip(&run.labels.prompts);
    prompts.zip(answers).map(|((prompt, label), a)| Answered::new(prompt, &a.text).with_evidence(label)).collect()
}

fn decisions(figures: &PromptFigures) -> (u64, u64) {
    (figures.figures.agreement.count, figures.figures.agreement.n)
}

fn model_report(info: &SubjectInfo, judged: &Judged, answers: &[Answer], gates: Vec<GateResult>) -> ModelReport {
    let tokens: usize = answers.iter().map(|answer| answer.tokens.len()).sum();
    ModelReport {
        name: info.name.clone(),
        identity: info.id.clone(),
        gates,
        citations: judged.citations.figures.clone(),
        refusal: judged.refusals.figures.clone(),
        answer_tokens: tokens as f64 / answers.len().max(1) as f64,
        cut_off: answers.iter().filter(|answer| answer.stop_reason != StopReason::Stop).count() as u64,
    }
}

fn suite_facts(run: &GateRun<'_>) -> SuiteFacts {
    let labels = &run.labels.prompts;
    let count = |label| labels.iter().filter(|prompt| prompt.gating() == label).count() as u64;
    let (own, all) = (labels.iter().filter(|prompt| prompt.true_label.is_some()).count(), labels.len());
    SuiteFacts {
        name: run.suite_name.clone(),
        identity: run.suite.identity().to_owned(),
        prompts: all as u64,
        resolved: count(Some(Label::Resolved)),
        contested: count(Some(Label::Contested)),
        indeterminate: count(Some(Label::Indeterminate)),
        unlabelled: count(None),
        labels: match own {
            0 => LabelSource::Automatic,
            own if own == all => LabelSource::Suite,
            _ => LabelSource::Both,
        },
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

/// The same gates over the prompts whose label survives, with all of the evidence and with less.
fn stability(
    run: &GateRun<'_>,
    perturbed: &Perturbed,
    (artifact, journal): (&TeacherArtifact, &StudentJournal),
    answers: &[Answer],
    counts: &[(u64, u64)],
) -> Result<Stability> {
    let (mut after_answers, mut after_counts) = (answers.to_vec(), counts.to_vec());
    for (at, &i) in perturbed.touched.iter().enumerate() {
        after_answers[i] = journal.answer(at).clone();
        let mut gate = RoutingGate::new(&artifact.spec().model.moe_layers);
        let id = &perturbed.suite.prompts()[i].id;
        after_counts[i] = decisions(gate.push(id, &artifact.routing(at)?, &journal.read(at)?.routing)?);
    }
    let (settings, config) = (run.settings(), run.gate_config());
    let judged = |suite: &Suite, answers: &[Answer], counts: &[(u64, u64)]| -> Result<Vec<GateResult>> {
        let own = std::ptr::eq(suite, run.suite);
        let labels = if own { &run.labels.prompts } else { &perturbed.labels.prompts };
        let kept = &perturbed.surviving;
        let answered: Vec<Answered<'_>> = kept
            .iter()
            .map(|&i| Answered::new(&suite.prompts()[i], &answers[i].text).with_evidence(&labels[i]))
            .collect();
        let counts: Vec<(u64, u64)> = kept.iter().map(|&i| counts[i]).collect();
        let judged = Judged::new(&answered, &run.config.signals, &config)?;
        Ok(judged.gates(routing_figure(&counts, &config), &settings))
    };
    let before = judged(run.suite, answers, counts)?;
    let after = judged(&perturbed.suite, &after_answers, &after_counts)?;
    let value = |result: &GateResult| result.figure.map_or(f64::NAN, |figure: Figure| figure.value);
    let pairs = before.iter().zip(&after).filter(|(before, after)| before.figure.is_some() || after.figure.is_some());
    let moves = pairs.map(|(b, a)| FigureMove::new(b.gate.name(), value(b), value(a), a.passed())).collect();
    Ok(Stability::new(run.config.perturbation.unwrap_or_default(), perturbed, moves))
}

/// What is gathered prompt by prompt.
struct Sums {
    routing: RoutingGate,
    local: Option<RoutingGate>,
    moe_layers: Vec<u32>,
    coherence: Moments,
    lowest: f64,
    kl: Moments,
    kl_by_position: Vec<Moments>,
    same_top1: Vec<(u64, u64)>,
    tail: Moments,
}

/// What came of it.
struct Measured {
    routing: RoutingSection,
    local: Option<RoutingSection>,
    prompts: Vec<PromptFigures>,
    coherence: Option<Coherence>,
    fidelity: Option<AnswerFidelity>,
}

impl Sums {
    fn new(info: &SubjectInfo) -> Self {
        Self {
            routing: RoutingGate::new(&info.moe_layers),
            local: None,
            moe_layers: info.moe_layers.clone(),
            coherence: Moments::default(),
            lowest: f64::INFINITY,
            kl: Moments::default(),
            kl_by_position: Vec::new(),
            same_top1: Vec::new(),
            tail: Moments::default(),
        }
    }

    fn push(
        &mut self,
        teacher: &TeacherArtifact,
        student: &StudentJournal,
        (of_teacher, of_student): (usize, usize),
        prompt: &Prompt,
        judged: (&PromptCitations, &PromptRefusal),
        trace: Option<&mut TraceWriter>,
    ) -> Result<()> {
        let (table, record) = (teacher.routing(of_teacher)?, student.read(of_student)?);
        self.routing.push(&prompt.id, &table, &record.routing)?;
        if let (Some(reference), Some(local)) = (teacher.local_routing(of_teacher)?, &record.local) {
            let gate = self.local.get_or_insert_with(|| RoutingGate::new(&self.moe_layers));
            gate.push(&prompt.id, &reference, local)?;
        }
        for &cosine in record.coherence.iter().flatten() {
            self.coherence.push(cosine);
            self.lowest = self.lowest.min(cosine);
        }
        if let (Some(rows), Some(divergence)) = (teacher.sparse_logits(of_teacher)?, &record.divergence) {
            let same = divergence.iter().filter(|(_, same)| *same).count() as u64;
            self.same_top1.push((same, divergence.len() as u64));
            rows.iter().for_each(|row| self.tail.push(row.tail));
            for (at, &(kl, _)) in divergence.iter().enumerate() {
                self.kl.push(kl);
                if self.kl_by_position.len() <= at {
                    self.kl_by_position.push(Moments::default());
                }
                self.kl_by_position[at].push(kl);
            }
        }
        let Some(trace) = trace else { return Ok(()) };
        let last = (table.n.checked_sub(1), self.moe_layers.len().checked_sub(1));
        for token in 0..table.n {
            for (layer, &layer_idx) in self.moe_layers.iter().enumerate() {
                let (t, s) = (table.at(layer, token), record.routing.at(layer, token));
                let mut line = TraceRecord::new(&prompt.id, token as u64, layer_idx, t, s);
                line.coherence_score = record.coherence.as_ref().and_then(|all| all.get(token)).copied();
                if last == (Some(token), Some(layer)) {
                    line.citations = citation_traces(prompt, &record.answer.text, judged.0);
                    line.refusal = Some(RefusalTrace::new(judged.1.should_refuse, judged.1.did_refuse));
                    line.stop_reason = Some(record.answer.stop_reason.name().to_owned());
                }
                trace.write(&line)?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Measured> {
        let section = |gate: RoutingGate| -> Result<(RoutingSection, Vec<PromptFigures>)> {
            // The intervals by prompt come from elsewhere.
            let report = gate.finish(BootstrapConfig { resamples: 0, seed: 0 })?;
            let section =
                RoutingSection { figures: report.figures, layers: report.layers, worst_layer: report.worst_layer };
            Ok((section, report.prompts))
        };
        let (routing, prompts) = section(self.routing)?;
        let local = self.local.map(section).transpose()?.map(|(section, _)| section);
        let positions = self.coherence.n();
        let coherence =
            (positions > 0).then(|| Coherence { mean: self.coherence.mean(), lowest: self.lowest, n: positions });
        let same_top1 = routing_figure(&self.same_top1, &crate::gates::GateConfig::default());
        let fidelity = same_top1.map(|same_top1| AnswerFidelity {
            kl_mean: self.kl.mean(),
            tail_mass: self.tail.mean(),
            same_top1,
            kl_by_position: self.kl_by_position.iter().map(Moments::mean).collect(),
        });
        Ok(Measured { routing, local, prompts, coherence, fidelity })
    }
}

/// The citations of an answer, each with the text that it stands for.
fn citation_traces(prompt: &Prompt, response: &str, judged: &PromptCitations) -> Vec<CitationTrace> {
    let by_clause = judged.label == Some(Label::Contested);
    let spans = sentences(response, prompt).into_iter().flat_map(|sentence| {
        let text = sentence.text;
        let span = move |clause: std::ops::Range<usize>| {
            if by_clause { response[clause].to_owned() } else { text.clone() }
        };
        sentence.citations.into_iter().map(move |citation| span(citation.clause))
    });
    let pairs = judged.citations.iter().zip(spans);
    pairs
        .map(|(citation, span)| CitationTrace {
            chunk_id: citation.chunk_id.clone(),
            span,
            valid: citation.valid,
            ..CitationTrace::default()
        })
        .collect()
}
