//! The standard output of a stage as lines of the report.

use serde_json::Value;

use crate::repo;
use crate::report::{list, number, text};

pub(super) fn answered(said: &str) -> Result<Vec<String>, String> {
    Ok(said.trim().lines().map(str::to_owned).collect())
}

pub(super) fn quantized(said: &str) -> Result<Vec<String>, String> {
    let json = parsed(said)?;
    let mut lines = vec![
        row("weights", &count(&json, "report.params")?),
        row("size", &size(&json, "report.output_bytes")?),
        row("memory stated before the start", &size(&json, "memory_bound_bytes")?),
        row("memory used at most", &size(&json, "peak_rss_bytes").unwrap_or_else(|_| "unknown here".to_owned())),
        format!(
            "{:<16} {:<8} {:>7} {:>12} {:>14} {:>8}",
            "class", "type", "tensors", "size", "relative error", "cosine"
        ),
    ];
    for entry in list(&json, "report.types") {
        lines.push(format!(
            "{:<16} {:<8} {:>7} {:>12} {:>14} {:>8}",
            text(entry, "class")?,
            text(entry, "type")?,
            count(entry, "tensors")?,
            size(entry, "bytes")?,
            significant(number(entry, "relative_mse")?),
            significant(number(entry, "cosine")?),
        ));
    }
    Ok(lines)
}

pub(super) fn verified(said: &str) -> Result<Vec<String>, String> {
    let json = parsed(said)?;
    let types: Result<Vec<String>, String> =
        list(&json, "types").iter().map(|t| Ok(format!("{} x {}", count(t, "tensors")?, text(t, "type")?))).collect();
    Ok(vec![
        row("identity (BLAKE3)", text(&json, "identity")?),
        row("tensors", &types?.join(", ")),
        row("data read", &size(&json, "bytes")?),
        row("defects", &list(&json, "defects").len().to_string()),
    ])
}

pub(super) fn fidelity(said: &str) -> Result<Vec<String>, String> {
    let json = parsed(said)?;
    let figure = |path: &str| number(&json, path).map(significant);
    let with_error = |path: &str| -> Result<String, String> {
        Ok(format!("{} +- {}", figure(&format!("{path}.value"))?, figure(&format!("{path}.standard_error"))?))
    };
    Ok(vec![
        row("predictions scored", &count(&json, "predictions")?),
        row("perplexity of the teacher", &with_error("teacher.perplexity")?),
        row("perplexity of the student", &with_error("student.perplexity")?),
        row("ln of their ratio", &with_error("ln_ratio")?),
        row("KL divergence, mean", &with_error("kl.mean")?),
        row("KL divergence, median", &figure("kl.median")?),
        row("same most likely token", &format!("{:.1} %", 100.0 * number(&json, "same_top1.value")?)),
    ])
}

/// The numbers that a refinement trained, and its effect on windows that it held out.
pub(super) fn refined(said: &str) -> Result<Vec<String>, String> {
    let json = parsed(said)?;
    let figure = |i: usize| json["report"]["held_out_kl"][i].as_f64().map_or_else(|| "none".to_owned(), significant);
    let trained: Vec<String> = list(&json, "report.trained")
        .iter()
        .map(|entry| format!("{} {}", entry[0].as_str().unwrap_or_default(), entry[1]))
        .collect();
    Ok(vec![
        row("steps", &count(&json, "report.steps")?),
        row("tokens", &count(&json, "report.tokens")?),
        row("numbers trained", &trained.join(", ")),
        row("KL on held-out texts", &format!("{} before, {} after", figure(0), figure(1))),
        row("memory used at most", &size(&json, "peak_rss_bytes").unwrap_or_else(|_| "unknown here".to_owned())),
    ])
}

/// The verdict with its sentences on the first line, then a line per gate.
pub(super) fn gated(said: &str) -> Result<Vec<String>, String> {
    let json = parsed(said)?;
    let sentences: Vec<&str> = list(&json, "summary").iter().filter_map(Value::as_str).collect();
    let mut lines = vec![format!("{}: {}", text(&json, "verdict")?, sentences.join(" "))];
    for result in list(&json, "student.gates") {
        let name = text(result, "gate")?;
        let of_teacher = list(&json, "teacher.gates").iter().find(|r| r["gate"] == result["gate"]);
        let figure = |r: &Value| number(r, "figure.value").map_or_else(|_| "none".to_owned(), |x| format!("{x:.4}"));
        lines.push(format!(
            "{name:<20} {:<8} student {}   demanded {}   teacher {}",
            text(result, "outcome")?,
            figure(result),
            number(result, "threshold")?,
            of_teacher.map_or_else(|| "is the reference".to_owned(), figure),
        ));
    }
    lines.push(row("seconds per prompt", &significant(number(&json, "run.seconds_per_prompt")?)));
    Ok(lines)
}

/// The figures of one student for the table.
pub(super) struct Figures {
    /// Names and values, in the order of the rows.
    rows: Vec<(String, f64)>,
    verdict: String,
}

impl Figures {
    /// From the standard output of `eval fidelity` and of `eval-gates`.
    pub(super) fn new(fidelity: &str, gates: &str) -> Result<Self, String> {
        let (fidelity, gates) = (parsed(fidelity)?, parsed(gates)?);
        let mut rows = vec![
            ("KL divergence, mean".to_owned(), number(&fidelity, "kl.mean.value")?),
            ("same most likely token".to_owned(), number(&fidelity, "same_top1.value")?),
        ];
        for result in list(&gates, "student.gates") {
            rows.push((text(result, "gate")?.to_owned(), number(result, "figure.value").unwrap_or(f64::NAN)));
        }
        Ok(Self { rows, verdict: text(&gates, "verdict")?.to_owned() })
    }

    /// The lines of the table: `before` refinement and behind it.
    pub(super) fn table(before: &Figures, after: &Figures) -> Vec<String> {
        let mut lines = vec![format!("{:<32} {:>12} {:>12}", "", "calibrated", "refined")];
        for ((name, before), (_, after)) in before.rows.iter().zip(&after.rows) {
            lines.push(format!("{name:<32} {before:>12.4} {after:>12.4}"));
        }
        lines.push(format!("{:<32} {:>12} {:>12}", "verdict", before.verdict, after.verdict));
        lines
    }
}

fn row(name: &str, value: &str) -> String {
    format!("{name:<32} {value}")
}

fn parsed(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

fn count(json: &Value, path: &str) -> Result<String, String> {
    number(json, path).map(|n| n.to_string())
}

fn size(json: &Value, path: &str) -> Result<String, String> {
    number(json, path).map(|n| repo::bytes(n as u64))
}

/// A number with five significant digits.
fn significant(n: f64) -> String {
    if n == 0.0 {
        return "0".to_owned();
    }
    let digits = (4.0 - n.abs().log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{n:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::{Figures, fidelity, gated, quantized, refined, significant, verified};

    #[test]
    fn a_report_without_its_figures_is_an_error() {
        assert!(fidelity(r#"{"predictions": 1}"#).is_err());
        assert!(quantized("no JSON").is_err());
        assert!(gated(r#"{"summary": []}"#).is_err());
    }

    #[test]
    fn gates_open_with_the_verdict() {
        let gates = r#"{"verdict": "NO-SHIP", "summary": ["A.", "B."], "run": {"seconds_per_prompt": 0.1},
            "student": {"gates": [{"gate": "must_answer", "outcome": "fail", "threshold": 0.95, "figure": {"value": 0.5}},
                                  {"gate": "routing_agreement", "outcome": "pass", "threshold": 0.85, "figure": null}]},
            "teacher": {"gates": [{"gate": "must_answer", "outcome": "pass", "threshold": 0.95, "figure": {"value": 1}}]}}"#;
        let lines = gated(gates).expect("complete");
        assert_eq!(lines[0], "NO-SHIP: A. B.");
        assert!(lines[1].contains("student 0.5000   demanded 0.95   teacher 1.0000"), "{lines:?}");
        assert!(lines[2].contains("student none") && lines[2].ends_with("is the reference"), "{lines:?}");
    }

    #[test]
    fn a_verification_reads_as_four_lines() {
        let text = r#"{"identity": "ab", "types": [{"type": "F32", "tensors": 2}], "bytes": 8, "defects": []}"#;
        let lines = verified(text).expect("complete");
        assert_eq!(lines.len(), 4);
        assert!(lines[1].ends_with("2 x F32"), "{lines:?}");
    }

    #[test]
    fn numbers_keep_five_digits() {
        assert_eq!(significant(10.659_234), "10.659");
        assert_eq!(significant(0.0), "0");
        assert_eq!(significant(0.000_123_456), "0.00012346");
    }

    #[test]
    fn the_table_has_a_row_per_figure_of_both_students_and_their_verdicts() {
        let fidelity = |kl: f64| format!(r#"{{"kl": {{"mean": {{"value": {kl}}}}}, "same_top1": {{"value": 0.9}}}}"#);
        let gates = |verdict: &str, value: f64| {
            format!(
                r#"{{"verdict": "{verdict}", "student": {{"gates": [{{"gate": "must_answer", "figure": {{"value": {value}}}}}]}}}}"#
            )
        };
        let before = Figures::new(&fidelity(0.03), &gates("NO-SHIP", 0.5)).expect("complete");
        let after = Figures::new(&fidelity(0.02), &gates("SHIP", 0.97)).expect("complete");
        let lines = Figures::table(&before, &after);
        let words: Vec<Vec<&str>> = lines.iter().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[1], ["KL", "divergence,", "mean", "0.0300", "0.0200"]);
        assert_eq!(words[3], ["must_answer", "0.5000", "0.9700"]);
        assert_eq!(words[4], ["verdict", "NO-SHIP", "SHIP"]);
        assert!(Figures::new("{}", &gates("SHIP", 1.0)).is_err());
    }

    #[test]
    fn a_refinement_reads_as_five_lines() {
        let text =
            r#"{"report": {"steps": 4, "tokens": 900, "trained": [["norms", 7]], "held_out_kl": [0.03, 0.025]}}"#;
        let lines = refined(text).expect("complete");
        assert!(
            lines.len() == 5 && lines[2].ends_with("norms 7") && lines[3].ends_with("0.030000 before, 0.025000 after"),
            "{lines:?}"
        );
        assert!(refined("{}").is_err());
    }
}
