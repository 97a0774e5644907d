//! Where a student went wrong: prompt by prompt, gate by gate, and in sentences.

use crate::Result;
use crate::gates::{
    BehavioralGate, CitationVerdict, GateResult, GateThresholds, Outcome, PromptCitations, PromptFigures,
    PromptRefusal, Verdict,
};
use crate::model::{Answer, RoutingTable, SubjectInfo};
use crate::report::{Failure, GateReport, Misrouted, PromptReport, RoutingSection, WorstPrompt};
use crate::suite::{Label, Prompt};

use crate::records::StudentJournal;

/// Most prompts that a failure lists.
const WORST: usize = 10;

/// One prompt with everything that was found about it.
pub(super) struct Case<'a> {
    pub(super) prompt: &'a Prompt,
    pub(super) label: Option<Label>,
    pub(super) routing: &'a PromptFigures,
    pub(super) citations: &'a PromptCitations,
    pub(super) refusal: &'a PromptRefusal,
    pub(super) teacher_refused: bool,
    pub(super) answer: &'a Answer,
    pub(super) teacher_answer: &'a Answer,
}

impl Case<'_> {
    fn label_name(&self) -> String {
        self.label.map_or("unlabelled", Label::name).to_owned()
    }

    /// Invalid citations that count.
    fn invalid(&self) -> u64 {
        match self.label {
            Some(Label::Resolved | Label::Indeterminate) => {
                self.citations.citations.len() as u64 - self.citations.n_valid
            }
            _ => 0,
        }
    }

    /// Relevant chunks that count and are not cited.
    fn uncited(&self) -> u64 {
        let missing = self.citations.n_relevant - self.citations.n_relevant_cited;
        if self.label == Some(Label::Resolved) { missing } else { 0 }
    }

    /// Whether the prompt counts against a gate. F1 of refusing has no prompts of its own: they are those of the two gates
    /// behind it.
    fn fails(&self, gate: BehavioralGate, thresholds: &GateThresholds) -> bool {
        let wrong = self.refusal.correct == Some(false);
        match gate {
            BehavioralGate::RoutingAgreement => self.routing.figures.agreement.value < thresholds.of(gate),
            BehavioralGate::CitationPrecision => self.invalid() > 0,
            BehavioralGate::CitationRecall => self.uncited() > 0,
            BehavioralGate::RefusalF1 => false,
            BehavioralGate::MustRefuse => wrong && self.refusal.should_refuse == Some(true),
            BehavioralGate::MustAnswer => wrong && self.refusal.should_refuse == Some(false),
        }
    }

    pub(super) fn report(&self, thresholds: &GateThresholds) -> PromptReport {
        let agreement = &self.routing.figures.agreement;
        let citations = &self.citations;
        PromptReport {
            prompt_id: self.prompt.id.clone(),
            label: self.label_name(),
            failed: BehavioralGate::ALL.into_iter().filter(|&gate| self.fails(gate, thresholds)).collect(),
            routing: [agreement.n, agreement.count],
            citations: [citations.citations.len() as u64, citations.n_valid],
            relevant: [citations.n_relevant, citations.n_relevant_cited],
            refused: self.refusal.did_refuse,
            teacher_refused: self.teacher_refused,
            stop_reason: self.answer.stop_reason.name().to_owned(),
            response: self.answer.text.clone(),
        }
    }

    /// How much the prompt costs a gate, larger is worse, and why; `None` when it costs nothing.
    fn cost(&self, gate: BehavioralGate) -> Option<(f64, String)> {
        match gate {
            BehavioralGate::RoutingAgreement => {
                let agreement = &self.routing.figures.agreement;
                let why = format!("{} of {} decisions differ", agreement.n - agreement.count, agreement.n);
                (agreement.count < agreement.n).then_some((1.0 - agreement.value, why))
            }
            BehavioralGate::CitationPrecision => {
                let invalid = self.citations.citations.iter().filter(|citation| !citation.valid);
                let why: Vec<String> = invalid.map(|c| format!("[{}] {}", c.chunk_id, reason(c.verdict))).collect();
                (self.invalid() > 0).then(|| (self.invalid() as f64, why.join(", ")))
            }
            BehavioralGate::CitationRecall => {
                let cited = &self.citations;
                let why = format!("{} of {} relevant chunks cited", cited.n_relevant_cited, cited.n_relevant);
                (self.uncited() > 0).then_some((self.uncited() as f64, why))
            }
            BehavioralGate::RefusalF1 | BehavioralGate::MustRefuse | BehavioralGate::MustAnswer => {
                let due = self.refusal.should_refuse?;
                let counts = match gate {
                    BehavioralGate::MustRefuse => due,
                    BehavioralGate::MustAnswer => !due,
                    _ => true,
                };
                let why = match (due, self.refusal.is_empty) {
                    (_, true) => "the answer has no words",
                    (true, false) => "answered where a refusal is due",
                    (false, false) => "refused where an answer is due",
                };
                (counts && self.refusal.correct == Some(false)).then(|| (1.0, why.to_owned()))
            }
        }
    }
}

fn reason(verdict: CitationVerdict) -> &'static str {
    match verdict {
        CitationVerdict::Valid => "holds",
        CitationVerdict::NoSuchChunk => "is no chunk of the prompt",
        CitationVerdict::NotSupported => "does not say so",
        CitationVerdict::NothingToCite => "cited where the evidence allows no answer",
    }
}

/// What went wrong with each gate that did not pass. `misrouted` lists the misrouted positions of prompt `i`.
pub(super) fn failures(
    failed: &[GateResult],
    cases: &[Case<'_>],
    routing: &RoutingSection,
    strict: bool,
    misrouted: &dyn Fn(usize) -> Result<Vec<Misrouted>>,
) -> Result<Vec<Failure>> {
    let mut failures = Vec::new();
    for result in failed {
        let gate = result.gate;
        let mut worst: Vec<(usize, f64, String)> = cases
            .iter()
            .enumerate()
            .filter_map(|(i, case)| case.cost(gate).map(|(cost, why)| (i, cost, why)))
            .collect();
        let concerned = worst.len();
        // Stable: of equals the first of the suite.
        worst.sort_by(|a, b| b.1.total_cmp(&a.1));
        worst.truncate(WORST);
        let is_routing = gate == BehavioralGate::RoutingAgreement;
        let mut positions = Vec::new();
        if is_routing {
            for (i, _, _) in &worst {
                positions.extend(misrouted(*i)?);
            }
        }
        failures.push(Failure {
            gate,
            what: format!("{} {}", what(result, strict), concerns(gate, concerned, worst.len(), cases.len())),
            worst_layers: if is_routing { worst_layers(routing) } else { Vec::new() },
            worst_prompts: worst.iter().map(|(i, _, why)| worst_prompt(&cases[*i], why)).collect(),
            misrouted: positions,
            remedy: gate.remedy(),
        });
    }
    Ok(failures)
}

/// The figure against its threshold, in a sentence.
fn what(result: &GateResult, strict: bool) -> String {
    let GateResult { gate, threshold, .. } = result;
    match (result.outcome, result.figure) {
        (_, None) => format!("{gate} could not be measured: there was nothing to measure it on."),
        (Outcome::TooFew, Some(figure)) => {
            format!("{gate} is {:.4}, but on {} {} only.", figure.value, figure.n, gate.unit())
        }
        (_, Some(figure)) if strict => format!(
            "{gate} is {:.4}, and the lower end of its interval {:.4} is below {threshold}.",
            figure.value, figure.low95
        ),
        (_, Some(figure)) => format!("{gate} is {:.4}, below {threshold}.", figure.value),
    }
}

fn concerns(gate: BehavioralGate, concerned: usize, listed: usize, all: usize) -> String {
    let trouble = match gate {
        BehavioralGate::RoutingAgreement => "have a decision that differs",
        BehavioralGate::CitationPrecision => "have a citation that does not hold",
        BehavioralGate::CitationRecall => "leave a relevant chunk uncited",
        BehavioralGate::RefusalF1 => "are refused or answered wrongly",
        BehavioralGate::MustRefuse => "are answered where a refusal is due",
        BehavioralGate::MustAnswer => "are not answered where an answer is due",
    };
    let rest = if listed < concerned { format!("; the worst {listed} are listed") } else { String::new() };
    format!("{concerned} of {all} prompts {trouble}{rest}.")
}

fn worst_prompt(case: &Case<'_>, why: &str) -> WorstPrompt {
    WorstPrompt {
        prompt_id: case.prompt.id.clone(),
        label: case.label_name(),
        why: why.to_owned(),
        question: case.prompt.question.clone(),
        response: case.answer.text.clone(),
        teacher_response: case.teacher_answer.text.clone(),
    }
}

/// At most three layers, the lowest agreement first.
fn worst_layers(routing: &RoutingSection) -> Vec<u32> {
    let mut layers: Vec<(f64, u32)> = routing.layers.iter().map(|l| (l.figures.agreement.value, l.layer)).collect();
    layers.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    layers.into_iter().take(3).map(|(_, layer)| layer).collect()
}

/// The positions of one prompt that the student sends to other experts, by layer.
pub(super) fn misrouted(
    prompt_id: &str,
    info: &SubjectInfo,
    teacher: &RoutingTable,
    student: &StudentJournal,
    index: usize,
) -> Result<Vec<Misrouted>> {
    let student = student.read(index)?.routing;
    let mut found = Vec::new();
    for (at, &layer) in info.moe_layers.iter().enumerate() {
        let differs = (0..teacher.n).filter(|&token| teacher.at(at, token).0 != student.at(at, token).0);
        let tokens: Vec<u32> = differs.filter_map(|token| u32::try_from(token).ok()).collect();
        if !tokens.is_empty() {
            found.push(Misrouted { prompt_id: prompt_id.to_owned(), layer, tokens });
        }
    }
    Ok(found)
}

/// The result in sentences, the teacher's misses first.
pub(super) fn summary(report: &GateReport) -> Vec<String> {
    let strict = report.settings.strict;
    let list = |results: &mut dyn Iterator<Item = &GateResult>| -> Vec<String> {
        results
            .map(|r| match r.figure {
                Some(f) if strict => {
                    format!("{} {:.4}, lower end {:.4} (>= {})", r.gate, f.value, f.low95, r.threshold)
                }
                Some(f) => format!("{} {:.4} (>= {})", r.gate, f.value, r.threshold),
                None => format!("{} (nothing to measure on)", r.gate),
            })
            .collect()
    };
    let mut sentences = Vec::new();
    let teacher = list(&mut report.teacher.misses());
    if !teacher.is_empty() {
        sentences.push(format!(
            "The teacher itself misses {} of its {} gates: {}. A student made from it cannot be expected to pass them.",
            teacher.len(),
            report.teacher.gates.len(),
            teacher.join(", ")
        ));
    }
    let student = list(&mut report.student.misses());
    sentences.push(match report.verdict {
        Verdict::Ship => format!("The student passes all {} gates.", report.student.gates.len()),
        Verdict::NoShip => {
            format!(
                "The student misses {} of its {} gates: {}.",
                student.len(),
                report.student.gates.len(),
                student.join(", ")
            )
        }
    });
    let routing = &report.routing;
    if routing.figures.agreement.count < routing.figures.agreement.n {
        let worst = routing.layers.iter().find(|layer| layer.layer == routing.worst_layer);
        let value = worst.map_or(0.0, |layer| layer.figures.agreement.value);
        sentences
            .push(format!("Routing is worst in layer {}, with {value:.4} of its decisions kept.", routing.worst_layer));
    }
    if let Some(stability) = &report.perturbation {
        let moved: Vec<&str> = stability.figures.iter().filter(|f| !f.stable).map(|f| f.figure.as_str()).collect();
        let share = 100.0 * stability.perturbation.fraction;
        sentences.push(if stability.stable {
            format!("With {share:.0} % of the evidence gone every gate passes and no figure moves by more than 0.05.")
        } else {
            format!("With {share:.0} % of the evidence gone the result is not stable: {}.", moved.join(", "))
        });
    }
    let accuracy = report.labels.accuracy.filter(|accuracy| accuracy.value < 0.95);
    if let Some(accuracy) = accuracy {
        sentences.push(format!(
            "Automatic labels agree with the suite's own on {:.1} % of its prompts only.",
            100.0 * accuracy.value
        ));
    }
    sentences
}
