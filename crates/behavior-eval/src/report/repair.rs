//! The work that failed gates leave to a refiner of the student. The gates themselves repair nothing.
//!
//! ```text
//! routing_agreement                         every (prompt, layer, tokens) that went to other experts: router repair
//! citation_*, refusal_f1, must_*            the prompts that count against the gate: policy optimisation
//! ```
//! The teacher's artifact has the rest by prompt id: tokens, routes, and router scores where they were recorded.
//!
//! **Invariant:** everything that is wrong is in it, not the worst of it: reports shorten, this does not.

use super::failures::Misrouted;
use super::gate_report::GateReport;
use crate::Result;
use crate::gates::{BehavioralGate, Reads};
use crate::records::trace::TraceRecord;

/// The work that one failed gate leaves. [`BehavioralGate::remedy`] says what is done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Repair {
    pub gate: BehavioralGate,
    /// The prompts concerned, in the order of the suite.
    pub prompts: Vec<String>,
    /// Their misrouted tokens, prompt by prompt and layer by layer; routing only.
    pub misrouted: Vec<Misrouted>,
}

/// The repairs that a report calls for, one per failed gate, from the report and its trace. Memory: four bytes per
/// misrouted token and layer.
///
/// # Errors
/// Errors of reading a record.
pub fn repairs(report: &GateReport, trace: impl IntoIterator<Item = Result<TraceRecord>>) -> Result<Vec<Repair>> {
    let mut repairs = Vec::new();
    let mut trace = Some(trace);
    for failure in &report.failures {
        let gate = failure.gate;
        let mut repair = Repair { gate, prompts: Vec::new(), misrouted: Vec::new() };
        match trace.take_if(|_| gate.row().reads == Reads::Routing) {
            Some(records) => {
                repair.misrouted = misrouted(records)?;
                repair.prompts = repair.misrouted.iter().map(|m| m.prompt_id.clone()).collect();
                repair.prompts.dedup();
            }
            None => {
                let concerned = report.prompts.iter().filter(|prompt| gate.is_repaired_by(&prompt.failed));
                repair.prompts = concerned.map(|prompt| prompt.prompt_id.clone()).collect();
            }
        }
        repairs.push(repair);
    }
    Ok(repairs)
}

/// Every position of a trace that went to other experts than the teacher's.
fn misrouted(trace: impl IntoIterator<Item = Result<TraceRecord>>) -> Result<Vec<Misrouted>> {
    let mut found: Vec<Misrouted> = Vec::new();
    // Of the prompt that is read; a trace ascends by token, this by layer.
    let mut first = 0;
    for record in trace {
        let record = record?;
        if !record.routing.agreement {
            let token = u32::try_from(record.token_idx).unwrap_or(u32::MAX);
            match found[first..].iter_mut().find(|m| m.layer == record.layer_idx) {
                Some(misrouted) => misrouted.tokens.push(token),
                None => found.push(Misrouted {
                    prompt_id: record.prompt_id.clone(),
                    layer: record.layer_idx,
                    tokens: vec![token],
                }),
            }
        }
        if record.is_final() {
            found[first..].sort_by_key(|m| m.layer);
            first = found.len();
        }
    }
    Ok(found)
}
