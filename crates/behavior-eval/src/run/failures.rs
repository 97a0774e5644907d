//! Where a student went wrong, gate by gate.

use crate::Result;
use crate::gates::{GateResult, Outcome, PromptRecord, Reads, RoutingReport};
use crate::model::RoutingTable;
use crate::report::{Failure, Misrouted, ModelReport, WorstPrompt};

/// Most prompts that a failure lists.
const WORST: usize = 10;

/// Reads the routing of teacher and student on a prompt.
type ReadRouting<'a> = &'a dyn Fn(usize) -> Result<(RoutingTable, RoutingTable)>;

/// The failure of each gate that the student does not pass. `prompts` has a record of student and teacher each.
pub(super) fn failures(
    student: &ModelReport,
    prompts: &[(&PromptRecord<'_>, &PromptRecord<'_>)],
    routing: &RoutingReport,
    strict: bool,
    read: ReadRouting<'_>,
) -> Result<Vec<Failure>> {
    let mut failures = Vec::new();
    for result in student.misses() {
        let gate = result.gate;
        let costs = prompts.iter().enumerate().filter_map(|(i, (record, _))| Some((i, (gate.row().cost)(record)?)));
        let mut worst: Vec<(usize, (f64, String))> = costs.collect();
        let concerned = worst.len();
        // Stable: of equals the first of the suite.
        worst.sort_by(|(_, (a, _)), (_, (b, _))| b.total_cmp(a));
        worst.truncate(WORST);
        let rest = if WORST < concerned { format!("; the worst {WORST} are listed") } else { String::new() };
        let of_all = format!("{concerned} of {} prompts {}{rest}.", prompts.len(), gate.row().trouble);
        let mut failure = Failure {
            gate,
            what: format!("{} {of_all}", what(result, strict)),
            worst_layers: Vec::new(),
            worst_prompts: Vec::new(),
            misrouted: Vec::new(),
            remedy: gate.remedy(),
        };
        if gate.row().reads == Reads::Routing {
            failure.worst_layers = worst_layers(routing);
            for (i, _) in &worst {
                failure.misrouted.extend(misrouted(&prompts[*i].0.prompt.id, routing, &read(*i)?));
            }
        }
        failure.worst_prompts = worst.into_iter().map(|(i, (_, why))| worst_prompt(prompts[i], why)).collect();
        failures.push(failure);
    }
    Ok(failures)
}

/// The figure against its threshold, in a sentence.
fn what(result: &GateResult, strict: bool) -> String {
    let GateResult { gate, threshold, .. } = result;
    match (result.outcome, result.figure) {
        (_, None) => format!("{gate} could not be measured: there was nothing to measure it on."),
        (Outcome::TooFew, Some(figure)) => {
            format!("{gate} is {:.4}, but on {} {} only.", figure.value, figure.n, gate.row().unit)
        }
        (_, Some(figure)) if strict => format!(
            "{gate} is {:.4}, and the lower end of its interval {:.4} is below {threshold}.",
            figure.value, figure.low95
        ),
        (_, Some(figure)) => format!("{gate} is {:.4}, below {threshold}.", figure.value),
    }
}

fn worst_prompt((student, teacher): (&PromptRecord<'_>, &PromptRecord<'_>), why: String) -> WorstPrompt {
    WorstPrompt {
        prompt_id: student.prompt.id.clone(),
        label: student.label_name().to_owned(),
        why,
        question: student.prompt.question.clone(),
        response: student.answer.text.clone(),
        teacher_response: teacher.answer.text.clone(),
    }
}

/// At most three layers, the lowest agreement first.
fn worst_layers(routing: &RoutingReport) -> Vec<u32> {
    let mut layers: Vec<(f64, u32)> = routing.layers.iter().map(|l| (l.figures.agreement.value, l.layer)).collect();
    layers.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    layers.into_iter().take(3).map(|(_, layer)| layer).collect()
}

/// The positions of one prompt that the student sends to other experts, by layer.
fn misrouted(
    prompt_id: &str,
    routing: &RoutingReport,
    (teacher, student): &(RoutingTable, RoutingTable),
) -> Vec<Misrouted> {
    let layers = routing.layers.iter().enumerate().map(|(at, layer)| {
        let differs = (0..teacher.n).filter(|&token| teacher.at(at, token).0 != student.at(at, token).0);
        let tokens = differs.filter_map(|token| u32::try_from(token).ok()).collect();
        Misrouted { prompt_id: prompt_id.to_owned(), layer: layer.layer, tokens }
    });
    layers.filter(|misrouted| !misrouted.tokens.is_empty()).collect()
}
