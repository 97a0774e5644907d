//! The result of a gate run inside the model it is about.
//!
//! ```text
//! craftsman.gates.schema      u32     1
//! craftsman.gates.verdict     string  SHIP | NO-SHIP
//! craftsman.gates.strict      bool    whether lower ends of intervals had to pass
//! craftsman.gates.student     string  identity of the model that was measured
//! craftsman.gates.teacher     string  identity of its teacher
//! craftsman.gates.suite       string  name of the suite
//! craftsman.gates.suite_hash  string  BLAKE3 of the suite
//! craftsman.gates.prompts     u64
//! craftsman.gates.names       [string]   one entry per gate in each of these lists
//! craftsman.gates.outcomes    [string]   pass | fail | too_few
//! craftsman.gates.values      [f64]      NaN where nothing was measured
//! craftsman.gates.low95, .high95, .thresholds  [f64]
//! craftsman.gates.samples     [u64]      prompts each figure rests on
//! ```
//! **Invariant:** these keys do not count in the identity of a model, so a stamp changes what is said about it, never what
//! it is. A stamp whose `student` is not the identity of its file speaks of another model.

use std::path::Path;

use gguf_bitnet::{Array, Metadata, Value};

use super::gate_report::{GateReport, SCHEMA};
use crate::gates::{BehavioralGate, GateResult, Outcome, Verdict};
use crate::stats::{Figure, IntervalKind};
use crate::{Error, Result};

const PREFIX: &str = "craftsman.gates.";

/// What a model says about its own gates.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Stamp {
    /// Whether it ships.
    pub verdict: Verdict,
    /// Whether lower ends of intervals had to pass.
    pub strict: bool,
    /// Identity of the model that was measured.
    pub student: String,
    /// Identity of its teacher.
    pub teacher: String,
    /// Name of the suite.
    pub suite: String,
    /// BLAKE3 of the suite.
    pub suite_hash: String,
    /// Prompts that were run.
    pub prompts: u64,
    /// The gates, in the order of the ship rule.
    pub gates: Vec<GateResult>,
}

impl Stamp {
    /// The stamp of a report.
    #[must_use]
    pub fn of(report: &GateReport) -> Self {
        Self {
            verdict: report.verdict,
            strict: report.settings.strict,
            student: report.student.identity.clone(),
            teacher: report.teacher.identity.clone(),
            suite: report.suite.name.clone(),
            suite_hash: report.suite.identity.clone(),
            prompts: report.suite.prompts,
            gates: report.student.gates.clone(),
        }
    }

    /// Replaces the stamp in metadata.
    pub fn write(&self, metadata: &mut Metadata) {
        metadata.retain(|key, _| !key.starts_with(PREFIX));
        let mut put = |name: &str, value: Value| {
            metadata.insert(format!("{PREFIX}{name}"), value);
        };
        put("schema", SCHEMA.into());
        put("verdict", self.verdict.to_string().into());
        put("strict", self.strict.into());
        put("student", self.student.as_str().into());
        put("teacher", self.teacher.as_str().into());
        put("suite", self.suite.as_str().into());
        put("suite_hash", self.suite_hash.as_str().into());
        put("prompts", self.prompts.into());
        let figure = |of: fn(&Figure) -> f64| -> Vec<f64> {
            self.gates.iter().map(|gate| gate.figure.as_ref().map_or(f64::NAN, of)).collect()
        };
        put("names", self.gates.iter().map(|gate| gate.gate.name().to_owned()).collect::<Vec<_>>().into());
        put("outcomes", self.gates.iter().map(|gate| word(gate.outcome).to_owned()).collect::<Vec<_>>().into());
        put("values", figure(|f| f.value).into());
        put("low95", figure(|f| f.low95).into());
        put("high95", figure(|f| f.high95).into());
        put("thresholds", self.gates.iter().map(|gate| gate.threshold).collect::<Vec<_>>().into());
        put("samples", self.gates.iter().map(|gate| gate.figure.map_or(0, |f| f.n)).collect::<Vec<_>>().into());
    }

    /// The stamp in metadata; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::BadStamp`] when the keys are there but not as this version writes them.
    pub fn read(metadata: &Metadata) -> Result<Option<Self>> {
        if !metadata.iter().any(|(key, _)| key.starts_with(PREFIX)) {
            return Ok(None);
        }
        let keys = Keys(metadata);
        let schema = metadata.u32(&format!("{PREFIX}schema"));
        if !matches!(schema, Ok(Some(SCHEMA))) {
            return Err(bad("schema"));
        }
        let verdict = match keys.text("verdict")? {
            "SHIP" => Verdict::Ship,
            "NO-SHIP" => Verdict::NoShip,
            _ => return Err(bad("verdict")),
        };
        Ok(Some(Self {
            verdict,
            strict: metadata.bool(&format!("{PREFIX}strict")).ok().flatten().ok_or_else(|| bad("strict"))?,
            student: keys.text("student")?.to_owned(),
            teacher: keys.text("teacher")?.to_owned(),
            suite: keys.text("suite")?.to_owned(),
            suite_hash: keys.text("suite_hash")?.to_owned(),
            prompts: metadata.u64(&format!("{PREFIX}prompts")).ok().flatten().ok_or_else(|| bad("prompts"))?,
            gates: keys.gates()?,
        }))
    }

    /// Writes the stamp into the GGUF file at `path`, by an atomic copy. `progress` is told the bytes done and their
    /// total.
    ///
    /// # Errors
    /// [`Error::Job`] with the reason: [`gguf_bitnet::ModelError::IdentityChanged`] when the file is no longer
    /// the model that was measured, no space, a disk that refuses. The file is then as it was.
    pub fn write_file(&self, path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        let change = |metadata: &mut Metadata| self.write(metadata);
        gguf_bitnet::rewrite_metadata(path, &self.student, change, progress)?;
        Ok(())
    }
}

fn bad(name: &'static str) -> Error {
    Error::BadStamp { name }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "fail",
        Outcome::TooFew => "too_few",
    }
}

struct Keys<'a>(&'a Metadata);

impl<'a> Keys<'a> {
    fn text(&self, name: &'static str) -> Result<&'a str> {
        self.0.str(&format!("{PREFIX}{name}")).ok().flatten().ok_or_else(|| bad(name))
    }

    fn array(&self, name: &'static str) -> Result<&'a Array> {
        self.0.array(&format!("{PREFIX}{name}")).ok().flatten().ok_or_else(|| bad(name))
    }

    fn numbers(&self, name: &'static str) -> Result<&'a [f64]> {
        match self.array(name)? {
            Array::F64(numbers) => Ok(numbers),
            _ => Err(bad(name)),
        }
    }

    fn texts(&self, name: &'static str) -> Result<&'a [String]> {
        match self.array(name)? {
            Array::String(texts) => Ok(texts),
            _ => Err(bad(name)),
        }
    }

    fn gates(&self) -> Result<Vec<GateResult>> {
        let (names, outcomes) = (self.texts("names")?, self.texts("outcomes")?);
        let (values, thresholds) = (self.numbers("values")?, self.numbers("thresholds")?);
        let (low95, high95) = (self.numbers("low95")?, self.numbers("high95")?);
        let Array::U64(samples) = self.array("samples")? else { return Err(bad("samples")) };
        let lengths = [outcomes.len(), values.len(), thresholds.len(), low95.len(), high95.len(), samples.len()];
        if lengths.iter().any(|&len| len != names.len()) {
            return Err(bad("names"));
        }
        (0..names.len())
            .map(|i| {
                let outcome = match outcomes[i].as_str() {
                    "pass" => Outcome::Pass,
                    "fail" => Outcome::Fail,
                    "too_few" => Outcome::TooFew,
                    _ => return Err(bad("outcomes")),
                };
                let figure = Figure {
                    value: values[i],
                    numerator: None,
                    denominator: None,
                    n: samples[i],
                    low95: low95[i],
                    high95: high95[i],
                    interval: IntervalKind::Bootstrap,
                };
                Ok(GateResult {
                    gate: names[i].parse::<BehavioralGate>().map_err(|_| bad("names"))?,
                    outcome,
                    threshold: thresholds[i],
                    figure: figure.value.is_finite().then_some(figure),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{PREFIX, Stamp};
    use crate::gates::{BehavioralGate, GateResult, GateThresholds, Verdict};
    use crate::stats::{Figure, IntervalKind};
    use gguf_bitnet::Metadata;

    fn stamp() -> Stamp {
        let figure = |i: usize| Figure {
            value: 0.5 + 0.05 * i as f64,
            numerator: None,
            denominator: None,
            n: 30 + i as u64,
            low95: 0.4,
            high95: 0.9,
            interval: IntervalKind::Bootstrap,
        };
        let judge = |(i, gate): (usize, BehavioralGate)| {
            GateResult::judge(gate, (i != 1).then(|| figure(i)), &GateThresholds::default(), i > 3)
        };
        Stamp {
            verdict: Verdict::NoShip,
            strict: true,
            student: "ab".repeat(32),
            teacher: "cd".repeat(32),
            suite: "suite-200".into(),
            suite_hash: "ef".repeat(32),
            prompts: 200,
            gates: BehavioralGate::ALL.into_iter().enumerate().map(judge).collect(),
        }
    }

    #[test]
    fn what_is_written_is_read_and_replaces_what_was_there() {
        let mut metadata = Metadata::default();
        metadata.insert("general.name", "m");
        metadata.insert("craftsman.gates.old", 1u32);
        stamp().write(&mut metadata);
        assert_eq!(Stamp::read(&metadata).unwrap(), Some(stamp()));
        assert!(!metadata.contains_key("craftsman.gates.old") && metadata.contains_key("general.name"));
        let mut ship = stamp();
        ship.verdict = Verdict::Ship;
        ship.write(&mut metadata);
        assert_eq!(Stamp::read(&metadata).unwrap(), Some(ship));
    }

    #[test]
    fn no_stamp_is_none_and_a_damaged_one_an_error() {
        assert_eq!(Stamp::read(&Metadata::default()).unwrap(), None);
        let mut whole = Metadata::default();
        stamp().write(&mut whole);
        let keys: Vec<String> = whole.iter().map(|(key, _)| key.to_owned()).collect();
        for key in &keys {
            let mut missing = whole.clone();
            missing.remove(key);
            let name = key.strip_prefix(PREFIX).unwrap();
            let error = Stamp::read(&missing).unwrap_err().to_string();
            assert!(error.contains(name), "{key}: {error}");
            let mut wrong = whole.clone();
            wrong.insert(key.clone(), -7i8);
            assert!(Stamp::read(&wrong).is_err(), "{key}");
        }
        let mut short = whole.clone();
        short.insert("craftsman.gates.samples", vec![1u64]);
        assert!(Stamp::read(&short).is_err());
        let mut alien = whole;
        alien.insert("craftsman.gates.names", vec!["x".to_owned(); 6]);
        assert!(Stamp::read(&alien).is_err());
    }
}
