//! The shards of a checkpoint in safetensors, written tensor by tensor.
//!
//! ```text
//! shard = header length (u64 LE) | JSON { name: { dtype, shape, data_offsets } } padded with spaces to 8 | data
//! ```
//! Source: the safetensors format description (Hugging Face).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use gguf_bitnet::TensorClass;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// A tensor of a checkpoint to be written.
#[derive(Clone, Debug)]
pub(super) struct CheckpointTensor {
    /// The name in checkpoints.
    pub name: String,
    /// Its dimensions, rows before columns.
    pub shape: Vec<usize>,
    /// Its role in the model.
    pub class: TensorClass,
    /// Whether elements are F32 (the selection bias) instead of BF16.
    pub f32: bool,
}

impl CheckpointTensor {
    /// Its size in the file.
    pub(super) fn bytes(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64 * if self.f32 { 4 } else { 2 }
    }
}

/// Cuts tensors, in order, into shards of at most `limit_bytes` (more when a single tensor is larger).
pub(super) fn shards(tensors: Vec<CheckpointTensor>, limit_bytes: u64) -> Vec<Vec<CheckpointTensor>> {
    let mut shards: Vec<Vec<CheckpointTensor>> = Vec::new();
    let mut room = 0;
    for tensor in tensors {
        let bytes = tensor.bytes();
        match shards.last_mut() {
            Some(shard) if bytes <= room => {
                room -= bytes;
                shard.push(tensor);
            }
            _ => {
                room = limit_bytes.saturating_sub(bytes);
                shards.push(vec![tensor]);
            }
        }
    }
    shards
}

/// The name of shard `index` of `count`, as transformers names them.
pub(super) fn shard_name(index: usize, count: usize) -> String {
    if count == 1 {
        "model.safetensors".to_owned()
    } else {
        format!("model-{:05}-of-{count:05}.safetensors", index + 1)
    }
}

/// The index of a checkpoint: the shard of each tensor.
pub(super) fn index_json(shards: &[Vec<CheckpointTensor>]) -> Value {
    let mut map = Map::new();
    for (i, shard) in shards.iter().enumerate() {
        for tensor in shard {
            map.insert(tensor.name.clone(), shard_name(i, shards.len()).into());
        }
    }
    let total: u64 = shards.iter().flatten().map(CheckpointTensor::bytes).sum();
    json!({ "metadata": { "total_size": total }, "weight_map": map })
}

/// One shard being written; the data of its tensors follows in the order of the header.
#[derive(Debug)]
pub(super) struct ShardWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl ShardWriter {
    /// Creates the shard and writes its header.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn create(path: &Path, tensors: &[CheckpointTensor]) -> Result<Self> {
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!({ "format": "pt" }));
        let mut offset = 0;
        for tensor in tensors {
            let end = offset + tensor.bytes();
            let dtype = if tensor.f32 { "F32" } else { "BF16" };
            let entry = json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [offset, end] });
            header.insert(tensor.name.clone(), entry);
            offset = end;
        }
        let mut header = Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        // The directory is new: another file or a link of this name is not ours.
        let file = File::create_new(path).map_err(Error::io("create", path))?;
        let mut writer = Self { path: path.to_owned(), file: BufWriter::with_capacity(1 << 20, file) };
        writer.write(&(header.len() as u64).to_le_bytes())?;
        writer.write(&header)?;
        Ok(writer)
    }

    /// Appends data.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))
    }

    /// Flushes everything to the disk.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn finish(self) -> Result<()> {
        let Self { path, file } = self;
        let file = file.into_inner().map_err(|e| Error::io("write", &path)(e.into_error()))?;
        file.sync_all().map_err(Error::io("flush", &path))
    }
}
