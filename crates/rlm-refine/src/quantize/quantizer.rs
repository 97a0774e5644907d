//! A source, opened and checked, and the job that makes its student.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::Path;

use gguf_bitnet::{
    Defect, GgufFile, GgufWriter, Job, Metadata, StoreError, TensorSource, VerifyReport, output_path, require_space,
    verify_source,
};
use moe_runtime::{ModelFiles, Tokenizer};
use serde_json::{Value, json};
use ternary_core::{ErrorSums, Rounding};
use tl_kernels::Pool;

use super::name::model_name;
use super::report::{QuantizeReport, payload};
use super::stage::{OnProgress, Stage};
use crate::encode::{Encoding, Rows, copy_rows, encode_rows};
use crate::error::{Error, Result};
use crate::precision::{Candidates, PrecisionOptions, PrecisionTable, Weights, measure};
use crate::ptq::{Calibration, CalibrationSetting, Calibrator, GptqOptions, PtqError, Rounds, SourceReport};
use crate::recipe::Recipe;
use crate::student::{Provenance, StudentPlan, Unit, Units};

/// How weights become trits.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one per job")]
pub enum Method {
    /// Block by block, by the weights alone.
    Round(Rounding),
    /// Layer by layer, on the activations of calibration texts.
    Gptq(GptqOptions),
}

impl Method {
    /// The rounding of tensors that are not calibrated.
    fn rounding(&self) -> Rounding {
        match self {
            Method::Round(rounding) => *rounding,
            Method::Gptq(_) => Rounding::LeastSquares,
        }
    }

    /// The name in metadata and manifests.
    fn encoding(&self) -> &'static str {
        match self {
            Method::Round(Rounding::AbsMean) => "absmean_ternary",
            Method::Round(Rounding::LeastSquares) => "ls_ternary",
            Method::Gptq(_) => "gptq_ternary",
        }
    }

    pub(super) fn gptq(&self) -> Option<&GptqOptions> {
        match self {
            Method::Round(_) => None,
            Method::Gptq(options) => Some(options),
        }
    }
}

/// Stands for a BLAKE3 that is not known yet: each has 64 digits, so the size of the header is known before the source is read.
const NO_BLAKE3: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The settings of a job.
#[derive(Clone, Debug)]
pub struct QuantizeOptions {
    /// The type of each tensor.
    pub recipe: Recipe,
    /// How weights become trits.
    pub method: Method,
    /// Most resident memory; `None` leaves the unit of work at its full size.
    pub max_memory_bytes: Option<u64>,
    /// Whether a source may lack weights: matrices of zeros, holes, or a file whose end was never written.
    pub allow_zero: bool,
}

impl QuantizeOptions {
    /// Memory of the calibration.
    fn calibration_bytes(&self, files: &ModelFiles, plan: &StudentPlan, n_threads: usize) -> u64 {
        let gptq = self.method.gptq();
        gptq.map_or(0, |gptq| crate::ptq::memory_bytes(files, plan, gptq.calibration.tokens(), n_threads))
    }

    /// The units of a plan, within the memory that a calibration leaves.
    fn units(&self, plan: &StudentPlan, calibration_bytes: u64, n_threads: usize) -> Result<Units> {
        let limit = match self.max_memory_bytes {
            Some(limit) if limit < calibration_bytes => {
                return Err(PtqError::Memory { limit, needed: calibration_bytes }.into());
            }
            limit => limit.map(|limit| limit - calibration_bytes),
        };
        Units::cut(plan, limit, n_threads)
    }
}

/// A source, opened and checked, and the plan for its student.
#[derive(Debug)]
pub struct Quantizer<'a> {
    pub(super) files: &'a ModelFiles,
    pub(super) options: QuantizeOptions,
    n_threads: usize,
    plan: StudentPlan,
    pub(super) units: Units,
    /// Memory of the calibration, or of the search if it needs more, beyond that of the units.
    calibration_bytes: u64,
    /// The search that chose the types, and its texts.
    search: Option<(PrecisionTable, Calibration)>,
    /// The source's metadata, or that of its tokenizer files.
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
        let plan = StudentPlan::of_source(files, &options.recipe)?;
        let calibration_bytes = options.calibration_bytes(files, &plan, n_threads);
        let units = options.units(&plan, calibration_bytes, n_threads)?;
        let base = match files.gguf() {
            Some(file) => file.metadata().clone(),
            None => {
                let mut base = Metadata::default();
                let tokenizer = Tokenizer::gguf_entries(files.path(), files.config.vocab)?;
                for (key, value) in files.sampling()?.entries().into_iter().chain(tokenizer) {
                    base.insert(key, value);
                }
                base
            }
        };
        let name = base.str("general.name")?.map_or_else(|| model_name(files.path()), str::to_owned);
        Ok(Self { files, options, n_threads, plan, units, calibration_bytes, search: None, base, name })
    }

    /// The tensors of the student.
    pub fn plan(&self) -> &StudentPlan {
        &self.plan
    }

    /// The texts that the student is calibrated on.
    pub fn calibration(&self) -> &[SourceReport] {
        self.options.method.gptq().map_or(&[], |options| &options.calibration.sources)
    }

    /// Upper bound of the resident memory.
    pub fn memory_bytes(&self) -> u64 {
        self.units.memory_bytes.saturating_add(self.calibration_bytes)
    }

    /// Exact size of the student.
    ///
    /// # Errors
    /// When the plan does not fit the format.
    pub fn output_bytes(&self) -> Result<u64> {
        Ok(self.writer(NO_BLAKE3)?.file_bytes())
    }

    /// The search that chose the types.
    pub fn precision(&self) -> Option<&PrecisionTable> {
        self.search.as_ref().map(|(table, _)| table)
    }

    /// Chooses the type of each class of tensors in place of the preset: of all choices whose student has at most the target's
    /// size, the one of least error on the calibration's texts. Overrides stay.
    ///
    /// # Errors
    /// A target below the smallest student, too little memory, tokens that the model does not know, weights that are missing or
    /// not finite.
    pub fn fit(&mut self, pool: &Pool, target: PrecisionOptions, progress: &mut OnProgress<'_>) -> Result<()> {
        let files = self.files;
        if !self.options.allow_zero {
            files.weightless()?.refuse(files.path())?;
        }
        let PrecisionOptions { target_bytes, calibration, max_tokens } = target;
        let windows = calibration.sample(max_tokens);
        let tokens = windows.iter().map(Vec::len).sum();
        let search_bytes = crate::precision::memory_bytes(files, &windows);
        self.options.units(&self.plan, search_bytes, self.n_threads)?;
        let mut candidates = Candidates::new(files, &self.options.recipe, target_bytes, tokens)?;
        let file_bytes = |recipe: &Recipe, table: &PrecisionTable| {
            let plan = StudentPlan::of_source(files, recipe)?;
            Ok(self.layout(&plan, recipe, Some((table, &calibration)), NO_BLAKE3)?.file_bytes())
        };
        candidates.ensure_possible(&file_bytes)?;
        let weights = Weights { files, pool, rounding: self.options.method.rounding() };
        measure(weights, &windows, &mut candidates, &mut |done, total| progress(Stage::Measure, done, total))?;
        let recipe = candidates.choose(&file_bytes)?;
        self.plan = StudentPlan::of_source(files, &recipe)?;
        self.options.recipe = recipe;
        self.calibration_bytes = search_bytes.max(self.options.calibration_bytes(files, &self.plan, self.n_threads));
        self.units = self.options.units(&self.plan, self.calibration_bytes, self.n_threads)?;
        self.search = Some((candidates.table, calibration));
        Ok(())
    }

    pub(super) fn writer(&self, source_blake3: &str) -> Result<GgufWriter> {
        let search = self.search.as_ref().map(|(table, calibration)| (table, calibration));
        self.layout(&self.plan, &self.options.recipe, search, source_blake3)
    }

    /// The file of a plan.
    fn layout(
        &self,
        plan: &StudentPlan,
        recipe: &Recipe,
        search: Option<(&PrecisionTable, &Calibration)>,
        source_blake3: &str,
    ) -> Result<GgufWriter> {
        let calibration = self.options.method.gptq().map(|options| &options.calibration);
        let provenance = Provenance {
            name: self.name.clone(),
            source_blake3: Some(source_blake3.to_owned()),
            encoding: Some(self.options.method.encoding()),
            calibration: calibration.or(search.map(|(_, calibration)| calibration)),
            precision: search.map(|(table, _)| table),
        };
        plan.writer(&plan.metadata(&self.base, &self.files.config, recipe, &provenance)?)
    }

    /// Writes the student to `out`, or continues an earlier call with the same source and settings that was stopped.
    ///
    /// # Errors
    /// An existing `out` without `force`, too little disk, weights that are missing or not finite (by tensor name), an unfinished
    /// job with other settings, or a written file that is not the planned one. `out` then is as it was before.
    pub fn run(&self, pool: &Pool, out: &Path, force: bool, progress: &mut OnProgress<'_>) -> Result<QuantizeReport> {
        let output_bytes = self.output_bytes()?;
        // Everything that can be refused without the source's bytes is refused before they are read.
        let held_bytes = self.check_out(out, force)?;
        self.check_policies(out)?;
        require_space(out, (output_bytes + self.state_bytes()).saturating_sub(held_bytes))?;
        let source = self.files.catalog.source();
        let metadata = self.files.gguf().map(GgufFile::metadata);
        if !self.options.allow_zero {
            self.files.weightless()?.refuse(self.files.path())?;
        }
        let read = verify_source(&**source, metadata, &mut |done, total| progress(Stage::Hash, done, total))?;
        let notices = self.missing_weights(&read)?;
        let source_blake3 = read.identity;
        let mut writer = self.writer(&source_blake3)?;
        let gptq = self.options.method.gptq();
        gptq.map_or(Ok(()), |options| options.calibration.ensure_of_model(&source_blake3))?;
        let mut job = Job::open(out, &self.manifest(&source_blake3, output_bytes), force)?;
        require_space(out, output_bytes.saturating_sub(job.data_len()))?;
        if !job.is_committed() {
            let made = self.encode(pool, &mut job, &mut writer, &source_blake3, force, progress);
            if let Err(error) = made.and_then(|()| self.verify(&job.data_path(), progress)) {
                if !is_system_refusal(&error) {
                    // The same input would fail again at the same place: nothing can be resumed.
                    job.discard()?;
                }
                return Err(error);
            }
        }
        let precision = self.precision().cloned();
        let report =
            QuantizeReport { notices, precision, ..QuantizeReport::of(&job, &self.plan, output_bytes, source_blake3) };
        if let (Some(options), false) = (gptq, job.is_committed()) {
            options.store(&report.source_blake3, &report.layers)?;
        }
        job.commit(out)?;
        Ok(report)
    }

    /// The findings about missing weights among the tensors that the student is made of.
    ///
    /// # Errors
    /// The first of them, unless they are allowed.
    pub(super) fn missing_weights(&self, read: &VerifyReport) -> Result<Vec<String>> {
        let catalog = &self.files.catalog;
        let unused: HashSet<&String> = catalog.skipped().iter().chain(catalog.unmapped()).collect();
        let used = |defect: &&Defect| !unused.contains(&defect.tensor);
        let missing: Vec<&Defect> = read.defects.iter().filter(|defect| defect.kind.is_zero()).filter(used).collect();
        if let (Some(first), false) = (missing.first(), self.options.allow_zero) {
            let path = self.files.path().display().to_string();
            return Err(Error::SourceWithoutWeights { path, defect: first.to_string() });
        }
        let tails = read.zero_tails.iter().map(|tail| format!("{}: {tail}", tail.path.display()));
        Ok(tails.chain(missing.into_iter().chain(read.notices.iter().filter(used)).map(Defect::to_string)).collect())
    }

    /// Checks that `out` may be written, before any work is done; returns the bytes that an earlier call left there.
    ///
    /// # Errors
    /// An existing `out` without `force`, or one that belongs to the source, with `force` too: the teacher would be lost.
    pub fn check_out(&self, out: &Path, force: bool) -> Result<u64> {
        let held_bytes = Job::check(out, force)?;
        if self.files.holds(out) {
            return Err(Error::OutputIsSource { path: output_path(out)?.display().to_string() });
        }
        Ok(held_bytes)
    }

    /// Refuses a policy store that is the output or belongs to the source.
    fn check_policies(&self, out: &Path) -> Result<()> {
        match self.options.method.gptq().and_then(|options| options.policies.as_deref()) {
            Some(path) if self.files.holds(path) || output_path(path)? == output_path(out)? => {
                Err(Error::PoliciesAreModel { path: path.display().to_string() })
            }
            _ => Ok(()),
        }
    }

    /// Disk that the streams of a calibration take beside the output: three files at most.
    pub(super) fn state_bytes(&self) -> u64 {
        let tokens = self.options.method.gptq().map_or(0, |options| options.calibration.tokens());
        3 * 8 * (tokens as u64).saturating_mul(self.files.config.hidden as u64)
    }

    pub(super) fn manifest(&self, source_blake3: &str, output_bytes: u64) -> Value {
        let mut manifest = json!({
            "job": "quantize",
            "tool_version": env!("CARGO_PKG_VERSION"),
            "source_blake3": source_blake3,
            "recipe": self.options.recipe.describe(),
            "method": self.options.method.encoding(),
            "unit_weights": self.units.unit_weights,
            "output_bytes": output_bytes,
        });
        if let Some(options) = self.options.method.gptq() {
            manifest["gptq"] = options.describe();
        }
        if self.files.config.reads_mtp {
            manifest["mtp"] = json!(true);
        }
        if let Some((table, calibration)) = &self.search {
            manifest["precision"] = json!({ "table": table, "calibration_blake3": calibration.blake3 });
        }
        manifest
    }

    fn encode(
        &self,
        pool: &Pool,
        job: &mut Job,
        writer: &mut GgufWriter,
        source_blake3: &str,
        force: bool,
        progress: &mut OnProgress<'_>,
    ) -> Result<()> {
        let progress = RefCell::new(progress);
        let report = |stage, done, total| (progress.borrow_mut())(stage, done, total);
        let states = job.states();
        let options = self.options.method.gptq();
        options.map_or(Ok(()), |options| options.calibration.keep(self.files, source_blake3, &states))?;
        let known = options.map(|options| options.known(source_blake3, &states(0))).transpose()?.unwrap_or_default();
        let rounds = options.and_then(|options| options.rounds.as_deref());
        let model = rounds.map(|_| self.model_sample()).transpose()?;
        let rounds = rounds.zip(model).map(|(dir, model)| Rounds::read(dir, self.round_settings(&model)));
        let setting = options.map(|options| CalibrationSetting {
            files: self.files,
            plan: &self.plan,
            options,
            known: &known,
            pool,
            force,
            rounds: rounds.as_ref(),
        });
        let mut calibrator = setting.map(|setting| Calibrator::new(setting, &states));
        self.units.write(job, writer, &mut |done, total| report(Stage::Encode, done, total), &mut |unit, bytes| {
            let Some(calibrator) = &mut calibrator else {
                return Ok(payload(unit, &self.fill_unit(pool, unit, None, bytes)?, None));
            };
            let made = calibrator.tensor(unit.tensor, &mut |done, total| report(Stage::Calibrate, done, total))?;
            let sums = self.fill_unit(pool, unit, made, bytes)?;
            Ok(payload(unit, &sums, calibrator.take_report()))
        })
    }

    /// The bytes of a unit: rows of `made`, where the bytes of its tensor were made before, else encoded.
    pub(super) fn fill_unit(
        &self,
        pool: &Pool,
        unit: &Unit,
        made: Option<&[u8]>,
        bytes: &mut Vec<u8>,
    ) -> Result<ErrorSums> {
        let catalog = &self.files.catalog;
        let (planned, tensor) = (&self.plan.tensors[unit.tensor], &catalog.tensors()[unit.tensor]);
        let rounding = self.options.method.rounding();
        let encoding = Encoding { ty: planned.assignment.ty, rounding, cols: planned.cols() };
        let read = |rows, out: &mut [f32]| Ok(catalog.read_rows(tensor, rows, out)?);
        let rows = Rows { numbers: unit.rows.clone(), read: &read };
        let sums = match made {
            Some(made) => copy_rows(pool, encoding, rows, made, bytes),
            None => encode_rows(pool, encoding, rows, bytes),
        };
        catalog.release(tensor);
        sums.map_err(|error| error.of_tensor(&planned.name, self.files.path()))
    }

    /// Reads the written file back: every tensor must be there with the planned shape and type, and free of defects.
    fn verify(&self, path: &Path, progress: &mut OnProgress<'_>) -> Result<()> {
        let not_planned = |defect: String| Err(Error::NotAsPlanned { defect });
        let report = gguf_bitnet::verify(path, &mut |done, total| progress(Stage::Verify, done, total))?;
        let report = if self.options.allow_zero { report.allow_zero() } else { report };
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
}

/// Whether the operating system or a limit refused, so that the same command may succeed later.
fn is_system_refusal(error: &Error) -> bool {
    match error {
        Error::Gguf(error) => {
            matches!(error.root(), gguf_bitnet::Error::Store(StoreError::Io { .. } | StoreError::Part(_)))
        }
        Error::Io { .. } => true,
        // `--force` continues from the layers that are made.
        Error::Ptq(PtqError::Drift { .. }) => true,
        // Once the missing or the right parts are in the folder, the same command goes on.
        Error::Ptq(PtqError::MissingParts { .. } | PtqError::OtherRounds { .. }) => true,
        _ => false,
    }
}
