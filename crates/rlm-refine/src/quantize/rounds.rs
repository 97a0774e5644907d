//! The share of a machine in the rounds of a calibration; a job with the same settings makes the student of them.

use std::path::PathBuf;

use gguf_bitnet::{GgufFile, Shard, require_space, sample_of};
use serde_json::{Value, json};
use tl_kernels::Pool;

use super::quantizer::Quantizer;
use super::stage::{OnProgress, Stage};
use crate::error::{Error, Result};
use crate::policy::KnownSettings;
use crate::ptq::{CALIBRATION_JOB, CalibrationSetting, Calibrator, PtqError, Rounds, ternary_layers};

/// The work of a machine in the rounds of a calibration.
#[derive(Debug)]
pub struct RoundsReport {
    /// The parts that this call wrote.
    pub written: Vec<PathBuf>,
    /// The parts that the next round waits for: [`PtqError::MissingParts`]. `None` behind the last round.
    pub missing: Option<PtqError>,
}

impl Quantizer<'_> {
    /// Solves the networks of `shard`, layer after layer, as far as the folder of the rounds has the parts of the other shards, or
    /// continues an earlier call that was stopped. Where parts are missing, `looks_again` says whether to look for them again, and
    /// may wait before it does.
    ///
    /// # Errors
    /// [`Error::NotCut`] without calibration and a folder of rounds, [`Error::SearchNotCut`] behind a search of types;
    /// [`PtqError::NoRounds`] for a recipe without ternary networks; parts in the folder that do not belong there; too little disk,
    /// weights that are missing or not finite, and a student that drifts away, unless it is to go on by `force`.
    pub fn run_rounds(
        &self,
        pool: &Pool,
        shard: Shard,
        looks_again: &dyn Fn(&PtqError) -> bool,
        force: bool,
        progress: &mut OnProgress<'_>,
    ) -> Result<RoundsReport> {
        if self.precision().is_some() {
            return Err(Error::SearchNotCut);
        }
        let options = self.options.method.gptq();
        let Some((options, dir)) = options.and_then(|options| Some((options, options.rounds.as_deref()?))) else {
            return Err(Error::NotCut);
        };
        let layers = ternary_layers(self.plan(), self.files.config.n_layers);
        let Some(&(last, _)) = layers.last() else {
            return Err(PtqError::NoRounds.into());
        };
        if !self.options.allow_zero {
            self.files.weightless()?.refuse(self.files.path())?;
        }
        let model = self.model_sample()?;
        let rounds = Rounds::share(dir, shard, self.round_settings(&model), looks_again)?;
        options.calibration.ensure_of_model(&model)?;
        let states = rounds.states();
        require_space(&states(0), self.state_bytes().saturating_add(rounds.missing_bytes(layers.into_iter())?))?;
        options.calibration.keep(self.files, &model, &states)?;
        let (files, plan, known) = (self.files, self.plan(), &KnownSettings::new());
        let setting = CalibrationSetting { files, plan, options, known, pool, force, rounds: Some(&rounds) };
        let made =
            Calibrator::new(setting, &states).make(last, &mut |done, total| progress(Stage::Calibrate, done, total));
        let missing = match made {
            Ok(()) => None,
            Err(Error::Ptq(missing @ PtqError::MissingParts { .. })) => Some(missing),
            Err(error) => return Err(error),
        };
        Ok(RoundsReport { written: rounds.written(), missing })
    }

    /// The model by its header and the ends of its tensors, so that a folder is refused before its windows and streams are used.
    pub(super) fn model_sample(&self) -> Result<String> {
        let metadata = self.files.gguf().map(GgufFile::metadata);
        Ok(sample_of(&**self.files.catalog.source(), metadata)?.to_string())
    }

    /// The settings that decide about the networks of all layers, for the model of this sample. The weights are named layer by layer.
    pub(super) fn round_settings(&self, model: &str) -> Value {
        let config = blake3::hash(format!("{:?}", self.files.config).as_bytes()).to_string();
        json!({
            "job": CALIBRATION_JOB,
            "tool_version": env!("CARGO_PKG_VERSION"),
            "config_blake3": config,
            "model_sample_blake3": model,
            "recipe": self.options.recipe.describe(),
            "gptq": self.options.method.gptq().map(|options| options.describe()),
            "rounds": ternary_layers(self.plan(), self.files.config.n_layers).len(),
        })
    }
}
