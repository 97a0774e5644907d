//! Sources for the tests of quantisation: the fixtures, and copies of them that are changed here.

use std::fs;
use std::path::{Path, PathBuf};

use gguf_bitnet::{TensorType, open_source};
use moe_runtime::ModelFiles;
use rlm_refine::{Method, OnProgress, Preset, QuantizeOptions, QuantizeReport, Quantizer, Recipe, Result};
use serde_json::json;
use ternary_core::Rounding;
use tl_kernels::Pool;

/// The settings of one job.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) recipe: Recipe,
    pub(crate) rounding: Rounding,
    pub(crate) max_memory_bytes: Option<u64>,
    pub(crate) threads: usize,
    pub(crate) force: bool,
    pub(crate) allow_zero: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            recipe: Recipe::default(),
            rounding: Rounding::AbsMean,
            max_memory_bytes: None,
            threads: 2,
            force: false,
            allow_zero: false,
        }
    }
}

pub(crate) fn preset(preset: Preset) -> Settings {
    Settings { recipe: Recipe { preset, ..Recipe::default() }, ..Settings::default() }
}

/// Quantises the model at `source` to `out`.
pub(crate) fn quantize(source: &Path, out: &Path, settings: &Settings) -> Result<QuantizeReport> {
    quantize_watched(source, out, settings, &mut |_, _, _| {})
}

/// As [`quantize`], with calls of `progress`.
pub(crate) fn quantize_watched(
    source: &Path,
    out: &Path,
    settings: &Settings,
    progress: &mut OnProgress<'_>,
) -> Result<QuantizeReport> {
    let files = ModelFiles::open(source)?;
    let options = QuantizeOptions {
        recipe: settings.recipe.clone(),
        method: Method::Round(settings.rounding),
        max_memory_bytes: settings.max_memory_bytes,
        allow_zero: settings.allow_zero,
    };
    let quantizer = Quantizer::new(&files, options, settings.threads)?;
    let report = quantizer.run(&Pool::new(settings.threads).unwrap(), out, settings.force, progress)?;
    assert_eq!(report.output_bytes, quantizer.output_bytes()?, "the size is known before");
    assert_eq!(fs::metadata(out).unwrap().len(), report.output_bytes);
    Ok(report)
}

/// A stored tensor of a safetensors file.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) dtype: &'static str,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// The tensors of a checkpoint as they are stored.
pub(crate) fn stored(checkpoint: &Path) -> Vec<Stored> {
    let source = open_source(checkpoint).unwrap();
    let one = |(index, info): (usize, &gguf_bitnet::TensorInfo)| {
        let dtype = match info.ty {
            TensorType::F32 => "F32",
            TensorType::F16 => "F16",
            TensorType::Bf16 => "BF16",
            other => panic!("{other} is not used by the fixtures"),
        };
        let bytes = source.bytes(index).unwrap().to_vec();
        Stored { name: info.name.clone(), dtype, shape: info.shape.clone(), bytes }
    };
    source.tensors().iter().enumerate().map(one).collect()
}

/// Writes a checkpoint directory with these tensors and everything but the weights of `like`.
pub(crate) fn write_checkpoint(dir: &Path, like: &Path, tensors: &[Stored]) {
    fs::create_dir_all(dir).unwrap();
    for name in ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"] {
        if like.join(name).is_file() {
            fs::copy(like.join(name), dir.join(name)).unwrap();
        }
    }
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for tensor in tensors {
        let begin = data.len();
        data.extend_from_slice(&tensor.bytes);
        header.insert(
            tensor.name.clone(),
            json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [begin, data.len()] }),
        );
    }
    let mut json = serde_json::Value::Object(header).to_string();
    while !json.len().is_multiple_of(8) {
        json.push(' ');
    }
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    bytes.extend_from_slice(&data);
    fs::write(dir.join("model.safetensors"), bytes).unwrap();
}

/// A copy of a fixture checkpoint after `edit`.
pub(crate) fn edited(dir: &Path, case: &str, edit: impl FnOnce(&mut Vec<Stored>)) -> PathBuf {
    let like = fixtures::path(case);
    let mut tensors = stored(&like);
    edit(&mut tensors);
    let copy = dir.join("source");
    write_checkpoint(&copy, &like, &tensors);
    copy
}

/// Replaces one number of a tensor whose name ends in `suffix`; returns the tensor's name.
pub(crate) fn poke(tensors: &mut [Stored], suffix: &str, element: usize, value: f32) -> String {
    let tensor = tensors.iter_mut().find(|t| t.name.ends_with(suffix)).unwrap();
    match tensor.dtype {
        "F32" => tensor.bytes[4 * element..][..4].copy_from_slice(&value.to_le_bytes()),
        "BF16" => {
            tensor.bytes[2 * element..][..2].copy_from_slice(&half::bf16::from_f32(value).to_le_bytes());
        }
        other => panic!("{other} is not used by the fixtures"),
    }
    tensor.name.clone()
}

/// Stacks the routed experts of every layer, gate and up in one tensor, as some releases store them.
pub(crate) fn fuse_experts(tensors: &mut Vec<Stored>) {
    let experts: Vec<Stored> = tensors.extract_if(.., |t| t.name.contains(".mlp.experts.")).collect();
    let find = |layer: &str, expert: usize, proj: &str| {
        experts.iter().find(|t| t.name == format!("{layer}.mlp.experts.{expert}.{proj}_proj.weight"))
    };
    let mut layers: Vec<&str> = experts.iter().map(|t| t.name.split(".mlp.").next().unwrap()).collect();
    layers.dedup();
    layers.sort_unstable();
    layers.dedup();
    for layer in layers {
        let n = (0..).take_while(|&e| find(layer, e, "up").is_some()).count();
        for (name, projections) in [("gate_up_proj", &["gate", "up"][..]), ("down_proj", &["down"][..])] {
            let parts = (0..n).flat_map(|e| projections.iter().map(move |p| find(layer, e, p).unwrap()));
            let first = find(layer, 0, projections[0]).unwrap();
            let shape = vec![n, first.shape[0] * projections.len(), first.shape[1]];
            let bytes = parts.flat_map(|t| t.bytes.iter().copied()).collect();
            tensors.push(Stored { name: format!("{layer}.mlp.experts.{name}"), dtype: first.dtype, shape, bytes });
        }
    }
}

/// The names of all files in a directory, sorted.
pub(crate) fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
