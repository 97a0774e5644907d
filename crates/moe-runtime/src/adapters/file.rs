//! The file of an adapter: a GGUF of its own, in llama.cpp's form.
//!
//! ```text
//! general.type = "adapter"    general.architecture = that of the model's GGUF    adapter.type = "lora"
//! adapter.lora.alpha          F32; additions are multiplied with alpha / rank, or with 1 where alpha is 0
//! craftsman.adapter.model_blake3    the identity of the model; files of other programs lack it
//! NAME.lora_a  [rank, inputs]  or [experts, rank, inputs]      NAME is the matrix that is added to
//! NAME.lora_b  [outputs, rank] or [experts, outputs, rank]
//! ```
//! A sidecar has the name of a matrix of zeros (sidecar.rs). Sources: `convert_lora_to_gguf.py` and `llama-adapter.cpp` of
//! llama.cpp.
//!
//! **Invariant:** factors in memory are finite, come in pairs, and have one rank per pair. Dimensions are checked before
//! numbers are expanded to F32, those of a set against its model.

use std::collections::BTreeMap;
use std::path::Path;

use gguf_bitnet::{GgufFile, GgufWriter, Metadata, TensorInfo, TensorSource, TensorType, dequantize, quantize_row};
use ternary_core::Bytes;

use crate::adapters::error::AdapterError;
use crate::error::{Error, Result};

/// The key of the identity of the model that an adapter belongs to.
const MODEL_KEY: &str = "craftsman.adapter.model_blake3";
/// The key of tokens behind which alone an adapter of llama.cpp takes effect.
const INVOCATION_KEY: &str = "adapter.alora.invocation_tokens";

/// An adapter as its file has it.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterFile {
    /// The `general.architecture` of the model.
    pub architecture: String,
    /// The identity of the model as hexadecimal BLAKE3; `None` in files of other programs.
    pub model: Option<String>,
    /// The strength: additions are multiplied with `alpha / rank`, or with 1 where it is 0.
    pub alpha: f32,
    /// The additions, by the name of the matrix, ascending.
    pub pairs: Vec<FactorPair>,
}

/// The factors of the additions to one matrix, or to each matrix of a stack.
#[derive(Clone, Debug, PartialEq)]
pub struct FactorPair {
    /// The name of the matrix, such as `blk.3.ffn_up_exps.weight`, or of a sidecar.
    pub tensor: String,
    /// Row-major dimensions of `a`: `[rank, inputs]` or `[experts, rank, inputs]`.
    pub a_shape: Vec<usize>,
    /// Row-major dimensions of `b`: `[outputs, rank]` or `[experts, outputs, rank]`.
    pub b_shape: Vec<usize>,
    /// The numbers of the first factor.
    pub a: Vec<f32>,
    /// The numbers of the second factor.
    pub b: Vec<f32>,
}

impl FactorPair {
    /// Number of rows of each `a`.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.b_shape.last().copied().unwrap_or(0)
    }
}

/// Refuses factors `[a, b]` of dimensions that the matrix of this name does not take.
pub(crate) type Fits<'a> = dyn FnMut(&str, [&[usize]; 2]) -> Result<()> + 'a;

impl AdapterFile {
    /// Reads the adapter at `path` into memory.
    ///
    /// # Errors
    /// A file that is no GGUF, no LoRA adapter, or damaged; factors without partners, of ranks that differ, or not finite.
    pub fn read(path: &Path) -> Result<AdapterFile> {
        let file = GgufFile::open(path)?;
        AdapterFile::of_gguf(&file).map_err(|error| error.in_model(path))
    }

    /// As [`AdapterFile::read`], for a GGUF that is open already.
    ///
    /// # Errors
    /// As [`AdapterFile::read`].
    pub fn of_gguf(file: &GgufFile) -> Result<AdapterFile> {
        let mut adapter = AdapterFile::without_pairs(file)?;
        adapter.pairs = read_pairs(file, &mut |_, _| Ok(()))?;
        Ok(adapter)
    }

    /// The metadata of an adapter.
    pub(crate) fn without_pairs(file: &GgufFile) -> Result<AdapterFile> {
        let metadata = file.metadata();
        for (key, expected) in [("general.type", "adapter"), ("adapter.type", "lora")] {
            let got = metadata.str(key)?;
            if got != Some(expected) {
                let got = got.map_or_else(|| "missing".to_owned(), |got| format!("`{got}`"));
                return Err(AdapterError::Kind { key, expected, got }.into());
            }
        }
        if metadata.contains_key(INVOCATION_KEY) {
            return Err(AdapterError::Invocation { key: INVOCATION_KEY }.into());
        }
        let alpha = metadata.f32("adapter.lora.alpha")?.unwrap_or(0.0);
        if !alpha.is_finite() {
            return Err(AdapterError::Scale { name: "alpha", value: alpha }.into());
        }
        let architecture = metadata.require("general.architecture", metadata.str("general.architecture")?)?.to_owned();
        let model = metadata.str(MODEL_KEY)?.map(str::to_owned);
        Ok(AdapterFile { architecture, model, alpha, pairs: Vec::new() })
    }

    /// The number that an addition of `rank` is multiplied with.
    #[must_use]
    pub fn scale(&self, rank: usize) -> f32 {
        if self.alpha == 0.0 { 1.0 } else { self.alpha / rank as f32 }
    }

    /// The metadata of its file.
    #[must_use]
    pub fn metadata(&self) -> Metadata {
        let mut metadata = Metadata::default();
        metadata.insert("general.architecture", self.architecture.as_str());
        metadata.insert("general.type", "adapter");
        metadata.insert("adapter.type", "lora");
        metadata.insert("adapter.lora.alpha", self.alpha);
        if let Some(model) = &self.model {
            metadata.insert(MODEL_KEY, model.as_str());
        }
        metadata
    }

    /// Writes the adapter to `path` with its factors as `ty`, a type of numbers without blocks.
    ///
    /// # Errors
    /// A type that does not fit the rows of the factors, and a disk that refuses the file.
    pub fn write(&self, path: &Path, ty: TensorType) -> Result<()> {
        let mut tensors = Vec::new();
        for pair in &self.pairs {
            for (end, shape, values) in [(".lora_a", &pair.a_shape, &pair.a), (".lora_b", &pair.b_shape, &pair.b)] {
                let name = format!("{}{end}", pair.tensor);
                let mut bytes = Vec::new();
                quantize_row(ty, values, &mut bytes).map_err(|error| error.in_tensor(&name))?;
                let info = TensorInfo { name, shape: shape.clone(), ty, bytes: bytes.len() as u64 };
                tensors.push((info, Bytes::from(bytes)));
            }
        }
        Ok(GgufWriter::write_file(path, &self.metadata(), &tensors)?)
    }
}

/// The factors of all tensors of a file, in pairs; `fits` gets the dimensions of each pair before its numbers are read.
pub(crate) fn read_pairs(file: &GgufFile, fits: &mut Fits<'_>) -> Result<Vec<FactorPair>> {
    let mut found: BTreeMap<&str, [Option<usize>; 2]> = BTreeMap::new();
    for (index, info) in file.tensors().iter().enumerate() {
        let ends = [".lora_a", ".lora_b"].map(|end| info.name.strip_suffix(end));
        let (which, base) = match ends {
            [Some(base), _] => (0, base),
            [_, Some(base)] => (1, base),
            _ => return Err(AdapterError::NoFactor { tensor: info.name.clone() }.into()),
        };
        found.entry(base).or_default()[which] = Some(index);
    }
    if found.is_empty() {
        return Err(AdapterError::Empty.into());
    }
    let mut pair = |(tensor, factors): (&str, [Option<usize>; 2])| match factors {
        [Some(a), Some(b)] => read_pair(file, tensor, [a, b], fits),
        [a, _] => {
            let [has, lacks] = if a.is_some() { ["lora_a", "lora_b"] } else { ["lora_b", "lora_a"] };
            let (tensor, missing) = (format!("{tensor}.{has}"), format!("{tensor}.{lacks}"));
            Err(AdapterError::Unpaired { tensor, missing }.into())
        }
    };
    found.into_iter().map(&mut pair).collect()
}

/// The factors with these indices, once their dimensions are known to fit.
fn read_pair(file: &GgufFile, tensor: &str, factors: [usize; 2], fits: &mut Fits<'_>) -> Result<FactorPair> {
    let [a, b] = factors.map(|index| &file.tensors()[index].shape);
    check_rank(tensor, [a, b])?;
    fits(tensor, [a, b])?;
    Ok(FactorPair {
        tensor: tensor.to_owned(),
        a_shape: a.clone(),
        b_shape: b.clone(),
        a: read_factor(file, factors[0])?,
        b: read_factor(file, factors[1])?,
    })
}

fn read_factor(file: &GgufFile, index: usize) -> Result<Vec<f32>> {
    let info = &file.tensors()[index];
    let bytes = file.bytes(index)?;
    let mut values = vec![0.0; info.elements()];
    let cols = info.cols();
    let row_bytes = bytes.len() / info.rows().max(1);
    for (row, bytes) in values.chunks_exact_mut(cols).zip(bytes.chunks_exact(row_bytes.max(1))) {
        dequantize(info.ty, bytes, row).map_err(|error| error.in_tensor(&info.name))?;
    }
    if !values.iter().all(|v| v.is_finite()) {
        return Err(AdapterError::NotFinite { tensor: info.name.clone() }.into());
    }
    Ok(values)
}

/// Refuses factors that do not have one rank and one number of matrices.
fn check_rank(tensor: &str, [a, b]: [&[usize]; 2]) -> Result<()> {
    let expected = match (a, b) {
        ([rank, _], [outputs, _]) => vec![*outputs, *rank],
        ([n, rank, _], [_, outputs, _]) => vec![*n, *outputs, *rank],
        ([n, rank, _], _) => vec![*n, 0, *rank],
        _ => vec![0, a.first().copied().unwrap_or(0)],
    };
    if *b == expected {
        return Ok(());
    }
    Err(Error::Adapter(AdapterError::Shape { tensor: format!("{tensor}.lora_b"), expected, got: b.to_vec() }))
}
