//! A checkpoint directory of random weights in BF16.

use std::fs;
use std::io::Write;
use std::path::Path;

use gguf_bitnet::{Piece, TensorClass, link_target, require_space, write_atomic};
use moe_runtime::models::ModelTensor;
use tl_kernels::Pool;

use super::model::{OnBytes, SyntheticModel};
use super::shards::{CheckpointTensor, ShardWriter, index_json, shard_name, shards};
use super::weights::RandomTensor;
use crate::error::{Error, Result};

/// Largest shard of a synthetic checkpoint.
const SHARD_BYTES: u64 = 4 << 30;

impl SyntheticModel {
    /// Writes a BF16 checkpoint directory to `out`: `config.json`, shards, their index. Returns the bytes of its tensors.
    ///
    /// # Errors
    /// An existing `out`, or too little disk. A directory that could not be finished is removed.
    pub fn write_checkpoint(&self, pool: &Pool, out: &Path, progress: &mut OnBytes<'_>) -> Result<u64> {
        let out = &link_target(out)?;
        let shards = shards(self.checkpoint_tensors(), SHARD_BYTES);
        let total: u64 = shards.iter().flatten().map(CheckpointTensor::bytes).sum();
        require_space(out, total)?;
        fs::create_dir(out).map_err(Error::io("create", out))?;
        let written = self.write_shards(&shards, pool, out, progress);
        if written.is_err() {
            // An error of the removal would hide the first one.
            let _ = fs::remove_dir_all(out);
        }
        written.map(|()| total)
    }

    fn write_shards(
        &self,
        shards: &[Vec<CheckpointTensor>],
        pool: &Pool,
        out: &Path,
        progress: &mut OnBytes<'_>,
    ) -> Result<()> {
        let total: u64 = shards.iter().flatten().map(CheckpointTensor::bytes).sum();
        let mut done = 0;
        for (i, shard) in shards.iter().enumerate() {
            let mut writer = ShardWriter::create(&out.join(shard_name(i, shards.len())), shard)?;
            for tensor in shard {
                progress(done, total);
                write_tensor(tensor, self.seed, pool, &mut writer)?;
                done += tensor.bytes();
            }
            writer.finish()?;
        }
        if shards.len() > 1 {
            write_atomic(&out.join("model.safetensors.index.json"), index_json(shards).to_string().as_bytes())?;
        }
        write_atomic(&out.join("config.json"), format!("{:#}\n", self.shape.json).as_bytes())?;
        progress(total, total);
        Ok(())
    }

    /// The tensors as a checkpoint names and divides them: experts one by one, the halves of `kv_b` in one tensor.
    fn checkpoint_tensors(&self) -> Vec<CheckpointTensor> {
        let mut tensors: Vec<CheckpointTensor> = Vec::new();
        for ModelTensor { names, layer, shape, .. } in self.tensors() {
            let class = names.class();
            let stored = |expert, shape| CheckpointTensor {
                name: names.checkpoint_name(layer, expert),
                shape,
                class,
                f32: class == TensorClass::RouterBias,
            };
            match names.checkpoint_piece() {
                Piece::HeadKeys => {
                    // Keys lie transposed in the model, [heads, latent, width], and as heads x width rows here.
                    let (heads, latent, width) = (shape[0], shape[1], shape[2]);
                    tensors.push(stored(None, vec![heads * width, latent]));
                }
                Piece::HeadValues => {
                    let name = names.checkpoint_name(layer, None);
                    let fused = tensors.iter_mut().rfind(|tensor| tensor.name == name);
                    fused.expect("the keys of a fused tensor stand before its values").shape[0] += shape[0] * shape[1];
                }
                _ if names.is_per_expert() => {
                    tensors.extend((0..shape[0]).map(|expert| stored(Some(expert), shape[1..].to_vec())));
                }
                _ => tensors.push(stored(None, shape)),
            }
        }
        tensors
    }
}

fn write_tensor(tensor: &CheckpointTensor, seed: u64, pool: &Pool, writer: &mut ShardWriter) -> Result<()> {
    let cols = tensor.shape.last().copied().unwrap_or(1);
    let rows: usize = tensor.shape[..tensor.shape.len() - 1].iter().product();
    let random = RandomTensor::new(seed, &tensor.name, tensor.class, cols);
    let width = if tensor.f32 { 4 } else { 2 };
    // 16 MiB of output at a time.
    let step = ((16 << 20) / (cols * width)).max(1);
    let mut bytes = Vec::new();
    for start in (0..rows).step_by(step) {
        let n = step.min(rows - start);
        bytes.resize(n * cols * width, 0);
        pool.chunks_mut(&mut bytes, cols * width, |row, mut out| {
            let mut values = vec![0.0; cols];
            random.row(start + row, &mut values);
            for value in values {
                let written = if width == 4 {
                    out.write_all(&value.to_le_bytes())
                } else {
                    out.write_all(&half::bf16::from_f32(value).to_le_bytes())
                };
                written.expect("the row has room for all its values");
            }
        });
        writer.write(&bytes)?;
    }
    Ok(())
}
