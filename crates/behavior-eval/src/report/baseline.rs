//! Comparison of a report with an earlier one of the same suite.
//!
//! A figure **regressed** when its gate passed in the baseline and does not pass now (both judged by the thresholds of
//! now), or when it lies below the lower end of the baseline's 95 % interval: a drop that chance over the same prompts
//! does not explain. Everything smaller is shown as a change and fails nothing.
//!
//! **Invariant:** a baseline is hostile until it has been checked: it is read up to a size, every figure in it must be a
//! share inside its own interval, and one of another suite or another way of asking is refused, never compared.

use crate::report::ReportError;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::comparison::{Change, Comparison};
use super::gate_report::{GateReport, SCHEMA, Settings};
use crate::gates::{BehavioralGate, GateResult, Outcome};
use crate::stats::Figure;
use crate::{Error, Result};

/// Largest report that is read, in bytes: that of 100,000 prompts.
pub const MAX_BYTES: u64 = 256 << 20;

/// The parts of an earlier report that a comparison reads.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Baseline {
    schema: u32,
    suite: BaselineSuite,
    settings: Settings,
    teacher: BaselineModel,
    student: BaselineModel,
    prompts: Vec<BaselinePrompt>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct BaselineSuite {
    identity: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct BaselineModel {
    identity: String,
    gates: Vec<GateResult>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct BaselinePrompt {
    prompt_id: String,
    failed: Vec<BehavioralGate>,
}

impl Baseline {
    /// Reads an earlier report from its JSON text.
    ///
    /// # Errors
    /// [`ReportError::Baseline`] for what is no report of this schema or holds figures that cannot be.
    pub fn parse(json: &str) -> Result<Self> {
        let bad = |reason: String| Error::Report(ReportError::Baseline { reason });
        if json.len() as u64 > MAX_BYTES {
            return Err(bad(format!("it is larger than {MAX_BYTES} bytes")));
        }
        // The version first: another schema has other fields.
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let version: Version = serde_json::from_str(json).map_err(|e| bad(e.to_string()))?;
        if version.schema != SCHEMA {
            return Err(bad(format!("its schema is {}, and this version reads {SCHEMA}", version.schema)));
        }
        let baseline: Self = serde_json::from_str(json).map_err(|e| bad(e.to_string()))?;
        for model in [&baseline.teacher, &baseline.student] {
            for result in &model.gates {
                let figure = result.figure.filter(|f| !sound(f));
                if let Some(f) = figure {
                    return Err(bad(format!("{} is {} in [{}, {}]", result.gate, f.value, f.low95, f.high95)));
                }
            }
        }
        for gate in BehavioralGate::ALL {
            if baseline.student.gates.iter().filter(|result| result.gate == gate).count() != 1 {
                return Err(bad(format!("it does not judge {gate} once")));
            }
        }
        Ok(baseline)
    }

    /// Ids of the prompts that something was wrong with.
    pub fn failing_prompts(&self) -> Vec<&str> {
        self.prompts.iter().filter(|p| !p.failed.is_empty()).map(|p| p.prompt_id.as_str()).collect()
    }

    /// Identity of the suite it was made on.
    pub fn suite(&self) -> &str {
        &self.suite.identity
    }

    /// Sets a report beside this one.
    ///
    /// # Errors
    /// As [`Baseline::check`].
    pub fn compare(&self, report: &GateReport) -> Result<Comparison> {
        self.check(&report.suite.identity, &report.teacher.identity, &report.settings)?;
        let settings = &report.settings;
        let mut comparison = Comparison { student: self.student.identity.clone(), ..Comparison::default() };
        for result in &report.student.gates {
            let then = self.student.gates.iter().find(|r| r.gate == result.gate).and_then(|r| r.figure);
            let before = GateResult::judge(result.gate, then, &settings.thresholds, settings.strict);
            let sentences = regression(&before, result);
            comparison.figures.push(Change {
                gate: result.gate,
                baseline: then,
                now: result.figure,
                change: then.zip(result.figure).map(|(then, now)| now.value - then.value),
                regressed: sentences.is_some(),
            });
            comparison.regressions.extend(sentences);
        }
        if self.settings.thresholds != settings.thresholds || self.settings.strict != settings.strict {
            comparison
                .notes
                .push("The baseline was judged by other thresholds; both are judged by today's here.".to_owned());
        }
        self.prompt_changes(report, &mut comparison);
        Ok(comparison)
    }

    /// Whether a run of this suite and teacher with these settings can be set beside this report; it need not have run.
    ///
    /// # Errors
    /// [`ReportError::Baseline`] when it cannot: another suite, another teacher, or another way of asking and counting.
    pub fn check(&self, suite: &str, teacher: &str, now: &Settings) -> Result<()> {
        let then = &self.settings;
        let list = |settings: &Settings| settings.refusal_signals.join(", ");
        let pairs = [
            ("suite", self.suite.identity.clone(), suite.to_owned()),
            ("teacher", self.teacher.identity.clone(), teacher.to_owned()),
            ("limit of tokens", then.max_new_tokens.to_string(), now.max_new_tokens.to_string()),
            ("way of computing", then.compute.clone(), now.compute.clone()),
            ("list of refusal signals", list(then), list(now)),
            ("rule of labels", then.label_thresholds.to_string(), now.label_thresholds.to_string()),
        ];
        match pairs.into_iter().find(|(_, then, now)| then != now) {
            None => Ok(()),
            Some((what, then, now)) => {
                let reason = format!("its {what} is {then}, and this run's is {now}: they cannot be compared");
                Err(ReportError::Baseline { reason }.into())
            }
        }
    }

    fn prompt_changes(&self, report: &GateReport, comparison: &mut Comparison) {
        let then: BTreeMap<&str, bool> =
            self.prompts.iter().map(|p| (p.prompt_id.as_str(), p.failed.is_empty())).collect();
        for prompt in &report.prompts {
            match (then.get(prompt.prompt_id.as_str()), prompt.failed.is_empty()) {
                (Some(true), false) => comparison.newly_failing.push(prompt.prompt_id.clone()),
                (Some(false), true) => comparison.newly_passing.push(prompt.prompt_id.clone()),
                _ => {}
            }
        }
        let (worse, better) = (comparison.newly_failing.len(), comparison.newly_passing.len());
        comparison.notes.push(format!("{worse} prompts went wrong that were right, {better} the other way round."));
    }
}

/// Why a figure regressed, if it did.
fn regression(before: &GateResult, now: &GateResult) -> Option<String> {
    let gate = now.gate;
    let value =
        |result: &GateResult| result.figure.map_or_else(|| "unmeasured".to_owned(), |f| format!("{:.4}", f.value));
    if before.outcome == Outcome::Pass && now.outcome != Outcome::Pass {
        return Some(format!("{gate} passed at {} and does not at {}.", value(before), value(now)));
    }
    let low95 = before.figure?.low95;
    match now.figure {
        Some(figure) if figure.value >= low95 => None,
        _ => Some(format!(
            "{gate} fell from {} to {}, below its interval's lower end {low95:.4}.",
            value(before),
            value(now)
        )),
    }
}

/// Whether a figure can be one.
fn sound(figure: &Figure) -> bool {
    let share = |x: f64| (0.0..=1.0).contains(&x);
    share(figure.value) && share(figure.low95) && share(figure.high95) && figure.low95 <= figure.high95
}
