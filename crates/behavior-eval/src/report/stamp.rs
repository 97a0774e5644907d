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
use serde::de::DeserializeOwned;
use serde::de::value::StrDeserializer;

use super::error::ReportError;
use super::gate_report::{GateReport, SCHEMA};
use crate::Result;
use crate::gates::{BehavioralGate, GateResult, Verdict};
use crate::stats::{Figure, IntervalKind};

const PREFIX: &str = "craftsman.gates.";

/// The gate results that a model's metadata holds.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Stamp {
    pub verdict: Verdict,
    /// Whether lower ends of intervals had to pass.
    pub strict: bool,
    pub student: String,
    pub teacher: String,
    pub suite: String,
    pub suite_hash: String,
    pub prompts: u64,
    /// The gates, in the order of the ship rule.
    pub gates: Vec<GateResult>,
}

impl Stamp {
    /// The stamp of a report.
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
        put("outcomes", self.gates.iter().map(|gate| gate.outcome.to_string()).collect::<Vec<_>>().into());
        put("values", figure(|f| f.value).into());
        put("low95", figure(|f| f.low95).into());
        put("high95", figure(|f| f.high95).into());
        put("thresholds", self.gates.iter().map(|gate| gate.threshold).collect::<Vec<_>>().into());
        put("samples", self.gates.iter().map(|gate| gate.figure.map_or(0, |f| f.n)).collect::<Vec<_>>().into());
    }

    /// The stamp in metadata; `None` when there is none.
    ///
    /// # Errors
    /// [`ReportError::Stamp`] when the keys are there but not as this version writes them.
    pub fn read(metadata: &Metadata) -> Result<Option<Self>> {
        if !metadata.iter().any(|(key, _)| key.starts_with(PREFIX)) {
            return Ok(None);
        }
        let keys = Keys(metadata);
        if keys.need("schema", Metadata::u32)? != SCHEMA {
            return Err(bad("schema").into());
        }
        let text = |name| Ok::<_, ReportError>(keys.need(name, Metadata::str)?.to_owned());
        Ok(Some(Self {
            verdict: parsed(keys.need("verdict", Metadata::str)?, "verdict")?,
            strict: keys.need("strict", Metadata::bool)?,
            student: text("student")?,
            teacher: text("teacher")?,
            suite: text("suite")?,
            suite_hash: text("suite_hash")?,
            prompts: keys.need("prompts", Metadata::u64)?,
            gates: keys.gates()?,
        }))
    }

    /// Writes the stamp into the GGUF file at `path`, by an atomic copy. `progress` is told the bytes done and their
    /// total.
    ///
    /// # Errors
    /// [`Error::Store`](crate::Error::Store) with the reason: [`gguf_bitnet::ModelError::IdentityChanged`] when the file is no longer
    /// the model that was measured, no space, a disk that refuses. The file is then as it was.
    pub fn write_file(&self, path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        let change = |metadata: &mut Metadata| self.write(metadata);
        gguf_bitnet::rewrite_metadata(path, &self.student, change, progress)?;
        Ok(())
    }
}

fn bad(name: &'static str) -> ReportError {
    ReportError::Stamp { name }
}

/// The verdict or outcome of this name.
fn parsed<T: DeserializeOwned>(word: &str, name: &'static str) -> Result<T, ReportError> {
    T::deserialize(StrDeserializer::<serde::de::value::Error>::new(word)).map_err(|_| bad(name))
}

struct Keys<'a>(&'a Metadata);

impl<'a> Keys<'a> {
    /// The value of a key, read as this type.
    fn need<T, E>(
        &self,
        name: &'static str,
        read: impl FnOnce(&'a Metadata, &str) -> Result<Option<T>, E>,
    ) -> Result<T, ReportError> {
        read(self.0, &format!("{PREFIX}{name}")).ok().flatten().ok_or(bad(name))
    }

    fn numbers(&self, name: &'static str) -> Result<&'a [f64], ReportError> {
        match self.need(name, Metadata::array)? {
            Array::F64(numbers) => Ok(numbers),
            _ => Err(bad(name)),
        }
    }

    fn gates(&self) -> Result<Vec<GateResult>, ReportError> {
        let (names, outcomes) = (self.need("names", Metadata::strings)?, self.need("outcomes", Metadata::strings)?);
        let (values, thresholds) = (self.numbers("values")?, self.numbers("thresholds")?);
        let (low95, high95) = (self.numbers("low95")?, self.numbers("high95")?);
        let Array::U64(samples) = self.need("samples", Metadata::array)? else { return Err(bad("samples")) };
        let lengths = [outcomes.len(), values.len(), thresholds.len(), low95.len(), high95.len(), samples.len()];
        if lengths.iter().any(|&len| len != names.len()) {
            return Err(bad("names"));
        }
        let gate = |i: usize| {
            let (value, n, interval) = (values[i], samples[i], IntervalKind::Bootstrap);
            let (low95, high95) = (low95[i], high95[i]);
            let figure = Figure { value, numerator: None, denominator: None, n, low95, high95, interval };
            Ok(GateResult {
                gate: names[i].parse::<BehavioralGate>().map_err(|_| bad("names"))?,
                outcome: parsed(&outcomes[i], "outcomes")?,
                threshold: thresholds[i],
                figure: value.is_finite().then_some(figure),
            })
        };
        (0..names.len()).map(gate).collect()
    }
}
