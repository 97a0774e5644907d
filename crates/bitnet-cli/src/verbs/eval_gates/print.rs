//! The result on the terminal: the verdict, the table of gates, the worst prompts, the files that were written.

use anyhow::Result;
use behavior_eval::gates::Outcome;
use behavior_eval::report::{GateReport, PromptReport, Repaired};
use behavior_eval::stats::Figure;
use comfy_table::Table;
use serde_json::json;

use crate::output;

/// Prints the report for a person, or as JSON.
pub(super) fn report(report: &GateReport, as_json: bool) -> Result<()> {
    if as_json {
        return output::raw(report.json().trim_end());
    }
    let (student, teacher, suite) = (&report.student.name, &report.teacher.name, &report.suite);
    output::line(format_args!(
        "{}: {student} against {teacher} on {} ({} prompts)",
        report.verdict, suite.name, suite.prompts
    ))?;
    for sentence in &report.summary {
        output::line(sentence)?;
    }
    output::line(gates(report))?;
    for failure in &report.failures {
        output::line(&failure.what)?;
        for prompt in failure.worst_prompts.iter().take(3) {
            output::line(format_args!(
                "    {} ({}): {}",
                output::name(&prompt.prompt_id),
                prompt.label,
                output::name(&prompt.why)
            ))?;
            output::line(format_args!("        {}", one_line(&prompt.response)))?;
        }
        output::line(format_args!("    remedy: {} (--repair FILE runs it)", failure.remedy))?;
    }
    if let Some(repaired) = &report.repaired {
        output::line(format_args!("before the repair, {}:", output::name(&repaired.name)))?;
        output::line(before_and_behind(repaired))?;
    }
    if let Some(baseline) = &report.baseline {
        let figures = baseline.figures.iter().filter_map(|f| Some(format!("{} {:+.4}", f.gate, f.change?)));
        output::line(format_args!("against the baseline: {}", figures.collect::<Vec<_>>().join(", ")))?;
        for sentence in baseline.regressions.iter().chain(&baseline.notes) {
            output::line(format_args!("    {sentence}"))?;
        }
    }
    let run = &report.run;
    // The report of parts has no time of its own.
    if run.threads > 0 {
        output::line(format_args!(
            "{:.1} s, {:.3} s per prompt of the student on {} threads",
            run.seconds, run.seconds_per_prompt, run.threads
        ))?;
    }
    for role in ["report.html", "report.md", "report.json", "report.junit.xml", "trace"] {
        if let Some(path) = run.files.get(role) {
            output::line(format_args!("wrote {path}"))?;
        }
    }
    Ok(())
}

fn before_and_behind(repaired: &Repaired) -> Table {
    let mut table = output::table(["gate", "before", "", "behind", ""], 5);
    let word = |passed: bool| if passed { "pass" } else { "FAIL" }.to_owned();
    let value =
        |figure: &Option<Figure>| figure.as_ref().map_or_else(|| "none".to_owned(), |f| format!("{:.4}", f.value));
    for gate in &repaired.gates {
        let [before, after] = [value(&gate.before), value(&gate.after)];
        let name = gate.gate.name().to_owned();
        table.add_row([name, before, word(gate.passed_before), after, word(gate.passes_after)]);
    }
    table
}

fn gates(report: &GateReport) -> Table {
    let demanded = if report.settings.strict { "lower end >=" } else { "demanded" };
    let headings = ["gate", "", "student", "95 % interval", "n", demanded, "teacher", "kept"];
    let mut table = output::table(headings, headings.len());
    for result in &report.student.gates {
        let of = |f: fn(&Figure) -> String| result.figure.as_ref().map_or_else(|| "none".to_owned(), f);
        let teacher = report.teacher.gates.iter().find(|r| r.gate == result.gate);
        let teacher = match teacher {
            None => "reference".to_owned(),
            Some(r) => {
                let mark = if r.passed() { "" } else { " misses" };
                r.figure.map_or_else(|| "none".to_owned(), |f| format!("{:.4}{mark}", f.value))
            }
        };
        let kept = report.retention.iter().find(|r| r.gate == result.gate).and_then(|r| r.kept);
        let outcome = match result.outcome {
            Outcome::Pass => "pass",
            Outcome::Fail => "FAIL",
            Outcome::TooFew => "too few",
        };
        table.add_row([
            result.gate.name().to_owned(),
            outcome.to_owned(),
            of(|f| format!("{:.4}", f.value)),
            of(|f| format!("{:.4} to {:.4}", f.low95, f.high95)),
            of(|f| f.n.to_string()),
            result.demanded(),
            teacher,
            kept.map_or_else(String::new, |kept| format!("{:.1} %", 100.0 * kept)),
        ]);
    }
    table
}

/// Prints the result of the prompts that were run again.
pub(super) fn checks(checks: &[PromptReport], whole: usize, as_json: bool) -> Result<()> {
    let right = checks.iter().filter(|check| check.failed.is_empty()).count();
    if as_json {
        return output::json(
            &json!({ "verdict": "NO-SHIP", "run": checks.len(), "of": whole, "right": right, "prompts": checks }),
        );
    }
    output::line(format_args!(
        "NO-SHIP: {} of {whole} prompts were run, the failing ones of the last report; run all of them for a verdict",
        checks.len()
    ))?;
    output::line(format_args!("{right} of them are right now; {} are not:", checks.len() - right))?;
    for check in checks.iter().filter(|check| !check.failed.is_empty()) {
        let gates: Vec<&str> = check.failed.iter().map(|gate| gate.name()).collect();
        output::line(format_args!("    {} ({}): {}", output::name(&check.prompt_id), check.label, gates.join(", ")))?;
        output::line(format_args!("        {}", one_line(&check.response)))?;
    }
    Ok(())
}

/// An answer on one line, without control characters.
fn one_line(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    if line.trim().is_empty() { "(no answer)".to_owned() } else { line }
}
