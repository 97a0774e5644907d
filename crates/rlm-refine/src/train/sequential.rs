//! `SequentialExpertDistiller`: the routed experts of a student learn one after the other what the teacher's compute.
//!
//! ```text
//! windows ──► both models, layer by layer ──► inputs and routes of a layer ──► each of its experts by itself: expert.rs
//!
//! unit 0       the header
//! unit 1       the tensors in front of the first experts
//! unit 2, ...  the experts of one layer, and the tensors behind them up to those of the next one
//! ```
//! Inputs are recorded on the student as it is, so no expert depends on another one: those of a layer are trained side by side, and
//! layers on several machines.
//!
//! **Invariant:** the bytes of a unit follow from both models, the windows and the settings, whatever the number of threads.

use std::ops::{ControlFlow, Range};
use std::path::Path;

use gguf_bitnet::{Cut, GgufFile, GgufWriter, Job, Shard, TensorSource, UnitJob, UnitResult, require_space};
use moe_runtime::ModelFiles;
use serde::Serialize;
use serde_json::json;
use tl_kernels::Pool;

use super::error::TrainError;
use super::expert::{DistilledExpert, ExpertBytes, ExpertTask, SequentialOptions};
use super::model::{Pass, TrainModel};
use super::origin::refined_metadata;
use super::outputs::{LayerOutputs, for_each_layer};
use super::parts::experts::route;
use super::repair::normed;
use super::source::Source;
use super::weights::EXPERT_PARTS;
use super::windows::split;
use crate::error::{Error, Result};
use crate::pair::ensure_pair;
use crate::ptq::{Calibration, inverse_square_lengths, is_held_out, layer_of};

/// The name of the job in manifests.
pub const EXPERTS_JOB: &str = "distill-experts";

/// The news of a job.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SequentialProgress {
    /// Bytes of both models read, and in all.
    Hash(u64, u64),
    /// An expert is done.
    Expert(DistilledExpert),
}

/// The outcome of a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SequentialReport {
    /// The experts that this call trained, in the order of layers and experts.
    pub experts: Vec<DistilledExpert>,
    /// Size of the student, or of what a part has of it.
    pub output_bytes: u64,
}

/// A student, its teacher and the texts for a distillation of the experts, one after the other.
#[derive(Debug)]
pub struct SequentialExpertDistiller<'a> {
    student: &'a ModelFiles,
    teacher: &'a ModelFiles,
    calibration: &'a Calibration,
    options: SequentialOptions,
    pool: &'a Pool,
}

/// Tensors of the file that are one unit, and the layer whose experts are among them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    tensors: Range<usize>,
    layer: Option<usize>,
}

impl<'a> SequentialExpertDistiller<'a> {
    /// A job on opened models; reads no weights.
    #[must_use]
    pub fn new(
        student: &'a ModelFiles,
        teacher: &'a ModelFiles,
        calibration: &'a Calibration,
        options: SequentialOptions,
        pool: &'a Pool,
    ) -> Self {
        Self { student, teacher, calibration, options, pool }
    }

    /// Writes the student with trained experts to `out`, or the units of `shard` as a part, or continues an earlier call that was
    /// stopped. The event `ExpertDistilled` has the outcome of each expert.
    ///
    /// # Errors
    /// An existing `out` without `force`, an `out` that belongs to a model, models that do not fit each other, a student without
    /// ternary experts, a number that is not finite, too little disk.
    pub fn run(
        &self,
        out: &Path,
        shard: Option<Shard>,
        force: bool,
        progress: &mut dyn FnMut(SequentialProgress),
    ) -> Result<SequentialReport> {
        Job::check(out, force)?;
        if self.student.holds(out) || self.teacher.holds(out) {
            return Err(Error::OutputIsSource { path: out.display().to_string() });
        }
        ensure_pair(self.teacher, self.student)?;
        let file = self.file()?;
        let runs = self.runs(file)?;
        let settings = json!({ "sequential": self.options });
        let source = Source::Texts { teacher: self.teacher, calibration: self.calibration };
        let hash = &mut |done, total| progress(SequentialProgress::Hash(done, total));
        let identities = source.identities(self.student, hash)?;
        let metadata = refined_metadata(file, &source, identities.each_ref().map(String::as_str), &settings, true)?;
        let mut writer = GgufWriter::new(&metadata, file.tensors().to_vec())?;
        let [student, teacher] = identities;
        let manifest = json!({
            "job": EXPERTS_JOB,
            "tool_version": env!("CARGO_PKG_VERSION"),
            "student_blake3": student,
            "teacher_blake3": teacher,
            "calibration_blake3": self.calibration.blake3,
            "settings": settings,
        });
        let mut job = UnitJob::open(out, &manifest, Cut { units: runs.len() + 1, shard }, force)?;
        let held = job.data_path().and_then(|path| std::fs::metadata(path).ok()).map_or(0, |data| data.len());
        let share = writer.file_bytes() / shard.unwrap_or(Shard::WHOLE).of() as u64;
        require_space(out, share.saturating_sub(held))?;
        let mut units = Units { distiller: self, file, runs: &runs, writer: &mut writer, job: &mut job };
        let experts = units.fill(progress)?;
        if let (None, Some(data)) = (shard, job.data_path()) {
            let report = gguf_bitnet::verify(&data, &mut |_, _| {})?;
            if let Some(defect) = report.defects.first() {
                return Err(Error::NotAsPlanned { defect: defect.to_string() });
            }
        }
        job.finish()?;
        Ok(SequentialReport { experts, output_bytes: share })
    }

    fn file(&self) -> Result<&'a GgufFile> {
        let file = self.student.gguf().filter(|file| file.n_parts() == 1);
        Ok(file.ok_or_else(|| self.unusable())?)
    }

    fn unusable(&self) -> TrainError {
        TrainError::NoStudent { path: self.student.path().display().to_string() }
    }

    /// The units behind the header, in the order of the file.
    fn runs(&self, file: &GgufFile) -> Result<Vec<Run>> {
        // Experts of the block of multi-token prediction lie behind these layers and stay as they are.
        let n_layers = self.student.config.n_layers;
        let layers: Vec<Option<usize>> = file
            .tensors()
            .iter()
            .map(|info| {
                let layer = layer_of(&info.name).filter(|layer| *layer < n_layers);
                layer.filter(|_| info.name.contains("_exps.") && info.ty.is_ternary())
            })
            .collect();
        if layers.iter().all(Option::is_none) {
            return Err(TrainError::NothingToTrain { groups: "trits".to_owned() }.into());
        }
        let (mut runs, mut start): (Vec<Run>, usize) = (Vec::new(), 0);
        while start < layers.len() {
            let layer = layers[start];
            let is_of_next = |at: &usize| layers[*at].is_some() && layers[*at] != layer;
            let end = (start..layers.len()).find(is_of_next).unwrap_or(layers.len());
            runs.push(Run { tensors: start..end, layer });
            start = end;
        }
        // Layers are computed once each, in ascending order.
        if !runs.windows(2).all(|pair| pair[0].layer < pair[1].layer) {
            return Err(self.unusable().into());
        }
        Ok(runs)
    }

    /// Trains the experts of a layer, each on one thread.
    fn experts(
        &self,
        [student, teacher]: [&TrainModel<'_>; 2],
        outputs: &LayerOutputs,
    ) -> Result<Vec<(DistilledExpert, ExpertBytes)>> {
        let Some(moe) = &self.student.config.moe else { return Ok(Vec::new()) };
        let LayerOutputs { layer, mid, output } = outputs;
        let (layer, hidden) = (*layer, self.student.config.hidden);
        let rows = [normed(student, layer, &mid[0])?, normed(teacher, layer, &mid[1])?];
        let pass = Pass::new(self.student, &[])?;
        let decision = route(student.context(&pass, layer), moe, &rows[0])?.decision;
        let behind: Vec<f32> = mid[1].iter().zip(&output[1]).map(|(mid, output)| mid + output).collect();
        let weights = inverse_square_lengths(&behind, hidden);
        let mut tokens = vec![[const { Vec::new() }; 2]; moe.router.n_experts];
        for (slot, (&expert, &gate)) in decision.ids.iter().zip(&decision.weights).enumerate() {
            let token = slot / decision.top_k;
            tokens[expert as usize][usize::from(is_held_out(token))].push((token, gate * gate * weights[token]));
        }
        let n_windows = split(self.calibration.windows())[0].len();
        let share = self.options.windows_per_step as f64 / n_windows.max(1) as f64;
        let mut tasks: Vec<(ExpertTask<'_>, Option<Result<_>>)> = tokens
            .into_iter()
            .enumerate()
            .map(|(expert, tokens)| {
                let rows = [&rows[0][..], &rows[1]];
                let (student, options) = (self.student, &self.options);
                (ExpertTask { student, teacher, layer, expert, rows, tokens, share, options }, None)
            })
            .collect();
        self.pool.chunks_mut(&mut tasks, 1, |_, task| task[0].1 = Some(task[0].0.run()));
        tasks.into_iter().filter_map(|(_, done)| done).collect()
    }
}

/// The units of a job that are to be written.
struct Units<'u, 'a> {
    distiller: &'u SequentialExpertDistiller<'a>,
    file: &'u GgufFile,
    runs: &'u [Run],
    writer: &'u mut GgufWriter,
    job: &'u mut UnitJob,
}

impl Units<'_, '_> {
    /// Appends all units that the job lacks.
    fn fill(&mut self, progress: &mut dyn FnMut(SequentialProgress)) -> Result<Vec<DistilledExpert>> {
        let SequentialExpertDistiller { student, teacher, calibration, pool, .. } = *self.distiller;
        let mut distilled = Vec::new();
        self.copy()?;
        if self.job.next_unit().is_none() {
            return Ok(distilled);
        }
        let models = [TrainModel::new(student, &[], pool)?, TrainModel::new(teacher, &[], pool)?];
        let models = models.each_ref();
        let [windows, _] = split(calibration.windows());
        for_each_layer(models, &windows, &mut |outputs| {
            if self.next_run().is_some_and(|run| run.layer == Some(outputs.layer)) {
                let (experts, bytes): (Vec<_>, Vec<_>) = self.distiller.experts(models, &outputs)?.into_iter().unzip();
                self.append(outputs.layer, &bytes)?;
                for expert in experts {
                    announce(&expert);
                    progress(SequentialProgress::Expert(expert.clone()));
                    distilled.push(expert);
                }
                self.copy()?;
            }
            // The layers behind the last unit of a shard are not computed.
            Ok(if self.job.next_unit().is_some() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        // A unit that no layer reached would be missing in the file.
        if self.job.next_unit().is_some() {
            return Err(self.distiller.unusable().into());
        }
        Ok(distilled)
    }

    /// The tensors of the next unit; `None` where it is the header, or where all are done.
    fn next_run(&self) -> Option<&Run> {
        self.job.next_unit()?.checked_sub(1).map(|index| &self.runs[index])
    }

    /// Appends the header and tensors as the file has them, up to the experts of a layer.
    fn copy(&mut self) -> Result<()> {
        while self.job.next_unit().is_some() {
            let bytes = match self.next_run().cloned() {
                None => self.writer.header().to_vec(),
                Some(Run { layer: Some(_), .. }) => return Ok(()),
                Some(Run { tensors, .. }) => self.bytes(tensors, &|_, _| {})?,
            };
            self.job.append(&UnitResult { bytes, ..UnitResult::default() })?;
        }
        Ok(())
    }

    /// Appends the tensors of a layer with the bytes of its experts.
    fn append(&mut self, layer: usize, experts: &[ExpertBytes]) -> Result<()> {
        let Some(Run { tensors, .. }) = self.next_run().cloned() else { return Ok(()) };
        let bytes = self.bytes(tensors, &|name, bytes| {
            let part = EXPERT_PARTS.iter().position(|part| *name == format!("blk.{layer}.{part}"));
            let Some(part) = part else { return };
            let len = bytes.len() / experts.len().max(1);
            for (own, expert) in bytes.chunks_exact_mut(len).zip(experts) {
                if let Some(made) = &expert[part] {
                    own.copy_from_slice(made);
                }
            }
        })?;
        Ok(self.job.append(&UnitResult { bytes, ..UnitResult::default() })?)
    }

    /// The bytes of tensors with their padding, as they stand in the file, once `change` has seen each of them.
    fn bytes(&mut self, tensors: Range<usize>, change: &dyn Fn(&str, &mut [u8])) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let start = self.writer.offset(tensors.start).unwrap_or(0);
        self.writer.resume(start)?;
        for index in tensors {
            let mut own = self.file.bytes(index)?.to_vec();
            self.file.release(index);
            change(&self.file.tensors()[index].name, &mut own);
            self.writer.write_tensor(&mut bytes, index, &own)?;
        }
        Ok(bytes)
    }
}

fn announce(expert: &DistilledExpert) {
    let [error_before, error_after] = expert.error.map_or([None; 2], |error| error.map(Some));
    tracing::info!(
        name: "ExpertDistilled",
        layer = expert.layer,
        expert = expert.expert,
        trits = expert.trits,
        changed_trits = expert.changed_trits,
        tokens = expert.tokens,
        error_before,
        error_after,
        is_kept = expert.is_kept,
        "ExpertDistilled"
    );
}
