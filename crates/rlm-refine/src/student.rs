//! The file a student becomes: its tensors with their types, its metadata, its exact size.
//!
//! **Invariant:** the size of the file follows from the plan alone; nothing about the weights' values can change it.

use gguf_bitnet::{GgufWriter, Metadata, Rounding, TensorClass, TensorInfo, TensorType, Value, gguf_name};
use moe_runtime::ModelConfig;

use crate::Result;
use crate::recipe::{Assignment, Reason, Recipe};

/// One tensor of a student.
#[derive(Clone, Debug)]
pub struct PlannedTensor {
    /// Canonical name.
    pub name: String,
    /// What it is for.
    pub class: TensorClass,
    /// Row-major dimensions.
    pub shape: Vec<usize>,
    /// Its type on disk, and why.
    pub assignment: Assignment,
}

impl PlannedTensor {
    /// Number of weights.
    pub fn params(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64
    }

    /// Length of a row.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Rows of the tensor flattened to `[rows, cols]`.
    pub fn rows(&self) -> usize {
        self.shape[..self.shape.len().saturating_sub(1)].iter().product()
    }
}

/// The tensors of a student in file order.
#[derive(Clone, Debug)]
pub struct StudentPlan {
    /// Every tensor.
    pub tensors: Vec<PlannedTensor>,
    arch: &'static str,
}

/// Where a student comes from, for its metadata.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// What to call the model.
    pub name: String,
    /// BLAKE3 of the source as 64 hexadecimal digits; `None` for weights that come from nowhere.
    pub source_blake3: Option<String>,
    /// The rounding of ternary tensors; `None` for weights that were never rounded.
    pub rounding: Option<Rounding>,
}

impl StudentPlan {
    /// Gives every tensor `(canonical name, shape)` its type.
    ///
    /// # Errors
    /// As [`Recipe::assign`]; [`crate::Error::UnusedOverride`] for an override that no tensor can follow.
    pub fn new<'a>(
        config: &ModelConfig,
        tensors: impl Iterator<Item = (&'a str, &'a [usize])>,
        recipe: &Recipe,
    ) -> Result<Self> {
        let tensors = tensors.map(|(name, shape)| {
            let class = TensorClass::of(name);
            let assignment = recipe.assign(name, class, shape)?;
            Ok(PlannedTensor { name: name.to_owned(), class, shape: shape.to_vec(), assignment })
        });
        let tensors = tensors.collect::<Result<Vec<PlannedTensor>>>()?;
        let open = tensors.iter().filter(|tensor| tensor.assignment.reason != Reason::AlwaysF32);
        recipe.ensure_used(open.map(|tensor| &*tensor.name))?;
        Ok(Self { tensors, arch: config.arch.gguf_name() })
    }

    /// Number of weights.
    pub fn params(&self) -> u64 {
        self.tensors.iter().map(PlannedTensor::params).sum()
    }

    /// Lays out the file with this metadata.
    ///
    /// # Errors
    /// When a tensor does not fit the format (a name too long, a row that fills no blocks).
    pub fn writer(&self, metadata: &Metadata) -> Result<GgufWriter> {
        let infos = self.tensors.iter().map(|tensor| {
            let ty = tensor.assignment.ty;
            let bytes = ty.tensor_bytes(&tensor.shape)?;
            Ok(TensorInfo { name: gguf_name(self.arch, &tensor.name), shape: tensor.shape.clone(), ty, bytes })
        });
        Ok(GgufWriter::new(metadata, infos.collect::<Result<_>>()?)?)
    }

    /// The student's metadata: `base` (a source's own, or nothing) with everything replaced that this file decides.
    ///
    /// # Errors
    /// When GGUF has no way to say what this model does.
    pub fn metadata(
        &self,
        base: &Metadata,
        config: &ModelConfig,
        recipe: &Recipe,
        provenance: &Provenance,
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
        for (key, value) in base.iter().filter(|(key, _)| self.survives(key)) {
            if !metadata.contains_key(key) {
                metadata.insert(key, value.clone());
            }
        }
        self.add_craftsman_keys(&mut metadata, config, recipe, provenance);
        Ok(metadata)
    }

    /// Whether a key of the source says something that is still true of the student.
    fn survives(&self, key: &str) -> bool {
        let decided_here = [self.arch, "craftsman", "split", "quantize"];
        let family = key.split('.').next().unwrap_or(key);
        !decided_here.contains(&family) && key != "general.alignment"
    }

    fn add_craftsman_keys(
        &self,
        metadata: &mut Metadata,
        config: &ModelConfig,
        recipe: &Recipe,
        provenance: &Provenance,
    ) {
        let mut set = |key: &str, value: Value| metadata.insert(format!("craftsman.{key}"), value);
        if self.tensors.iter().any(|tensor| tensor.assignment.ty.is_ternary()) {
            set("bitnet.version", Value::U32(1));
            if let Some(rounding) = provenance.rounding {
                set("bitnet.weight_encoding", weight_encoding(rounding).into());
            }
            set("bitnet.activation_bits", Value::U32(8));
            set("bitnet.activation_scales", "block".into());
            set("bitnet.router_precision", "f32".into());
            set("bitnet.block_size", Value::U32(256));
            set("bitnet.kernel_hint", "i2_s".into());
        }
        if let Some(moe) = &config.moe {
            set("moe.total_params", Value::U64(self.params()));
            set("moe.active_params", Value::U64(active_params(self, config)));
            set("moe.num_experts", Value::U32(moe.router.n_experts as u32));
            set("moe.active_experts", Value::U32(moe.router.top_k as u32));
        }
        set("provenance.tool_version", env!("CARGO_PKG_VERSION").into());
        if let Some(blake3) = &provenance.source_blake3 {
            set("provenance.source_blake3", blake3.as_str().into());
        }
        set("provenance.recipe", recipe.describe().into());
    }

    /// `general.file_type`: the id of the type that holds most weights.
    fn file_type(&self) -> u32 {
        let ids = [
            (TensorType::F32, 0),
            (TensorType::F16, 1),
            (TensorType::Q8_0, 7),
            (TensorType::Q6K, 18),
            (TensorType::Bf16, 32),
            (TensorType::Tq1_0, 36),
            (TensorType::Tq2_0, 37),
        ];
        let weights = |ty| {
            let of_type = self.tensors.iter().filter(|tensor| tensor.assignment.ty == ty);
            of_type.map(PlannedTensor::params).sum::<u64>()
        };
        ids.into_iter().max_by_key(|&(ty, _)| weights(ty)).map_or(0, |(_, id)| id)
    }
}

/// The metadata's word for a rounding.
pub fn weight_encoding(rounding: Rounding) -> &'static str {
    match rounding {
        Rounding::AbsMean => "absmean_ternary",
        Rounding::LeastSquares => "ls_ternary",
    }
}

/// Weights that one token is multiplied with: all but the embedding (a look-up) and the experts that were not chosen.
pub fn active_params(plan: &StudentPlan, config: &ModelConfig) -> u64 {
    let has_head = plan.tensors.iter().any(|tensor| tensor.class == TensorClass::Head);
    let weights = |tensor: &PlannedTensor| match (tensor.class, &config.moe) {
        (TensorClass::RoutedExpert, Some(moe)) => {
            tensor.params() / moe.router.n_experts.max(1) as u64 * moe.router.top_k as u64
        }
        (TensorClass::Embedding, _) if has_head => 0,
        _ => tensor.params(),
    };
    plan.tensors.iter().map(weights).sum()
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
