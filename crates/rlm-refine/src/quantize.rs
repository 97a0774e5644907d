//! Post-training quantisation: a checkpoint goes in, a student comes out, row by row.
//!
//! ```text
//! source (mmap) --rows--> F32 --encode--> bytes --append--> OUT.partial/data --verify--> rename --> OUT
//! ```
//!
//! **Invariant:** the student's bytes follow from the source and the settings in the manifest alone, so a job that was
//! killed at any moment resumes and ends byte-identical, with at most one unit of work redone.
//!
//! **Invariant:** resident memory stays below [`Quantizer::memory_bytes`], mapped pages included.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use gguf_bitnet::job::Job;
use gguf_bitnet::{
    FormatError, GgufFile, GgufWriter, Metadata, Rounding, StoreError, TensorClass, TensorSource, TensorType,
    identity_of, output_path, require_space,
};
use moe_runtime::ModelFiles;
use moe_runtime::gguf_entries;
use serde::Serialize;
use serde_json::{Value, json};
use ternary_core::ErrorSums;
use tl_kernels::Pool;

use crate::encode::{Encoding, encode_rows};
use crate::recipe::Recipe;
use crate::student::{Provenance, StudentPlan, weight_encoding};
use crate::units::{Unit, Units};
use crate::{Error, Result};

/// What to make of a source.
#[derive(Clone, Debug)]
pub struct QuantizeOptions {
    /// Which type each tensor gets.
    pub recipe: Recipe,
    /// How weights become trits.
    pub rounding: Rounding,
    /// Most resident memory; `None` leaves the unit of work at its full size.
    pub max_memory_bytes: Option<u64>,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The source is read once for its BLAKE3.
    Hash,
    /// Tensors are encoded and written.
    Encode,
    /// The written file is read and checked.
    Verify,
}

/// Called with the stage and its bytes, done and in all.
pub type OnProgress<'a> = dyn FnMut(Stage, u64, u64) + 'a;

/// A source, opened and checked, and the plan for its student.
#[derive(Debug)]
pub struct Quantizer<'a> {
    files: &'a ModelFiles,
    options: QuantizeOptions,
    plan: StudentPlan,
    units: Units,
    /// The source's metadata, or what its tokenizer files say.
    base: Metadata,
    name: String,
}

impl<'a> Quantizer<'a> {
    /// Plans the student of an opened source; reads no weights.
    ///
    /// # Errors
    /// A source with missing, unexpected or mis-shaped tensors, a recipe that does not fit it, or too little memory.
    pub fn new(files: &'a ModelFiles, options: QuantizeOptions, n_threads: usize) -> Result<Self> {
        files.report().ensure_exact()?;
        let tensors = files.catalog.tensors().iter().map(|t| (&*t.name, &*t.shape));
        let plan = StudentPlan::new(&files.config, tensors, &options.recipe)?;
        let units = Units::cut(&plan, options.max_memory_bytes, n_threads)?;
        let base = match files.gguf() {
            Some(file) => file.metadata().clone(),
            None => {
                let mut base = Metadata::default();
                let tokenizer = gguf_entries(files.path(), files.config.vocab)?;
                for (key, value) in files.sampling()?.entries().into_iter().chain(tokenizer) {
                    base.insert(key, value);
                }
                base
            }
        };
        let name = base.str("general.name")?.map_or_else(|| model_name(files.path()), str::to_owned);
        Ok(Self { files, options, plan, units, base, name })
    }

    /// The tensors of the student.
    pub fn plan(&self) -> &StudentPlan {
        &self.plan
    }

    /// Upper bound of the resident memory.
    pub fn memory_bytes(&self) -> u64 {
        self.units.memory_bytes
    }

    /// Exact size of the student.
    ///
    /// # Errors
    /// When the plan does not fit the format.
    pub fn output_bytes(&self) -> Result<u64> {
        // A BLAKE3 always has 64 digits, so the header's size is known before the source is read.
        Ok(self.writer(&"0".repeat(64))?.file_bytes())
    }

    fn writer(&self, source_blake3: &str) -> Result<GgufWriter> {
        let provenance = Provenance {
            name: self.name.clone(),
            source_blake3: Some(source_blake3.to_owned()),
            rounding: Some(self.options.rounding),
        };
        let metadata = self.plan.metadata(&self.base, &self.files.config, &self.options.recipe, &provenance)?;
        self.plan.writer(&metadata)
    }

    /// Writes the student to `out`, or goes on where an earlier call with the same source and settings was stopped.
    ///
    /// # Errors
    /// An existing `out` without `force`, too little disk, weights that are not finite (by tensor name), an unfinished
    /// job with other settings, or a written file that is not the planned one. `out` then is as it was before.
    pub fn run(&self, pool: &Pool, out: &Path, force: bool, progress: &mut OnProgress<'_>) -> Result<QuantizeReport> {
        let output_bytes = self.output_bytes()?;
        // What can be refused is refused before the source is read.
        let held_bytes = Job::check(out, force)?;
        self.check_not_source(out)?;
        require_space(out, output_bytes.saturating_sub(held_bytes))?;
        let source = self.files.catalog.source();
        let metadata = self.files.gguf().map(GgufFile::metadata);
        let source_blake3 =
            identity_of(&**source, metadata, &mut |done, total| progress(Stage::Hash, done, total))?.to_string();
        let mut writer = self.writer(&source_blake3)?;
        let mut job = Job::open(out, &self.manifest(&source_blake3, output_bytes), force)?;
        require_space(out, output_bytes.saturating_sub(job.data_len()))?;
        if !job.is_committed() {
            let made = self.encode(pool, &mut job, &mut writer, progress);
            if let Err(error) = made.and_then(|()| self.verify(&job.data_path(), progress)) {
                if !is_refusal_of_the_system(&error) {
                    // The same input would fail again at the same place: there is nothing to resume.
                    job.discard()?;
                }
                return Err(error);
            }
        }
        let report = self.report(&job, output_bytes, source_blake3);
        job.commit(out)?;
        Ok(report)
    }

    /// Nobody means to replace the teacher by its student, whatever `--force` says of other files.
    fn check_not_source(&self, out: &Path) -> Result<()> {
        let out = output_path(out)?;
        let real = |path: &Path| path.canonicalize().ok();
        let beside = real(self.files.dir()).as_deref() == out.parent();
        let name = out.file_name().unwrap_or_default().to_string_lossy();
        let part = match self.files.gguf() {
            Some(file) => file.n_parts() > 1 && name.ends_with(&format!("-of-{:05}.gguf", file.n_parts())),
            None => !name.ends_with(".gguf"),
        };
        if out.exists() && (real(&out) == real(self.files.path()) || beside && part) {
            return Err(Error::OutputIsSource { path: out.display().to_string() });
        }
        Ok(())
    }

    fn manifest(&self, source_blake3: &str, output_bytes: u64) -> Value {
        json!({
            "job": "quantize",
            "tool_version": env!("CARGO_PKG_VERSION"),
            "source_blake3": source_blake3,
            "recipe": self.options.recipe.describe(),
            "method": weight_encoding(self.options.rounding),
            "unit_weights": self.units.unit_weights,
            "output_bytes": output_bytes,
        })
    }

    fn encode(&self, pool: &Pool, job: &mut Job, writer: &mut GgufWriter, progress: &mut OnProgress<'_>) -> Result<()> {
        self.units.write(job, writer, &mut |done, total| progress(Stage::Encode, done, total), &mut |unit, bytes| {
            Ok(payload(unit, &self.encode_unit(pool, unit, bytes)?))
        })
    }

    fn encode_unit(&self, pool: &Pool, unit: &Unit, bytes: &mut Vec<u8>) -> Result<ErrorSums> {
        let catalog = &self.files.catalog;
        let (planned, tensor) = (&self.plan.tensors[unit.tensor], &catalog.tensors()[unit.tensor]);
        let encoding = Encoding { ty: planned.assignment.ty, rounding: self.options.rounding, cols: planned.cols() };
        let read = |rows, out: &mut [f32]| Ok(catalog.read_rows(tensor, rows, out)?);
        let sums = encode_rows(pool, encoding, unit.rows.clone(), &read, bytes);
        catalog.release(tensor);
        sums.map_err(|error| match error {
            // Only the encoder does not know whose rows it is given.
            Error::Gguf(error @ gguf_bitnet::Error::Format(FormatError::NotRepresentable { .. })) => {
                error.in_tensor(&planned.name).in_file(self.files.path()).into()
            }
            error => error,
        })
    }

    /// Reads the written file back: every tensor must be there with the planned shape and type, and free of defects.
    fn verify(&self, path: &Path, progress: &mut OnProgress<'_>) -> Result<()> {
        let not_planned = |defect: String| Err(Error::NotAsPlanned { defect });
        let report = gguf_bitnet::verify(path, &mut |done, total| progress(Stage::Verify, done, total))?;
        if let Some(defect) = report.defects.first() {
            return not_planned(defect.to_string());
        }
        let file = GgufFile::open(path)?;
        if file.tensors().len() != self.plan.tensors.len() {
            return not_planned(format!("{} tensors instead of {}", file.tensors().len(), self.plan.tensors.len()));
        }
        for (written, planned) in file.tensors().iter().zip(&self.plan.tensors) {
            if (written.ty, &written.shape) != (planned.assignment.ty, &planned.shape) {
                let (ty, wanted) = (written.ty, planned.assignment.ty);
                return not_planned(format!("`{}` is {ty} {:?}, not {wanted}", written.name, written.shape));
            }
        }
        Ok(())
    }

    fn report(&self, job: &Job, output_bytes: u64, source_blake3: String) -> QuantizeReport {
        let mut groups: BTreeMap<(TensorClass, TensorType), (ErrorSums, TypeReport)> = BTreeMap::new();
        for planned in &self.plan.tensors {
            let (class, ty) = (planned.class, planned.assignment.ty);
            let (_, line) =
                groups.entry((class, ty)).or_insert_with(|| (ErrorSums::default(), TypeReport::new(class, ty)));
            line.tensors += 1;
            line.params += planned.params();
            line.bytes += ty.tensor_bytes(&planned.shape).unwrap_or(0);
        }
        for unit in job.units() {
            if let Some((tensor, sums)) = read_payload(&unit.payload)
                && let Some(planned) = self.plan.tensors.get(tensor)
                && let Some((total, _)) = groups.get_mut(&(planned.class, planned.assignment.ty))
            {
                total.merge(&sums);
            }
        }
        let types = groups.into_values().map(|(sums, line)| {
            let metrics = sums.metrics();
            TypeReport { relative_mse: metrics.relative_mse, cosine: metrics.cosine, zeros: metrics.sparsity, ..line }
        });
        QuantizeReport { source_blake3, output_bytes, params: self.plan.params(), types: types.collect() }
    }
}

/// Whether the reason lies outside of the models, so that the same command may succeed later.
fn is_refusal_of_the_system(error: &Error) -> bool {
    match error {
        Error::Gguf(error) => matches!(error.root(), gguf_bitnet::Error::Store(StoreError::Io { .. })),
        Error::Io { .. } => true,
        _ => false,
    }
}

/// What a model is called by where it lies: a file without its ending, a directory in full (`GLM-4.7-Flash` has no
/// ending), a snapshot of the Hugging Face cache by the name of its repository.
fn model_name(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let text = |part: Option<&OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let snapshots = path.parent().filter(|parent| parent.file_name() == Some("snapshots".as_ref()));
    let repository = text(snapshots.and_then(Path::parent).and_then(Path::file_name));
    let cached = repository.as_deref().and_then(|name| name.strip_prefix("models--")?.rsplit("--").next());
    let own = if path.is_dir() { path.file_name() } else { path.file_stem() };
    cached.map(str::to_owned).or_else(|| text(own)).unwrap_or_else(|| "model".to_owned())
}

/// What became of a source.
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
}

/// The tensors of one class in one type, and the error of storing them so.
#[derive(Clone, Debug, Serialize)]
pub struct TypeReport {
    /// What the tensors are for.
    pub class: TensorClass,
    /// Their type.
    #[serde(rename = "type")]
    pub ty: TensorType,
    /// How many.
    pub tensors: u64,
    /// Their weights.
    pub params: u64,
    /// Their bytes.
    pub bytes: u64,
    /// `sum (w - v)^2 / sum w^2`.
    pub relative_mse: f64,
    /// Cosine between the weights and what is stored.
    pub cosine: f64,
    /// Share of stored weights that are zero.
    pub zeros: f64,
}

impl TypeReport {
    fn new(class: TensorClass, ty: TensorType) -> Self {
        Self { class, ty, tensors: 0, params: 0, bytes: 0, relative_mse: 0.0, cosine: 1.0, zeros: 0.0 }
    }
}

/// A unit's line in the journal; sums as bits, so that a resumed job reports the same figures.
fn payload(unit: &Unit, sums: &ErrorSums) -> Value {
    let bits = [sums.error2, sums.weight2, sums.value2, sums.product].map(f64::to_bits);
    json!({ "tensor": unit.tensor, "rows": unit.rows.end, "n": sums.n, "zeros": sums.zeros, "sums": bits })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_called_by_where_they_lie() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = dir.path().join("hub/models--zai-org--GLM-4.7-Flash/snapshots/0123abcd");
        std::fs::create_dir_all(&snapshot).unwrap();
        assert_eq!(model_name(&snapshot), "GLM-4.7-Flash");
        let plain = dir.path().join("GLM-4.7-Flash");
        std::fs::create_dir(&plain).unwrap();
        assert_eq!(model_name(&plain), "GLM-4.7-Flash");
        assert_eq!(model_name(&dir.path().join("Craftsman-v1.0-TQ2_0.gguf")), "Craftsman-v1.0-TQ2_0");
    }
}
