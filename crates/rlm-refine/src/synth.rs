//! Models of any size with seeded random weights, for work on speed and memory.
//!
//! **Invariant:** the bytes follow from shape, seed and recipe alone; memory is bounded by one unit of work.

mod checkpoint;
mod shape;
mod weights;

use std::fs;
use std::io::Write;
use std::path::Path;

use gguf_bitnet::job::Job;
use gguf_bitnet::{Metadata, Rounding, TensorClass, TensorType, hf_name, require_space, write_atomic};
use moe_runtime::{AttentionConfig, ModelConfig, expected_tensors};
use serde_json::json;
use ternary_core::Packing;
use tl_kernels::Pool;

use crate::encode::{Encoding, encode_rows};
use crate::recipe::Recipe;
use crate::student::{PlannedTensor, Provenance, StudentPlan};
use crate::units::{Unit, Units};
use crate::{Error, Result};

use checkpoint::{CheckpointTensor, ShardWriter, index_json, shard_name, shards};
use weights::RandomTensor;

pub use shape::Shape;

/// Largest shard of a synthetic checkpoint.
const SHARD_BYTES: u64 = 4 << 30;

/// Called with the bytes written so far and in all.
pub type OnBytes<'a> = dyn FnMut(u64, u64) + 'a;

/// Writes a GGUF of `shape` with the types of `recipe` to `out`; resumes like any job.
///
/// # Errors
/// An existing `out` without `force`, too little disk, or a recipe that does not fit the shape.
pub fn write_gguf(
    shape: &Shape,
    recipe: &Recipe,
    seed: u64,
    pool: &Pool,
    out: &Path,
    force: bool,
    progress: &mut OnBytes<'_>,
) -> Result<u64> {
    let tensors = tensors_of(&shape.config);
    let plan = StudentPlan::new(&shape.config, tensors.iter().map(|(n, s)| (&**n, &**s)), recipe)?;
    let units = Units::cut(&plan, None, pool.threads())?;
    let provenance =
        Provenance { name: format!("synthetic {}, seed {seed}", shape.name), source_blake3: None, rounding: None };
    let metadata = plan.metadata(&Metadata::default(), &shape.config, recipe, &provenance)?;
    let mut writer = plan.writer(&metadata)?;
    let total = writer.file_bytes();
    let manifest = json!({
        "job": "synth", "tool_version": env!("CARGO_PKG_VERSION"), "shape": shape.json, "seed": seed,
        "recipe": recipe.describe(), "output_bytes": total,
    });
    let mut job = Job::open(out, &manifest, force)?;
    require_space(out, total.saturating_sub(job.data_len()))?;
    if !job.is_committed() {
        units.write(&mut job, &mut writer, progress, &mut |unit, bytes| {
            random_unit(pool, &plan.tensors[unit.tensor], unit, seed, bytes)?;
            Ok(json!({ "tensor": unit.tensor, "rows": unit.rows.end }))
        })?;
    }
    job.commit(out)?;
    Ok(total)
}

/// Random rows of one tensor in its type: trits directly for ternary types, encoded numbers for the others.
fn random_unit(pool: &Pool, tensor: &PlannedTensor, unit: &Unit, seed: u64, out: &mut Vec<u8>) -> Result<()> {
    let cols = tensor.cols();
    let random = RandomTensor::new(seed, &tensor.name, tensor.class, cols);
    let packing = match tensor.assignment.ty {
        TensorType::Tq2_0 => Packing::Tq2_0,
        TensorType::Tq1_0 => Packing::Tq1_0,
        TensorType::BitnetT158 => Packing::BitnetT158,
        ty => {
            let encoding = Encoding { ty, rounding: Rounding::LeastSquares, cols };
            let rows = |rows: std::ops::Range<usize>, out: &mut [f32]| {
                rows.zip(out.chunks_exact_mut(cols)).for_each(|(row, out)| random.row(row, out));
                Ok(())
            };
            encode_rows(pool, encoding, unit.rows.clone(), &rows, out)?;
            return Ok(());
        }
    };
    let row_bytes = tensor.assignment.ty.row_bytes(cols)?;
    out.clear();
    out.resize(unit.rows.len() * row_bytes, 0);
    pool.chunks_mut(out, row_bytes, |row, bytes| random.ternary_row(unit.rows.start + row, packing, bytes));
    Ok(())
}

/// Writes a BF16 checkpoint directory of `shape`: `config.json`, shards, their index.
///
/// # Errors
/// An existing `out`, or too little disk. A directory that could not be finished is removed.
pub fn write_checkpoint(shape: &Shape, seed: u64, pool: &Pool, out: &Path, progress: &mut OnBytes<'_>) -> Result<u64> {
    let shards = shards(checkpoint_tensors(&shape.config)?, SHARD_BYTES);
    let total: u64 = shards.iter().flatten().map(CheckpointTensor::bytes).sum();
    require_space(out, total)?;
    let io = |action| move |source| Error::Io { action, path: out.display().to_string(), source };
    fs::create_dir(out).map_err(io("create"))?;
    let written = write_shards(shape, &shards, seed, pool, out, total, progress);
    if written.is_err() {
        // The reason counts, not whether the remains could be removed.
        let _ = fs::remove_dir_all(out);
    }
    written.map(|()| total)
}

fn write_shards(
    shape: &Shape,
    shards: &[Vec<CheckpointTensor>],
    seed: u64,
    pool: &Pool,
    out: &Path,
    total: u64,
    progress: &mut OnBytes<'_>,
) -> Result<()> {
    let mut done = 0;
    for (i, shard) in shards.iter().enumerate() {
        let mut writer = ShardWriter::create(&out.join(shard_name(i, shards.len())), shard)?;
        for tensor in shard {
            progress(done, total);
            write_tensor(tensor, seed, pool, &mut writer)?;
            done += tensor.bytes();
        }
        writer.finish()?;
    }
    if shards.len() > 1 {
        write_atomic(&out.join("model.safetensors.index.json"), index_json(shards).to_string().as_bytes())?;
    }
    write_atomic(&out.join("config.json"), format!("{:#}\n", shape.json).as_bytes())?;
    progress(total, total);
    Ok(())
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

/// The canonical tensors of a synthetic model: everything that a file of this shape must have.
fn tensors_of(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let wanted = expected_tensors(config).into_iter().filter(|tensor| !tensor.optional);
    wanted.map(|tensor| (tensor.name, tensor.shape)).collect()
}

/// The same tensors as a checkpoint names and cuts them: experts one by one, the halves of `kv_b` in one.
fn checkpoint_tensors(config: &ModelConfig) -> Result<Vec<CheckpointTensor>> {
    let mut tensors = Vec::new();
    for (name, shape) in tensors_of(config) {
        let class = TensorClass::of(&name);
        let unnamed =
            || Error::Shape { path: name.clone(), reason: "no checkpoint has a tensor of this name".to_owned() };
        let mut push = |expert, shape: &[usize]| -> Result<()> {
            let name = hf_name(&name, expert).ok_or_else(unnamed)?;
            tensors.push(CheckpointTensor {
                name,
                shape: shape.to_vec(),
                class,
                f32: class == TensorClass::RouterBias,
            });
            Ok(())
        };
        match (class, &config.attention) {
            (TensorClass::RoutedExpert, _) => (0..shape[0]).try_for_each(|expert| push(Some(expert), &shape[1..]))?,
            (TensorClass::AttentionKb, &AttentionConfig::Mla { kv_lora, qk_nope, v_head, .. }) => {
                push(None, &[config.n_heads * (qk_nope + v_head), kv_lora])?;
            }
            // The fused tensor stands already.
            (TensorClass::AttentionVb, _) => {}
            _ => push(None, &shape)?,
        }
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use moe_runtime::ModelFiles;

    fn small() -> Shape {
        Shape::open("mini", Some(2)).unwrap()
    }

    #[test]
    fn a_synthetic_checkpoint_is_a_complete_model() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("model");
        write_checkpoint(&small(), 1, &Pool::serial(), &out, &mut |_, _| {}).unwrap();
        let files = ModelFiles::open(&out).unwrap();
        files.report().ensure_exact().unwrap();
        assert_eq!(files.config, small().config);
    }

    #[test]
    fn a_synthetic_gguf_is_a_complete_model_and_depends_on_the_seed_alone() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, seed: u64, threads: usize| {
            let (out, pool) = (dir.path().join(name), Pool::new(threads).unwrap());
            let size = write_gguf(&small(), &Recipe::default(), seed, &pool, &out, false, &mut |_, _| {}).unwrap();
            let bytes = fs::read(&out).unwrap();
            assert_eq!(bytes.len() as u64, size);
            bytes
        };
        let one = write("one.gguf", 1, 1);
        assert_eq!(one, write("two.gguf", 1, 2));
        assert_ne!(one, write("three.gguf", 2, 2));
        let files = ModelFiles::open(&dir.path().join("one.gguf")).unwrap();
        files.report().ensure_exact().unwrap();
        assert_eq!(files.config.n_layers, 2);
    }
}
