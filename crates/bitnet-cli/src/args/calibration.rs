//! `--calibration` and what goes with it: the texts of `adapt`, and of `quantize` for `--method gptq` and `--target-size`.

use std::path::PathBuf;

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use moe_runtime::ModelFiles;
use rlm_refine::ptq::{Calibration, GptqOptions, Step, Steps, Unfinished, WindowOptions};
use tl_kernels::Pool;

use super::rounds::RoundArgs;
use super::whole;
use crate::exit::UsageError;
use crate::{load, output};

/// The texts that a model is calibrated on, and how many of their tokens are taken.
#[derive(clap::Args)]
pub(crate) struct TextArgs {
    /// A text to calibrate on: plain, or one JSON object with `messages` per line
    #[arg(long, value_name = "FILE", value_parser = NonEmptyStringValueParser::new())]
    calibration: Vec<String>,
    /// Leave out windows that share 64 tokens in a row with this text
    #[arg(long, value_name = "FILE", value_parser = NonEmptyStringValueParser::new())]
    exclude: Vec<String>,
    /// Let the model generate N tokens and calibrate on them too; the whole model is then in memory
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..=u64::MAX))]
    self_calibrate: Option<usize>,
    /// Choose texts so that each routed expert sees N tokens where the texts give them; takes a pass over the checkpoint
    #[arg(long, value_name = "N", value_parser = whole::<u32>(1..=u64::from(u32::MAX)))]
    expert_tokens: Option<u32>,
    /// Most tokens to calibrate on [default: 131072; 4096 for a search of types alone]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..=u64::MAX))]
    calibration_tokens: Option<usize>,
    /// Seed of random choices [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// The texts of `quantize`, and the settings of its calibrated method.
#[derive(clap::Args)]
pub(crate) struct CalibrationArgs {
    #[command(flatten)]
    texts: TextArgs,
    /// Take settings of earlier runs on the same checkpoint from this store, and add those of this run
    #[arg(long, value_name = "FILE")]
    policies: Option<PathBuf>,
    /// Leave out a step of `--method gptq`, to measure what it buys
    #[arg(long, value_name = "STEP")]
    without: Vec<Step>,
    /// Most passes over the codes of a block of 256 weights in one descent [default: 6]
    #[arg(long, value_name = "N")]
    sweeps: Option<usize>,
    /// Random kicks per block after the first descent: more take longer and lower the error [default: 50]
    #[arg(long, value_name = "N")]
    kicks: Option<usize>,
    #[command(flatten)]
    pub(crate) rounds: RoundArgs,
}

impl TextArgs {
    /// Whether there is any text.
    pub(crate) fn is_given(&self) -> bool {
        !self.calibration.is_empty() || self.self_calibrate.is_some()
    }

    /// The texts, cut into windows of at most `max_tokens` tokens in all unless the options say otherwise.
    pub(crate) fn calibration(&self, files: &ModelFiles, pool: &Pool, max_tokens: usize) -> Result<Calibration> {
        self.calibration_of(files, pool, max_tokens, None)
    }

    /// The same, or the windows that an unfinished calibration keeps.
    fn calibration_of(
        &self,
        files: &ModelFiles,
        pool: &Pool,
        max_tokens: usize,
        unfinished: Option<Unfinished<'_>>,
    ) -> Result<Calibration> {
        let windows = WindowOptions {
            max_tokens: self.calibration_tokens.unwrap_or(max_tokens),
            expert_tokens: self.expert_tokens.unwrap_or(0),
            generated_tokens: self.self_calibrate.unwrap_or(0),
            seed: self.seed.unwrap_or(0),
            ..WindowOptions::default()
        };
        let (sources, exclude) = (load::read_texts(&self.calibration)?, load::read_texts(&self.exclude)?);
        let kept = unfinished
            .map(|place| Calibration::of_unfinished(files, place, &sources, &exclude, windows))
            .transpose()?;
        match kept.flatten() {
            Some(kept) => {
                output::note("note: continuing with the calibration windows of the unfinished job");
                Ok(kept)
            }
            None => Ok(Calibration::new(files, pool, &sources, &exclude, windows)?),
        }
    }

    /// The first of these options that was given.
    fn given(&self) -> Option<&'static str> {
        let given = [
            (!self.calibration.is_empty(), "--calibration"),
            (!self.exclude.is_empty(), "--exclude"),
            (self.self_calibrate.is_some(), "--self-calibrate"),
            (self.expert_tokens.is_some(), "--expert-tokens"),
            (self.calibration_tokens.is_some(), "--calibration-tokens"),
            (self.seed.is_some(), "--seed"),
        ];
        first(&given)
    }
}

impl CalibrationArgs {
    /// The texts as windows; see [`TextArgs::calibration`].
    pub(crate) fn calibration(&self, files: &ModelFiles, pool: &Pool, max_tokens: usize) -> Result<Calibration> {
        self.texts.calibration(files, pool, max_tokens)
    }

    /// The options of the calibrated method; `unfinished` may keep the windows.
    pub(crate) fn gptq(
        &self,
        files: &ModelFiles,
        pool: &Pool,
        unfinished: Option<Unfinished<'_>>,
    ) -> Result<GptqOptions> {
        let max_tokens = WindowOptions::default().max_tokens;
        let default = GptqOptions::new(self.texts.calibration_of(files, pool, max_tokens, unfinished)?);
        Ok(GptqOptions {
            steps: Steps::without(&self.without),
            sweeps: self.sweeps.unwrap_or(default.sweeps),
            kicks: self.kicks.unwrap_or(default.kicks),
            seed: self.texts.seed.unwrap_or(default.seed),
            policies: self.policies.clone(),
            rounds: self.rounds.rounds.clone(),
            ..default
        })
    }

    /// Checks that there are texts for the calibrated method and for a search of types, and for nothing else.
    pub(crate) fn ensure_for(&self, is_calibrated: bool, is_searched: bool) -> Result<()> {
        let settings = [
            (self.policies.is_some(), "--policies"),
            (!self.without.is_empty(), "--without"),
            (self.sweeps.is_some(), "--sweeps"),
            (self.kicks.is_some(), "--kicks"),
            (self.rounds.rounds.is_some(), "--rounds"),
        ];
        let has_texts = self.texts.is_given();
        let sentence = match (self.texts.given(), first(&settings)) {
            (Some(option), _) if !is_calibrated && !is_searched => {
                format!("{option} needs --method gptq or --target-size")
            }
            (_, Some(option)) if !is_calibrated => format!("{option} needs --method gptq"),
            _ if is_calibrated && !has_texts => "--method gptq needs texts: name them with --calibration".to_owned(),
            _ if is_searched && self.rounds.rounds.is_some() => {
                "--target-size searches types on one machine: leave out --rounds, or give the types with --tensor-type"
                    .to_owned()
            }
            _ if self.policies.is_some() && self.rounds.rounds.is_some() => {
                "--policies would give each machine other settings: leave it out, or --rounds".to_owned()
            }
            _ if is_searched && !has_texts => {
                "--target-size needs texts to measure errors on: name them with --calibration".to_owned()
            }
            _ => return Ok(()),
        };
        Err(UsageError::new(sentence).into())
    }
}

/// The first option of a list that was given.
fn first(options: &[(bool, &'static str)]) -> Option<&'static str> {
    options.iter().find(|(given, _)| *given).map(|(_, option)| *option)
}
