//! The layers of a student, made one after the other as the job that writes them asks for their tensors.

use std::fs;
use std::path::PathBuf;

use gguf_bitnet::TensorType;
use moe_runtime::ModelFiles;
use moe_runtime::models::ModelConfig;
use serde_json::{Value, json};
use tl_kernels::Pool;

use super::calibration::Calibration;
use super::layer::{Context, MadeLayer, check_drift, layer_of, make_layer};
use super::moments::CHUNK_TOKENS;
use super::network::Search;
use super::report::LayerReport;
use super::search::Effort;
use super::steps::Steps;
use super::streams::Streams;
use crate::error::Result;
use crate::student::StudentPlan;

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
}

impl GptqOptions {
    /// All steps on these tokens.
    #[must_use]
    pub fn new(calibration: Calibration) -> Self {
        Self { calibration, steps: Steps::default(), sweeps: 6, kicks: 50, seed: 0 }
    }

    /// The settings that decide about the bytes, for a manifest.
    pub(crate) fn describe(&self) -> Value {
        json!({
            "calibration_blake3": self.calibration.blake3,
            "without": self.steps.left_out(),
            "sweeps": self.sweeps,
            "kicks": self.kicks,
            "seed": self.seed,
        })
    }
}

/// Makes the layers of a student in order.
pub(crate) struct Calibrator<'a> {
    files: &'a ModelFiles,
    plan: &'a StudentPlan,
    options: &'a GptqOptions,
    pool: &'a Pool,
    /// Goes on where a student drifts away.
    force: bool,
    /// The file of the streams in front of a layer.
    state: &'a dyn Fn(usize) -> PathBuf,
    /// The streams, and the layer that they stand in front of.
    streams: Option<(usize, Streams)>,
    made: Option<MadeLayer>,
    report: Option<LayerReport>,
    drift_before: f64,
}

impl<'a> Calibrator<'a> {
    pub(crate) fn new(
        files: &'a ModelFiles,
        plan: &'a StudentPlan,
        options: &'a GptqOptions,
        pool: &'a Pool,
        force: bool,
        state: &'a dyn Fn(usize) -> PathBuf,
    ) -> Self {
        Self { files, plan, options, pool, force, state, streams: None, made: None, report: None, drift_before: 0.0 }
    }

    /// The bytes of tensor `index` of the plan, whose layer is made first if it is not at hand; `None` for a tensor outside
    /// of the layers. `progress` gets the networks done and in all.
    pub(crate) fn tensor(&mut self, index: usize, progress: &mut dyn FnMut(u64, u64)) -> Result<Option<&[u8]>> {
        let Some(layer) = layer_of(&self.plan.tensors[index].name) else { return Ok(None) };
        if self.made.as_ref().is_none_or(|made| made.report.layer != layer) {
            self.make(layer, progress)?;
        }
        Ok(self.made.as_ref().and_then(|made| made.tensors.get(&index)).map(Vec::as_slice))
    }

    /// The report of the layer that was made last, once.
    pub(crate) fn take_report(&mut self) -> Option<LayerReport> {
        self.report.take()
    }

    fn make(&mut self, layer: usize, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        self.made = None;
        let (mut at, mut streams) = match self.streams.take().filter(|(at, _)| *at <= layer) {
            Some(found) => found,
            None => self.resume(layer)?,
        };
        let search = Search {
            steps: self.options.steps.clone(),
            effort: Effort { sweeps: self.options.sweeps, kicks: self.options.kicks },
            seed: self.options.seed,
        };
        let context = Context { files: self.files, plan: self.plan, search: &search, pool: self.pool };
        let total = networks(&self.files.config, self.files.config.n_layers);
        while at <= layer {
            let before = networks(&self.files.config, at);
            (self.drift_before, _) = streams.drift();
            let made = make_layer(context, at, &mut streams, &mut |done| progress(before + done as u64, total))?;
            check_drift(&made.report, self.drift_before, self.force)?;
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
        let embedding = self.plan.tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
        let ty = embedding.map_or(TensorType::F32, |tensor| tensor.assignment.ty);
        let mut streams = Streams::embed(self.files, &self.options.calibration.windows, ty)?;
        let at = (1..=layer).rev().find(|&at| streams.restore(&(self.state)(at)));
        Ok((at.unwrap_or(0), streams))
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
pub(crate) fn memory_bytes(files: &ModelFiles, plan: &StudentPlan, tokens: usize) -> u64 {
    let config = &files.config;
    let product = |factors: &[usize]| factors.iter().fold(1u64, |p, &f| p.saturating_mul(f as u64));
    let ff = config.moe.as_ref().map_or(0, |moe| moe.expert_ff.max(moe.shared_ff())).max(config.dense_ff);
    let (n, other) = (config.hidden.max(ff), config.hidden.min(ff).max(1));
    // Both streams and the teacher's behind the layer; saving a stream needs a small buffer, reading one its whole file.
    let streams = product(&[tokens, config.hidden, 4, 5]);
    // H, C and F of two sets of tokens, the shaped pair, the factor and its F32 copies, and the products of a chunk.
    let squares = product(&[n, n, 8 * 5 + 8 * 3 + 8 + 4 * 2 + 4 * 3]);
    // Teacher, plain and solved values of three matrices, their targets and products, and a chunk of inputs.
    let matrices = product(&[n, other, 4 * 12]);
    let chunk = product(&[CHUNK_TOKENS, config.hidden + ff, 4 * 8]);
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
    [streams, squares, matrices, chunk, layer].into_iter().fold(0u64, u64::saturating_add)
}
