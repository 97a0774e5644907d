//! `--model`, `--precision` and `--threads` of the verbs that turn texts into vectors.

use std::sync::Arc;

use anyhow::Result;
use clap::ValueEnum;
use clap::builder::NonEmptyStringValueParser;
use rlm_embed::encoder::{BaseEmbedder, Precision};
use tl_kernels::Pool;

use super::threads::Threads;
use crate::exit::UsageError;
use crate::load;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct EmbedderArgs {
    /// Sentence encoder (a folder with a BERT checkpoint), language model, or `hash` for hashed words
    // An option that is always there, because a verb below `embed` takes the place of its arguments.
    #[arg(short, long, required = true, value_parser = NonEmptyStringValueParser::new())]
    model: Option<String>,
    /// Type of the matrices of a sentence encoder (default: f32)
    #[arg(long, value_enum)]
    precision: Option<PrecisionArg>,
    #[command(flatten)]
    threads: Threads,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionArg {
    /// Floats of 32 bits, as the checkpoint has them
    F32,
    /// 8 bits in blocks of 32
    #[value(name = "q8_0")]
    Q8_0,
    /// 8 bits in blocks of 32, with activations of 8 bits; its matrices take more bytes than those of q8_0
    #[value(name = "q8_0-a8")]
    Q8_0A8,
    /// Trits in blocks of 64, for encoders that were trained so
    #[value(name = "q2_0")]
    Q2_0,
}

impl From<PrecisionArg> for Precision {
    fn from(precision: PrecisionArg) -> Precision {
        match precision {
            PrecisionArg::F32 => Precision::F32,
            PrecisionArg::Q8_0 => Precision::Q8_0,
            PrecisionArg::Q8_0A8 => Precision::Q8_0A8,
            PrecisionArg::Q2_0 => Precision::Q2_0,
        }
    }
}

impl EmbedderArgs {
    /// Starts the threads and loads the embedder.
    ///
    /// # Errors
    /// A model that cannot be loaded.
    pub(crate) fn load(&self) -> Result<(Box<dyn BaseEmbedder>, Arc<Pool>)> {
        let pool = self.threads.pool()?;
        Ok((embedder(self.model()?, self.precision, "--precision", pool.clone())?, pool))
    }

    /// Loads the same embedder in another precision, which `option` states.
    ///
    /// # Errors
    /// As [`EmbedderArgs::load`].
    pub(crate) fn load_in(
        &self,
        precision: PrecisionArg,
        option: &str,
        pool: Arc<Pool>,
    ) -> Result<Box<dyn BaseEmbedder>> {
        embedder(self.model()?, Some(precision), option, pool)
    }

    fn model(&self) -> Result<&str> {
        let missing = || UsageError::new("--model is missing: name an encoder, or `hash`");
        Ok(self.model.as_deref().ok_or_else(missing)?)
    }
}

/// Loads the embedder `model`; `option` is the name of the option that states the precision.
///
/// # Errors
/// A model that cannot be loaded, or a precision for one that has none.
pub(crate) fn embedder(
    model: &str,
    precision: Option<PrecisionArg>,
    option: &str,
    pool: Arc<Pool>,
) -> Result<Box<dyn BaseEmbedder>> {
    if model == load::HASH && precision.is_some() {
        return Err(UsageError::new(format!("{option} is for sentence encoders; `hash` has no matrices")).into());
    }
    load::embedder(model, precision.map(Precision::from), pool)
}
