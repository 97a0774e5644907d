//! The metadata of a student.

use gguf_bitnet::{Array, Metadata, TensorClass, TensorType, Value};
use moe_runtime::models::ModelConfig;
use ternary_core::ActMode;

use super::plan::{PlannedTensor, StudentPlan};
use crate::error::Result;
use crate::precision::PrecisionTable;
use crate::ptq::Calibration;
use crate::recipe::Recipe;

/// The origin of a student, for its metadata.
#[derive(Clone, Debug)]
pub(crate) struct Provenance<'a> {
    /// The name of the model.
    pub(crate) name: String,
    /// BLAKE3 of the source as 64 hexadecimal digits; `None` for random weights.
    pub(crate) source_blake3: Option<String>,
    /// The method that made the ternary tensors; `None` for weights that were never rounded.
    pub(crate) encoding: Option<&'static str>,
    /// The texts that it was calibrated on.
    pub(crate) calibration: Option<&'a Calibration>,
    /// The search that chose the types.
    pub(crate) precision: Option<&'a PrecisionTable>,
}

impl StudentPlan {
    /// The student's metadata: `base` (of a source, or empty), with the keys of this file in place of the source's.
    ///
    /// # Errors
    /// When GGUF has no key for a setting of this model.
    pub(crate) fn metadata(
        &self,
        base: &Metadata,
        config: &ModelConfig,
        recipe: &Recipe,
        provenance: &Provenance<'_>,
    ) -> Result<Metadata> {
        let mut metadata = Metadata::default();
        let mut set = |key: &str, value: Value| metadata.insert(key, value);
        set("general.architecture", self.arch.into());
        set("general.type", "model".into());
        set("general.name", provenance.name.as_str().into());
        set("general.size_label", size_label(self, config).into());
        set("general.file_type", Value::U32(self.file_type()));
        set("general.quantization_version", Value::U32(2));
        set("general.quantized_by", concat!("Craftsman Ultra ", env!("CARGO_PKG_VERSION")).into());
        for (key, value) in config.to_gguf_metadata()?.iter() {
            metadata.insert(key, value.clone());
        }
        for (key, value) in base.iter().filter(|(key, _)| self.holds_for_student(key)) {
            if !metadata.contains_key(key) {
                metadata.insert(key, value.clone());
            }
        }
        self.add_craftsman_keys(&mut metadata, config, recipe, provenance);
        Ok(metadata)
    }

    /// Whether a key of the source also holds for the student, so that it is copied.
    fn holds_for_student(&self, key: &str) -> bool {
        let decided_here = [self.arch, "craftsman", "split", "quantize"];
        let family = key.split('.').next().unwrap_or(key);
        !decided_here.contains(&family) && key != "general.alignment"
    }

    fn add_craftsman_keys(
        &self,
        metadata: &mut Metadata,
        config: &ModelConfig,
        recipe: &Recipe,
        provenance: &Provenance<'_>,
    ) {
        let mut set = |key: &str, value: Value| metadata.insert(format!("craftsman.{key}"), value);
        if self.tensors.iter().any(|tensor| tensor.assignment.ty.is_ternary()) {
            set("bitnet.version", Value::U32(1));
            if let Some(encoding) = provenance.encoding {
                set("bitnet.weight_encoding", encoding.into());
            }
            set("bitnet.activation_bits", Value::U32(8));
            let scales = if config.trained_act == Some(ActMode::A8Token) { "token" } else { "block" };
            set("bitnet.activation_scales", scales.into());
            set("bitnet.router_precision", "f32".into());
            let blocks = self.tensors.iter().filter_map(|tensor| tensor.assignment.ty.trit_block());
            set("bitnet.block_size", Value::U32(blocks.min().map_or(256, |n| n as u32)));
            set("bitnet.kernel_hint", "i2_s".into());
        }
        if let Some(moe) = &config.moe {
            set("moe.total_params", Value::U64(self.params()));
            set("moe.active_params", Value::U64(self.active_params(config)));
            set("moe.num_experts", Value::U32(moe.router.n_experts as u32));
            set("moe.active_experts", Value::U32(moe.router.top_k as u32));
        }
        set("provenance.tool_version", env!("CARGO_PKG_VERSION").into());
        if let Some(blake3) = &provenance.source_blake3 {
            set("provenance.source_blake3", blake3.as_str().into());
        }
        set("provenance.recipe", recipe.describe().into());
        for (key, value) in provenance.precision.into_iter().flat_map(PrecisionTable::entries) {
            set(key, value);
        }
        if let Some(calibration) = provenance.calibration {
            set("provenance.calibration_blake3", calibration.blake3.as_str().into());
            set("provenance.calibration_spans", Value::Array(Array::U64(calibration.spans.clone())));
        }
    }

    /// `general.file_type`: the id of the type that holds most weights.
    fn file_type(&self) -> u32 {
        let weights = |ty| {
            let of_type = self.tensors.iter().filter(|tensor| tensor.assignment.ty == ty);
            of_type.map(PlannedTensor::params).sum::<u64>()
        };
        let numbered = TensorType::all().filter_map(|ty| Some((ty, ty.file_type()?)));
        numbered.max_by_key(|&(ty, _)| weights(ty)).map_or(0, |(_, id)| id)
    }
}

/// `64x2.6B`: experts times the weights of a model with one of them; without experts only the weights.
fn size_label(plan: &StudentPlan, config: &ModelConfig) -> String {
    let routed: u64 =
        plan.tensors.iter().filter(|t| t.class == TensorClass::RoutedExpert).map(PlannedTensor::params).sum();
    match &config.moe {
        Some(moe) if moe.router.n_experts > 0 => {
            let n = moe.router.n_experts as u64;
            format!("{n}x{}", short_count(plan.params() - routed + routed / n))
        }
        _ => short_count(plan.params()),
    }
}

fn short_count(n: u64) -> String {
    match n {
        0..1_000_000 => format!("{:.0}K", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1}M", n as f64 / 1e6),
        _ => format!("{:.1}B", n as f64 / 1e9),
    }
}
