//! Checkpoints in the safetensors format: one file, or the shards of a directory.
//!
//! **Invariant:** every header has been checked against its file before the first view exists: see
//! `safetensors/header.rs` for one file and `safetensors/shards.rs` for a directory. Every tensor of 8-bit weights has its
//! scales: see `safetensors/scales.rs`.
//!
//! ```text
//! file   u64 LE: n | n bytes of JSON: name -> {dtype, shape, data_offsets} | data
//! ```
//! Source: the safetensors format specification (github.com/huggingface/safetensors).

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::Deserialize;
use ternary_core::Bytes;

use super::error::SafetensorsError;
use super::quantization::{Quantization, TritWeights};
use super::scales::{ScaleTable, needs_scales};
use super::{header, shards};
use crate::error::{Error, Locate, Result};
use crate::formats::{TensorType, dequantize};
use crate::source::{FileKind, Scales, SourceError, TensorInfo, TensorSource, ZeroTail, within};
use crate::store::disk::parent;
use crate::store::{MAX_CONFIG_BYTES, MappedFile, read_text_if_any};

/// A mapped safetensors checkpoint: a single file or all shards of a directory.
#[derive(Debug)]
pub struct SafetensorsDir {
    path: PathBuf,
    shards: Vec<Shard>,
    tensors: Vec<TensorInfo>,
    places: Vec<Place>,
    by_name: HashMap<String, usize>,
    scales: ScaleTable,
    /// The scale of each tensor whose weights the model rounds to trits, once it is computed.
    trit_scales: HashMap<usize, OnceLock<f32>>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    /// `None` for bytes in memory.
    map: Option<MappedFile>,
    bytes: Bytes,
}

/// The place of a tensor's bytes.
#[derive(Clone, Debug)]
struct Place {
    shard: usize,
    span: Range<usize>,
}

impl SafetensorsDir {
    /// Opens a `.safetensors` file, or a directory with `model.safetensors`, an index and its
    /// shards, shards named `NAME-00001-of-0000N.safetensors` without an index, or one
    /// `.safetensors` file of any name.
    ///
    /// # Errors
    /// When a file cannot be mapped or its header is malformed; when shards are missing, hold a
    /// tensor twice, or are not where the index says; when the directory holds several checkpoints.
    ///
    /// ```
    /// use gguf_bitnet::{SafetensorsDir, TensorSource};
    /// let checkpoint = SafetensorsDir::open(fixtures::path("goldens/glm-tiny"))?;
    /// let index = checkpoint.index_of("model.norm.weight").unwrap();
    /// assert_eq!(checkpoint.tensors()[index].shape, [256]);
    /// assert_eq!(checkpoint.bytes(index)?.len(), 512);
    /// # Ok::<(), gguf_bitnet::Error>(())
    /// ```
    pub fn open(path: impl AsRef<Path>) -> Result<SafetensorsDir> {
        let path = path.as_ref();
        let metadata = std::fs::metadata(path).map_err(Error::io("open", path))?;
        if !metadata.is_dir() {
            return SafetensorsDir::from_files(path, vec![path.to_owned()]);
        }
        let set = shards::find(path)?;
        let files = set.files.iter().map(|name| path.join(name)).collect();
        let checkpoint = SafetensorsDir::from_files(path, files)?;
        checkpoint.check_index(&set.weight_map)?;
        Ok(checkpoint)
    }

    /// Takes the bytes of a `.safetensors` file, whose weights are numbers: for programs without files.
    ///
    /// # Errors
    /// A malformed header; 8-bit weights without scales, or whose scales only a `config.json` explains: blocks and trits.
    ///
    /// ```
    /// use gguf_bitnet::{SafetensorsDir, TensorSource};
    /// let header = br#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    /// let file = [&(header.len() as u64).to_le_bytes()[..], &header[..], &1.0f32.to_le_bytes()].concat();
    /// let checkpoint = SafetensorsDir::from_bytes(file.into())?;
    /// assert_eq!(checkpoint.index_of("x"), Some(0));
    /// # Ok::<(), gguf_bitnet::Error>(())
    /// ```
    pub fn from_bytes(bytes: Bytes) -> Result<SafetensorsDir> {
        let mut checkpoint = SafetensorsDir::empty(Path::new(""));
        checkpoint.add_entries(PathBuf::new(), None, bytes)?;
        checkpoint.find_scales(Quantization::default())?;
        Ok(checkpoint)
    }

    /// The mapped files, in the order of their names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(|shard| shard.path.as_path())
    }

    fn empty(path: &Path) -> SafetensorsDir {
        SafetensorsDir {
            path: path.to_owned(),
            shards: Vec::new(),
            tensors: Vec::new(),
            places: Vec::new(),
            by_name: HashMap::new(),
            scales: ScaleTable::default(),
            trit_scales: HashMap::new(),
        }
    }

    fn from_files(path: &Path, files: Vec<PathBuf>) -> Result<SafetensorsDir> {
        let mut checkpoint = SafetensorsDir::empty(path);
        for file in files {
            checkpoint.add_shard(file)?;
        }
        let Some(shard) = checkpoint.shards.first() else { return Ok(checkpoint) };
        let config = parent(&shard.path).join("config.json");
        if checkpoint.tensors.iter().any(needs_scales) {
            checkpoint.find_scales(read_quantization(&config)?)?;
        } else if read_quantization(&config).is_ok_and(|found| found.trits == Some(TritWeights::Rounded)) {
            // The reader of the configuration refuses a method that is not known; the numbers are those of the file.
            let rounded = checkpoint.tensors.iter().enumerate().filter(|(_, info)| is_linear_in_layer(info));
            checkpoint.trit_scales = rounded.map(|(index, _)| (index, OnceLock::new())).collect();
        }
        Ok(checkpoint)
    }

    /// Finds the scales of the tensors that need them.
    fn find_scales(&mut self, quantization: Quantization) -> Result<()> {
        let position = |name: &str| self.by_name.get(name).copied();
        self.scales = ScaleTable::of(&self.tensors, position, quantization).map_err(|(index, error)| {
            let file = &self.shards[self.places[index].shard].path;
            error.in_tensor(&self.tensors[index].name).in_file(file)
        })?;
        Ok(())
    }

    /// The mean of the magnitudes of a tensor's weights.
    fn mean_magnitude(&self, index: usize) -> Result<f32> {
        let (info, bytes) = (&self.tensors[index], self.bytes(index)?);
        let mut values = vec![0.0; info.cols()];
        let mut sum = 0.0;
        for row in bytes.chunks_exact(info.ty.row_bytes(info.cols())?) {
            dequantize(info.ty, row, &mut values)?;
            sum += values.iter().map(|value| f64::from(value.abs())).sum::<f64>();
        }
        Ok((sum / info.elements() as f64).max(LEAST_SCALE) as f32)
    }

    fn add_shard(&mut self, path: PathBuf) -> Result<()> {
        let map = MappedFile::open(&path)?;
        let bytes = map.bytes();
        if !header::looks_like_safetensors(&bytes)
            && let Some(kind) = FileKind::of(&bytes)
        {
            return Err(SourceError::OtherFile { kind }.in_file(path));
        }
        self.add_entries(path, Some(map), bytes)
    }

    fn add_entries(&mut self, path: PathBuf, map: Option<MappedFile>, bytes: Bytes) -> Result<()> {
        let entries = header::parse(&bytes).map_err(|error| match header::unwritten_end(&path, &bytes, &error) {
            Some(tail) => SourceError::ZeroTail { tail }.in_file(&path),
            None => error.in_file(&path),
        })?;
        let shard = self.shards.len();
        for entry in entries {
            let index = self.tensors.len();
            if let Some(before) = self.by_name.insert(entry.info.name.clone(), index) {
                let other = self.shards[self.places[before].shard].path.clone();
                let error = SafetensorsError::DuplicateInShards { other };
                return Err(error.in_tensor(entry.info.name).in_file(path));
            }
            self.tensors.push(entry.info);
            self.places.push(Place { shard, span: entry.span });
        }
        self.shards.push(Shard { path, map, bytes });
        Ok(())
    }

    /// Checks that every tensor of the index is in the file that the index names.
    fn check_index(&self, weight_map: &BTreeMap<String, String>) -> Result<()> {
        for (tensor, file) in weight_map {
            let found = self
                .index_of(tensor)
                .is_some_and(|index| self.shards[self.places[index].shard].path == self.path.join(file));
            if !found {
                let error = SafetensorsError::IndexMismatch { file: file.clone() };
                return Err(error.in_tensor(tensor).in_file(&self.path));
            }
        }
        Ok(())
    }
}

impl TensorSource for SafetensorsDir {
    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    fn bytes(&self, index: usize) -> Result<Bytes> {
        let n_tensors = self.tensors.len();
        let place = self.places.get(index).ok_or(SourceError::NoTensor { index, n_tensors })?;
        Ok(self.shards[place.shard].bytes.slice(place.span.clone()))
    }

    fn release(&self, index: usize) {
        self.release_range(index, 0..usize::MAX);
    }

    fn prefetch(&self, index: usize) {
        self.prefetch_range(index, 0..usize::MAX);
    }

    fn release_range(&self, index: usize, range: Range<usize>) {
        if let Some(place) = self.places.get(index) {
            self.shards[place.shard].map.iter().for_each(|map| map.release(within(&place.span, &range)));
        }
    }

    fn prefetch_range(&self, index: usize, range: Range<usize>) {
        if let Some(place) = self.places.get(index) {
            self.shards[place.shard].map.iter().for_each(|map| map.prefetch(within(&place.span, &range)));
        }
    }

    fn scales(&self, index: usize) -> Option<Scales> {
        self.scales.get(index)
    }

    fn is_auxiliary(&self, index: usize) -> bool {
        self.scales.is_auxiliary(index)
    }

    fn trit_scale(&self, index: usize) -> Result<Option<f32>> {
        let Some(scale) = self.trit_scales.get(&index) else { return Ok(None) };
        if let Some(&scale) = scale.get() {
            return Ok(Some(scale));
        }
        let mean = self.mean_magnitude(index)?;
        Ok(Some(*scale.get_or_init(|| mean)))
    }

    fn zero_tails(&self) -> Vec<ZeroTail> {
        let tail = |(number, shard): (usize, &Shard)| {
            let tensors = self.tensors.iter().zip(&self.places).filter(|(_, place)| place.shard == number);
            ZeroTail::of_file(&shard.path, &shard.bytes, tensors.map(|(info, place)| (info, &place.span)))
        };
        self.shards.iter().enumerate().filter_map(tail).collect()
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

/// The smallest scale of rounded weights, as in transformers.
const LEAST_SCALE: f64 = 1e-5;

/// Whether a tensor is the matrix of a linear layer inside one of the model's layers.
fn is_linear_in_layer(info: &TensorInfo) -> bool {
    let numbers = matches!(info.ty, TensorType::F32 | TensorType::F16 | TensorType::Bf16);
    numbers && info.shape.len() == 2 && info.name.contains("layers.") && info.name.ends_with(".weight")
}

/// The `quantization_config` of a `config.json`, or of the language model in it; the default where there is no such file
/// or key.
fn read_quantization(config: &Path) -> Result<Quantization> {
    let Some(text) = read_text_if_any(config, MAX_CONFIG_BYTES)? else { return Ok(Quantization::default()) };
    let Config { quantization_config, text_config } =
        serde_json::from_str(&text).map_err(|source| SafetensorsError::ConfigJson { source }.in_file(config))?;
    let nested = || text_config?.get("quantization_config").cloned();
    match quantization_config.or_else(nested) {
        Some(value) => Quantization::from_config(&value).map_err(|error| error.in_file(config)),
        None => Ok(Quantization::default()),
    }
}

#[derive(Deserialize)]
struct Config {
    quantization_config: Option<serde_json::Value>,
    text_config: Option<serde_json::Value>,
}
