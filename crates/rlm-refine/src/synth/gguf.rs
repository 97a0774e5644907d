//! A GGUF of random weights.

use std::path::Path;

use gguf_bitnet::{Job, Metadata, Value, require_space};
use moe_runtime::Tokenizer;
use serde_json::json;
use ternary_core::Rounding;
use tl_kernels::Pool;

use super::model::{OnBytes, SyntheticModel};
use super::weights::RandomTensor;
use crate::encode::{Encoding, Rows, encode_rows};
use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::student::{PlannedTensor, Provenance, StudentPlan, Unit, Units};

impl SyntheticModel {
    /// Writes a GGUF with the types of `recipe` to `out`, and returns its size; resumes like any job.
    ///
    /// # Errors
    /// An existing `out` without `force`, too little disk, or a recipe that does not fit the shape.
    pub fn write_gguf(
        &self,
        recipe: &Recipe,
        pool: &Pool,
        out: &Path,
        force: bool,
        progress: &mut OnBytes<'_>,
    ) -> Result<u64> {
        let SyntheticModel { shape, seed, tokenizer } = self;
        let tensors: Vec<_> = self.tensors().map(|tensor| (tensor.name(), tensor.shape)).collect();
        let plan = StudentPlan::new(&shape.config, tensors.iter().map(|(n, s)| (&**n, &**s)), recipe)?;
        let units = Units::cut(&plan, None, pool.threads())?;
        let provenance = Provenance {
            name: format!("synthetic {}, seed {seed}", shape.name),
            source_blake3: None,
            encoding: None,
            calibration: None,
            precision: None,
        };
        let mut metadata = plan.metadata(&Metadata::default(), &shape.config, recipe, &provenance)?;
        for (key, value) in words(tokenizer.as_deref(), shape.config.vocab)? {
            metadata.insert(key, value);
        }
        let mut writer = plan.writer(&metadata)?;
        let total = writer.file_bytes();
        let manifest = json!({
            "job": "synth", "tool_version": env!("CARGO_PKG_VERSION"), "shape": shape.json, "seed": seed,
            "recipe": recipe.describe(), "output_bytes": total,
            "header_blake3": blake3::hash(writer.header()).to_hex().as_str(),
        });
        let mut job = Job::open(out, &manifest, force)?;
        require_space(out, total.saturating_sub(job.data_len()))?;
        if !job.is_committed() {
            units.write(&mut job, &mut writer, progress, &mut |unit, bytes| {
                random_unit(pool, &plan.tensors[unit.tensor], unit, *seed, bytes)?;
                Ok(json!({ "tensor": unit.tensor, "rows": unit.rows.end }))
            })?;
        }
        job.commit(out)?;
        Ok(total)
    }
}

/// The keys of the tokenizer in `dir` for `vocab` ids.
fn words(dir: Option<&Path>, vocab: usize) -> Result<Vec<(String, Value)>> {
    let Some(dir) = dir else {
        // Programs of llama.cpp refuse a file that does not say that it has no words.
        return Ok(vec![("tokenizer.ggml.model".to_owned(), "no_vocab".into())]);
    };
    let entries = Tokenizer::gguf_entries(dir, vocab)?;
    // A folder without a vocabulary may still have a chat template.
    match entries.iter().any(|(key, _)| key == "tokenizer.ggml.model") {
        true => Ok(entries),
        false => Err(Error::NoTokenizer { path: dir.display().to_string() }),
    }
}

/// Random rows of one tensor in its type: trits directly for ternary types, encoded numbers for the others.
fn random_unit(pool: &Pool, tensor: &PlannedTensor, unit: &Unit, seed: u64, out: &mut Vec<u8>) -> Result<()> {
    let cols = tensor.cols();
    let random = RandomTensor::new(seed, &tensor.name, tensor.class, cols);
    let ty = tensor.assignment.ty;
    let Some(packing) = ty.packing() else {
        let encoding = Encoding { ty, rounding: Rounding::LeastSquares, cols };
        let rows = |rows: std::ops::Range<usize>, out: &mut [f32]| {
            rows.zip(out.chunks_exact_mut(cols)).for_each(|(row, out)| random.row(row, out));
            Ok(())
        };
        encode_rows(pool, encoding, Rows { numbers: unit.rows.clone(), read: &rows }, out)?;
        return Ok(());
    };
    let row_bytes = ty.row_bytes(cols)?;
    out.clear();
    out.resize(unit.rows.len() * row_bytes, 0);
    pool.chunks_mut(out, row_bytes, |row, bytes| random.ternary_row(unit.rows.start + row, packing, bytes));
    Ok(())
}
