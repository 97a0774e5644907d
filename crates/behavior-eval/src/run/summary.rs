//! The result of a run in sentences.

use crate::gates::{GateResult, Verdict};
use crate::report::GateReport;

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
