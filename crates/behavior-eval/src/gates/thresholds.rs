//! The threshold of each gate.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::GateError;
use super::table::BehavioralGate;

/// The threshold of every gate; configuration, recorded in every report.
///
/// ```
/// use behavior_eval::gates::{BehavioralGate, GateThresholds};
/// let gate: BehavioralGate = "must_answer".parse()?;
/// let mut thresholds = GateThresholds::default();
/// thresholds.set(gate, 0.99)?;
/// assert_eq!(thresholds.of(gate), 0.99);
/// assert!(thresholds.set(gate, 1.5).is_err());
/// # Ok::<(), behavior_eval::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Map<String, Value>", try_from = "Map<String, Value>")]
pub struct GateThresholds {
    /// By the place of the gate in the table.
    values: [f64; BehavioralGate::ALL.len()],
    /// Fewest prompts a figure may rest on.
    pub min_samples: u64,
}

const MIN_SAMPLES: &str = "min_samples";

impl Default for GateThresholds {
    /// The thresholds of the table, on at least 20 prompts each.
    fn default() -> Self {
        Self { values: BehavioralGate::ALL.map(|gate| gate.row().threshold), min_samples: 20 }
    }
}

impl GateThresholds {
    /// The threshold of a gate.
    pub fn of(&self, gate: BehavioralGate) -> f64 {
        self.values[gate.place()]
    }

    /// Changes the threshold of a gate.
    ///
    /// # Errors
    /// [`GateError::ThresholdOutOfRange`] for a number that is no share.
    pub fn set(&mut self, gate: BehavioralGate, value: f64) -> Result<(), GateError> {
        if !(0.0..=1.0).contains(&value) {
            return Err(GateError::ThresholdOutOfRange { gate: gate.name(), value });
        }
        self.values[gate.place()] = value;
        Ok(())
    }
}

impl From<GateThresholds> for Map<String, Value> {
    fn from(thresholds: GateThresholds) -> Self {
        let gates = BehavioralGate::ALL.map(|gate| (gate.name().to_owned(), thresholds.of(gate).into()));
        gates.into_iter().chain([(MIN_SAMPLES.to_owned(), thresholds.min_samples.into())]).collect()
    }
}

impl TryFrom<Map<String, Value>> for GateThresholds {
    type Error = String;

    fn try_from(mut map: Map<String, Value>) -> Result<Self, String> {
        let mut take = |name: &str| map.remove(name).ok_or_else(|| format!("missing field `{name}`"));
        let mut thresholds = Self::default();
        for gate in BehavioralGate::ALL {
            let value = take(gate.name())?;
            thresholds.values[gate.place()] = value.as_f64().ok_or_else(|| format!("{gate}: {value} is no number"))?;
        }
        let samples = take(MIN_SAMPLES)?;
        thresholds.min_samples = samples.as_u64().ok_or_else(|| format!("{MIN_SAMPLES}: {samples} is no count"))?;
        match map.keys().next() {
            None => Ok(thresholds),
            Some(name) => Err(format!("unknown field `{name}`")),
        }
    }
}
