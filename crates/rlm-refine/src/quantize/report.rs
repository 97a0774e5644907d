//! The report of a job, and the sums in its journal that it is made from.

use std::collections::BTreeMap;

use gguf_bitnet::Job;
use gguf_bitnet::{TensorClass, TensorType};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ternary_core::ErrorSums;

use crate::precision::PrecisionTable;
use crate::ptq::LayerReport;
use crate::student::{StudentPlan, Unit};

/// The result of a job.
#[derive(Clone, Debug, Serialize)]
pub struct QuantizeReport {
    /// BLAKE3 of the source.
    pub source_blake3: String,
    /// Size of the student.
    pub output_bytes: u64,
    /// Weights of the student.
    pub params: u64,
    /// Totals by class and type.
    pub types: Vec<TypeReport>,
    /// Findings about the source's weights that did not stop the job, as sentences.
    pub notices: Vec<String>,
    /// The search that chose the types.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<PrecisionTable>,
    /// The calibrated layers in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerReport>,
}

impl QuantizeReport {
    /// How many matrices had their settings chosen by held-out tokens, and how many had them from an earlier run.
    #[must_use]
    pub fn searches(&self) -> (usize, usize) {
        let matrices = self.layers.iter().flat_map(LayerReport::matrices);
        let chosen = matrices.filter(|matrix| matrix.policy.settings.is_some());
        chosen.fold((0, 0), |(made, saved), m| (made + usize::from(!m.known), saved + usize::from(m.known)))
    }

    /// Sums up the entries of a job's journal.
    pub(super) fn of(job: &Job, plan: &StudentPlan, output_bytes: u64, source_blake3: String) -> QuantizeReport {
        let mut groups: BTreeMap<(TensorClass, TensorType), (ErrorSums, TypeReport)> = BTreeMap::new();
        for planned in &plan.tensors {
            let (class, ty) = (planned.class, planned.assignment.ty);
            let (_, line) =
                groups.entry((class, ty)).or_insert_with(|| (ErrorSums::default(), TypeReport::new(class, ty)));
            line.tensors += 1;
            line.params += planned.params();
            line.bytes += ty.tensor_bytes(&planned.shape).unwrap_or(0);
        }
        let mut layers: BTreeMap<usize, LayerReport> = BTreeMap::new();
        for unit in job.units() {
            let layer = unit.payload.get("layer").and_then(|layer| LayerReport::deserialize(layer).ok());
            layers.extend(layer.map(|layer| (layer.layer, layer)));
            if let Some((tensor, sums)) = read_payload(&unit.payload)
                && let Some(planned) = plan.tensors.get(tensor)
                && let Some((total, _)) = groups.get_mut(&(planned.class, planned.assignment.ty))
            {
                total.merge(&sums);
            }
        }
        let types = groups.into_values().map(|(sums, line)| {
            let metrics = sums.metrics();
            TypeReport { relative_mse: metrics.relative_mse, cosine: metrics.cosine, zeros: metrics.sparsity, ..line }
        });
        QuantizeReport {
            source_blake3,
            output_bytes,
            params: plan.params(),
            types: types.collect(),
            notices: Vec::new(),
            precision: None,
            layers: layers.into_values().collect(),
        }
    }
}

/// The tensors of one class in one type, and the error of storing them so.
#[derive(Clone, Debug, Serialize)]
pub struct TypeReport {
    /// The role of the tensors in the model.
    pub class: TensorClass,
    /// The type on disk.
    #[serde(rename = "type")]
    pub ty: TensorType,
    /// How many tensors these are.
    pub tensors: u64,
    /// How many weights they hold.
    pub params: u64,
    /// Their size on disk.
    pub bytes: u64,
    /// `sum (w - v)^2 / sum w^2`.
    pub relative_mse: f64,
    /// Cosine between the weights and the stored values.
    pub cosine: f64,
    /// Share of stored weights that are zero.
    pub zeros: f64,
}

impl TypeReport {
    fn new(class: TensorClass, ty: TensorType) -> Self {
        Self { class, ty, tensors: 0, params: 0, bytes: 0, relative_mse: 0.0, cosine: 1.0, zeros: 0.0 }
    }
}

/// A unit's entry in the journal; sums as bits, so that a resumed job reports the same figures.
pub(super) fn payload(unit: &Unit, sums: &ErrorSums, layer: Option<LayerReport>) -> Value {
    let bits = [sums.error2, sums.weight2, sums.value2, sums.product].map(f64::to_bits);
    let mut payload =
        json!({ "tensor": unit.tensor, "rows": unit.rows.end, "n": sums.n, "zeros": sums.zeros, "sums": bits });
    if let Some(layer) = layer {
        payload["layer"] = json!(layer);
    }
    payload
}

fn read_payload(payload: &Value) -> Option<(usize, ErrorSums)> {
    let whole = |key: &str| payload.get(key)?.as_u64();
    let sum = |i: usize| payload.get("sums")?.get(i)?.as_u64().map(f64::from_bits);
    let sums = ErrorSums {
        n: whole("n")?,
        zeros: whole("zeros")?,
        error2: sum(0)?,
        weight2: sum(1)?,
        value2: sum(2)?,
        product: sum(3)?,
        ..ErrorSums::default()
    };
    Some((usize::try_from(whole("tensor")?).ok()?, sums))
}
