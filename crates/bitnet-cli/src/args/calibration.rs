//! `--calibration` and what goes with it: the texts of `quantize --method gptq`.

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use moe_runtime::ModelFiles;
use rlm_refine::ptq::{Calibration, GptqOptions, NamedText, Step, Steps, WindowOptions};

use super::whole;
use crate::exit::UsageError;
use crate::load;

#[derive(clap::Args)]
pub(crate) struct CalibrationArgs {
    /// A text for `--method gptq`: plain, or one JSON object with `messages` per line
    #[arg(long, value_name = "FILE", value_parser = NonEmptyStringValueParser::new())]
    calibration: Vec<String>,
    /// Leave out windows that share 64 tokens in a row with this text
    #[arg(long, value_name = "FILE", value_parser = NonEmptyStringValueParser::new())]
    exclude: Vec<String>,
    /// Most tokens to calibrate on
    #[arg(long, default_value_t = 131_072, value_name = "N", value_parser = whole::<usize>(1..=u64::MAX))]
    calibration_tokens: usize,
    /// Leave out a step of `--method gptq`, to measure what it buys
    #[arg(long, value_name = "STEP")]
    without: Vec<Step>,
    /// Most passes over the codes of a block of 256 weights in one descent
    #[arg(long, default_value_t = 6, value_name = "N")]
    sweeps: usize,
    /// Random kicks per block after the first descent: more take longer and lower the error
    #[arg(long, default_value_t = 50, value_name = "N")]
    kicks: usize,
}

impl CalibrationArgs {
    /// The options of the calibrated method.
    pub(crate) fn gptq(&self, files: &ModelFiles) -> Result<GptqOptions> {
        let read = |names: &[String]| {
            names
                .iter()
                .map(|name| Ok(NamedText { name: name.clone(), text: load::read_text(name)? }))
                .collect::<Result<Vec<_>>>()
        };
        let windows = WindowOptions { max_tokens: self.calibration_tokens, ..WindowOptions::default() };
        let calibration = Calibration::new(files, &read(&self.calibration)?, &read(&self.exclude)?, windows)?;
        Ok(GptqOptions {
            steps: Steps::without(&self.without),
            sweeps: self.sweeps,
            kicks: self.kicks,
            ..GptqOptions::new(calibration)
        })
    }

    /// Checks that there are texts for the calibrated method, and for no other.
    pub(crate) fn ensure_for(&self, is_calibrated: bool) -> Result<()> {
        let given = [
            (!self.calibration.is_empty(), "--calibration"),
            (!self.exclude.is_empty(), "--exclude"),
            (!self.without.is_empty(), "--without"),
        ];
        match given.iter().find(|(given, _)| *given) {
            Some((_, option)) if !is_calibrated => Err(UsageError::new(format!("{option} needs --method gptq")).into()),
            _ if is_calibrated && self.calibration.is_empty() => {
                Err(UsageError::new("--method gptq needs texts: name them with --calibration").into())
            }
            _ => Ok(()),
        }
    }
}
