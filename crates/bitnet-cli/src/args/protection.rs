//! `--ewc` and what goes with it: texts that a training run leaves as they are.

use anyhow::Result;
use clap::ValueEnum;
use clap::builder::NonEmptyStringValueParser;
use moe_runtime::ModelFiles;
use rlm_refine::adapt::{EwcOptions, FisherKind};
use rlm_refine::ptq::{Calibration, WindowOptions};
use tl_kernels::Pool;

use super::{positive, whole};
use crate::load;

#[derive(clap::Args)]
pub(crate) struct ProtectionArgs {
    /// Hold numbers that matter for the texts of --ewc-data near their values; at 1 the penalty counts about as much as the
    /// divergence on these texts
    #[arg(long, value_name = "LAMBDA", value_parser = positive, requires = "ewc_data")]
    ewc: Option<f32>,
    /// A text that the run is to leave as it is: plain, or one JSON object with `messages` per line
    #[arg(long, value_name = "FILE", requires = "ewc", value_parser = NonEmptyStringValueParser::new())]
    ewc_data: Vec<String>,
    /// Most tokens of these texts, which share them equally
    #[arg(long, value_name = "N", default_value_t = 16_384, requires = "ewc", value_parser = whole::<usize>(1..=u64::MAX))]
    ewc_tokens: usize,
    /// Keep the N numbers that matter most, to save memory [default: all]
    #[arg(long, value_name = "N", requires = "ewc", value_parser = whole::<usize>(1..=u64::MAX))]
    ewc_keep: Option<usize>,
    /// The weights of the penalty
    #[arg(long, value_enum, value_name = "KIND", default_value = "measured", requires = "ewc")]
    ewc_fisher: FisherName,
}

#[derive(Clone, Copy, ValueEnum)]
enum FisherName {
    /// The Fisher information of the texts
    Measured,
    /// The same numbers at other places, as a control
    Shuffled,
    /// Their mean everywhere, as a control
    Uniform,
}

impl ProtectionArgs {
    /// The settings of the penalty, if there is one.
    pub(super) fn options(&self, seed: u64) -> Option<EwcOptions> {
        let fisher = match self.ewc_fisher {
            FisherName::Measured => FisherKind::Measured,
            FisherName::Shuffled => FisherKind::Shuffled,
            FisherName::Uniform => FisherKind::Uniform,
        };
        Some(EwcOptions { lambda: self.ewc?, keep: self.ewc_keep, seed, fisher, ..EwcOptions::default() })
    }

    /// The protected texts as windows of `window_tokens` tokens, if there are any.
    pub(super) fn windows(
        &self,
        student: &ModelFiles,
        pool: &Pool,
        window_tokens: usize,
    ) -> Result<Option<Calibration>> {
        if self.ewc.is_none() {
            return Ok(None);
        }
        let windows = WindowOptions { window_tokens, max_tokens: self.ewc_tokens, ..WindowOptions::default() };
        Ok(Some(Calibration::new(student, pool, &load::read_texts(&self.ewc_data)?, &[], windows)?))
    }
}
