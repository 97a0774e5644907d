//! The report as JUnit XML, for build servers: one test case per gate, one for the comparison with a baseline.
//!
//! The teacher's figures are properties: a teacher that misses a gate is no failure of the student.

use super::escape::escape;
use super::gate_report::GateReport;
use super::sections::{demand, figure_text};
use crate::gates::Outcome;

/// The report as JUnit XML.
pub fn junit(report: &GateReport) -> String {
    let mut cases = Vec::new();
    for result in &report.student.gates {
        let text = format!("{} ({})", figure_text(result.figure.as_ref()), demand(result, report.settings.strict));
        let trouble = match result.outcome {
            Outcome::Pass => None,
            Outcome::Fail | Outcome::TooFew => {
                let failure = report.failures.iter().find(|failure| failure.gate == result.gate);
                Some((text.clone(), failure.map(|f| f.lines().join("\n")).unwrap_or_default()))
            }
        };
        cases.push((result.gate.name().to_owned(), text, trouble));
    }
    if let Some(baseline) = &report.baseline {
        let text = format!("{} regressions", baseline.regressions.len());
        let trouble = (!baseline.regressions.is_empty()).then(|| (text.clone(), baseline.regressions.join("\n")));
        cases.push(("baseline".to_owned(), text, trouble));
    }
    let failed = cases.iter().filter(|case| case.2.is_some()).count();
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"gates\" tests=\"{0}\" failures=\"{failed}\">\n\
         <testsuite name=\"{1}\" tests=\"{0}\" failures=\"{failed}\" errors=\"0\" skipped=\"0\">\n<properties>\n",
        cases.len(),
        escape(&format!("{} on {}", report.student.name, report.suite.name)),
    );
    let mut property = |name: &str, value: &str| {
        out += &format!("<property name=\"{}\" value=\"{}\"/>\n", escape(name), attribute(value));
    };
    property("verdict", &report.verdict.to_string());
    property("student", &report.student.identity);
    property("teacher", &report.teacher.identity);
    property("suite", &report.suite.identity);
    for result in &report.teacher.gates {
        property(&format!("teacher.{}", result.gate), &figure_text(result.figure.as_ref()));
    }
    out += "</properties>\n";
    for (name, text, trouble) in &cases {
        out += &format!("<testcase classname=\"gates\" name=\"{}\">\n", attribute(name));
        match trouble {
            None => out += &format!("<system-out>{}</system-out>\n", escape(text)),
            Some((message, details)) => {
                out += &format!("<failure message=\"{}\">{}</failure>\n", attribute(message), escape(details));
            }
        }
        out += "</testcase>\n";
    }
    out + "</testsuite>\n</testsuites>\n"
}

/// An attribute's value: escaped, on one line.
fn attribute(text: &str) -> String {
    escape(&text.replace(['\n', '\t', '\r'], " "))
}
