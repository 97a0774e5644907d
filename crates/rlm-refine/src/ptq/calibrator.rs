//! The layers of a student, made one after the other as the job that writes them asks for their tensors.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use gguf_bitnet::{NewFile, TensorType};
use moe_runtime::ModelFiles;
use moe_runtime::models::ModelConfig;
use serde_json::{Value, json};
use tl_kernels::Pool;

use super::calibration::Calibration;
use super::layer::{MadeLayer, check_drift, make_layer};
use super::moments::CHUNK_TOKENS;
use super::problem::ROWS_PER_TASK;
use super::report::LayerReport;
use super::rounds::Rounds;
use super::search::Effort;
use super::steps::{Search, Steps};
use super::streams::Streams;
use super::tensors::{Context, layer_of};
use crate::error::{Error, Result};
use crate::policy::{KnownSettings, Policy, PolicyStore, TernaryScalePolicy};
use crate::student::StudentPlan;

/// Most bytes of the settings that a job keeps: a hundred thousand matrices.
const MAX_SNAPSHOT_BYTES: u64 = 16 << 20;

/// The texts and the settings of a calibrated quantisation.
#[derive(Clone, Debug)]
pub struct GptqOptions {
    /// The tokens to calibrate on.
    pub calibration: Calibration,
    /// The steps to take.
    pub steps: Steps,
    /// Most passes over the codes of a block in one descent.
    pub sweeps: usize,
    /// Kicks per block after the first descent.
    pub kicks: usize,
    /// Seed of the kicks.
    pub seed: u64,
    /// The policy store that gives settings of earlier runs and receives those of this one.
    pub policies: Option<PathBuf>,
    /// The folder of the rounds that several machines share; `None` where all is solved here.
    pub rounds: Option<PathBuf>,
}

impl GptqOptions {
    /// All steps on these tokens.
    #[must_use]
    pub fn new(calibration: Calibration) -> Self {
        Self { calibration, steps: Steps::default(), sweeps: 6, kicks: 50, seed: 0, policies: None, rounds: None }
    }

    /// The settings that earlier runs chose for matrices of the checkpoint. The file `snapshot` keeps them for the whole job,
    /// whatever other jobs add to the store before it is resumed.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub(crate) fn known(&self, checkpoint: &str, snapshot: &Path) -> Result<KnownSettings> {
        let Some(path) = &self.policies else { return Ok(KnownSettings::new()) };
        let kept = gguf_bitnet::read_text_if_any(snapshot, MAX_SNAPSHOT_BYTES)?;
        if let Some(known) = kept.and_then(|text| serde_json::from_str(&text).ok()) {
            return Ok(known);
        }
        let policies = PolicyStore::open(path)?.policies(checkpoint)?;
        let settings = policies.into_iter().filter_map(|(subject, policy)| {
            let Policy::TernaryScale(TernaryScalePolicy { settings, .. }) = policy else { return None };
            Some((subject, settings?))
        });
        let known: KnownSettings = settings.collect();
        let mut file = NewFile::create(snapshot)?;
        file.write_all(json!(known).to_string().as_bytes()).map_err(Error::io("write", snapshot))?;
        file.publish()?;
        Ok(known)
    }

    /// Stores the policies of the layers that were made from the checkpoint.
    ///
    /// # Errors
    /// A store that cannot be written.
    pub(crate) fn store(&self, checkpoint: &str, layers: &[LayerReport]) -> Result<()> {
        let Some(path) = &self.policies else { return Ok(()) };
        let policies = layers.iter().flat_map(LayerReport::policies).map(|(subject, policy)| {
            // Settings that were chosen without a step would mislead a run that takes it.
            let settings = policy.settings.filter(|_| self.steps.left_out().is_empty());
            (subject, Policy::TernaryScale(TernaryScalePolicy { settings, ..policy }))
        });
        let policies: Vec<_> = policies.collect();
        PolicyStore::open(path)?.append(checkpoint, &policies)
    }

    /// The settings that decide about the bytes, for a manifest.
    pub(crate) fn describe(&self) -> Value {
        json!({
            "calibration_blake3": self.calibration.blake3,
            "without": self.steps.left_out(),
            "sweeps": self.sweeps,
            "kicks": self.kicks,
            "seed": self.seed,
            "policies": self.policies.is_some(),
        })
    }
}

/// The fixed inputs of a calibration.
#[derive(Clone, Copy)]
pub(crate) struct CalibrationSetting<'a> {
    pub(crate) files: &'a ModelFiles,
    pub(crate) plan: &'a StudentPlan,
    pub(crate) options: &'a GptqOptions,
    /// Settings that earlier runs chose.
    pub(crate) known: &'a KnownSettings,
    pub(crate) pool: &'a Pool,
    /// Goes on where a student drifts away.
    pub(crate) force: bool,
    /// The rounds that several machines share; `None` where all is solved here.
    pub(crate) rounds: Option<&'a Rounds<'a>>,
}

/// Makes the layers of a student in order.
pub(crate) struct Calibrator<'a> {
    setting: CalibrationSetting<'a>,
    search: Search,
    /// The file of the streams in front of a layer.
    state: &'a dyn Fn(usize) -> PathBuf,
    /// The streams, and the layer that they stand in front of.
    streams: Option<(usize, Streams)>,
    made: Option<MadeLayer>,
    report: Option<LayerReport>,
}

impl<'a> Calibrator<'a> {
    pub(crate) fn new(setting: CalibrationSetting<'a>, state: &'a dyn Fn(usize) -> PathBuf) -> Self {
        let GptqOptions { steps, sweeps, kicks, seed, .. } = setting.options;
        let effort = Effort { sweeps: *sweeps, kicks: *kicks };
        let search = Search { steps: steps.clone(), effort, seed: *seed };
        Self { setting, search, state, streams: None, made: None, report: None }
    }

    /// The bytes of tensor `index` of the plan, whose layer is made first if it is not at hand; `None` for a tensor outside
    /// of the layers, and of the MTP block, which reads no layer's stream. `progress` gets the networks done and in all.
    pub(crate) fn tensor(&mut self, index: usize, progress: &mut dyn FnMut(u64, u64)) -> Result<Option<&[u8]>> {
        let n_layers = self.setting.files.config.n_layers;
        let layer = layer_of(&self.setting.plan.tensors[index].name).filter(|&layer| layer < n_layers);
        let Some(layer) = layer else { return Ok(None) };
        if self.made.as_ref().is_none_or(|made| made.report.layer != layer) {
            self.make(layer, progress)?;
        }
        Ok(self.made.as_ref().and_then(|made| made.tensors.get(&index)).map(Vec::as_slice))
    }

    /// The report of the layer that was made last, once.
    pub(crate) fn take_report(&mut self) -> Option<LayerReport> {
        self.report.take()
    }

    /// Makes the layers up to this one, from where an earlier run stopped.
    pub(crate) fn make(&mut self, layer: usize, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        self.made = None;
        let CalibrationSetting { files, plan, known, pool, force, rounds, .. } = self.setting;
        let (mut at, mut streams) = match self.streams.take().filter(|(at, _)| *at <= layer) {
            Some(found) => found,
            None => self.resume(layer)?,
        };
        let context = Context { files, plan, search: &self.search, known, pool };
        let total = networks(&files.config, files.config.n_layers);
        while at <= layer {
            let before = networks(&files.config, at);
            let (drift_before, _) = streams.drift();
            let made =
                make_layer(context, rounds, at, &mut streams, &mut |done| progress(before + done as u64, total))?;
            check_drift(&made.report, drift_before, force)?;
            at += 1;
            streams.save(&(self.state)(at))?;
            if let Some(old) = at.checked_sub(2) {
                // All tensors of the layer in front of which it stood are in the job. If it stays, the job removes it.
                let _ = fs::remove_file((self.state)(old));
            }
            self.report = Some(made.report.clone());
            self.made = Some(made);
        }
        self.streams = Some((at, streams));
        Ok(())
    }

    /// The last streams that an earlier run left in front of `layer` or before it, or the embeddings.
    fn resume(&self, layer: usize) -> Result<(usize, Streams)> {
        let CalibrationSetting { files, plan, options, .. } = self.setting;
        let windows = &options.calibration.windows;
        let lengths: Vec<usize> = windows.iter().map(Vec::len).collect();
        let restored = |at: usize| Some((at, Streams::restore(&(self.state)(at), &lengths, files.config.hidden)?));
        if let Some(found) = (1..=layer).rev().find_map(restored) {
            return Ok(found);
        }
        let embedding = plan.tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
        let ty = embedding.map_or(TensorType::F32, |tensor| tensor.assignment.ty);
        Ok((0, Streams::embed(files, windows, ty)?))
    }
}

/// Networks of the first `layers` layers.
fn networks(config: &ModelConfig, layers: usize) -> u64 {
    let of_layer = |layer| match config.moe.as_ref().filter(|_| config.is_moe(layer)) {
        Some(moe) => moe.router.n_experts + usize::from(moe.shared_ff() > 0),
        None => 1,
    };
    (0..layers).map(of_layer).sum::<usize>() as u64
}

/// Upper bound of the memory of a calibration on `tokens` tokens, beyond that of writing rows.
pub(crate) fn memory_bytes(files: &ModelFiles, plan: &StudentPlan, tokens: usize, threads: usize) -> u64 {
    let config = &files.config;
    let product = |factors: &[usize]| factors.iter().fold(1u64, |p, &f| p.saturating_mul(f as u64));
    let ternary = || files.catalog.tensors().iter().zip(&plan.tensors).filter(|(_, t)| t.assignment.ty.is_ternary());
    let n = ternary().map(|(_, planned)| planned.cols()).max().unwrap_or(0);
    let min_block = ternary().filter_map(|(_, planned)| planned.assignment.ty.trit_block()).min().unwrap_or(1);
    let weights =
        ternary().map(|(tensor, planned)| product(&[tensor.matrix_rows(), planned.cols()])).max().unwrap_or(0);
    // Both streams, and the teacher's behind the attention and behind the layer; saving and
    // reading one need a small buffer.
    let streams = product(&[tokens, config.hidden, 4, 6]);
    // H, C and F of two sets of tokens; while these are summed, the products of a chunk; behind that the held-out ones in
    // F32, a shaped Hessian with the copy that is factored, a target matrix, and the forms of the Hessian for each of up to five
    // shrinkages (matrices of the same inputs share three, or bring one each from earlier runs).
    let squares = product(&[n, n, 8 * 5 + 4 * 3 + (4 * 3 + 8 * 2 + 4) + 5 * 4 * 4]);
    // Teacher, plain and solved values of three matrices, their targets and products.
    let matrices = weights.saturating_mul(4 * 12);
    // Rows that a thread solves for at a time: codes, errors and operands of five starts, the products of the best, and
    // some copies of a row.
    let blocks = n.div_ceil(min_block);
    let rows = product(&[threads, ROWS_PER_TASK, n, 5 * (1 + 4 + 4) + 4 * blocks + 4 * 8]);
    let chunk = product(&[CHUNK_TOKENS, config.hidden + n, 4 * 8]);
    // The layer of the teacher, mapped, and twice that of the student.
    let mut layers = vec![0u64; config.n_layers];
    for (tensor, planned) in files.catalog.tensors().iter().zip(&plan.tensors) {
        if let Some(bytes) = layer_of(&tensor.name).and_then(|layer| layers.get_mut(layer)) {
            let stored: u64 = files.catalog.storage(tensor).values().map(|(_, bytes)| bytes).sum();
            let student = planned.assignment.ty.tensor_bytes(&planned.shape).unwrap_or(0);
            *bytes = bytes.saturating_add(stored).saturating_add(student.saturating_mul(2));
        }
    }
    let layer = layers.into_iter().max().unwrap_or(0);
    [streams, squares, matrices, rows, chunk, layer].into_iter().fold(0u64, u64::saturating_add)
}
