//! `--embedder`: the sentence encoder beside the model.

use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use anyhow::Result;
use clap::ValueEnum;
use clap::builder::NonEmptyStringValueParser;
use moe_runtime::{JobQueue, QueueLimits};
use rlm_embed::encoder::{BaseEmbedder, BertEncoder};
use tl_kernels::Pool;

use crate::args::PrecisionArg;
use crate::exit::UsageError;
use crate::http::{Encoder, Facts};
use crate::load;

#[derive(clap::Args)]
pub(super) struct EncoderArgs {
    /// Sentence encoder (a folder with a BERT checkpoint) whose vectors /v1/embeddings gives; without one it gives the mean
    /// hidden states of the model
    #[arg(long, value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
    embedder: Option<String>,
    /// Type of the matrices of the sentence encoder (default: f32)
    #[arg(long, value_name = "TYPE", value_enum, requires = "embedder")]
    embedder_precision: Option<PrecisionArg>,
}

/// A loaded encoder and its name in requests.
pub(super) struct Loaded {
    bert: BertEncoder,
    facts: Facts,
}

impl EncoderArgs {
    /// Loads the encoder beside the model `id`; `None` without `--embedder`.
    ///
    /// # Errors
    /// A folder that holds no sentence encoder, or one with the name of the model.
    pub(super) fn load(&self, id: &str, pool: Arc<Pool>) -> Result<Option<Loaded>> {
        let Some(spec) = &self.embedder else { return Ok(None) };
        let precision = self.embedder_precision.unwrap_or(PrecisionArg::F32);
        let (bert, path) = load::encoder(spec, precision.into(), pool)?;
        let name = Path::new(spec).file_name().or_else(|| path.file_name());
        let name = name.map_or_else(|| "embedder".to_owned(), |name| name.to_string_lossy().into_owned());
        if name == id {
            let sentence = format!("the model and its --embedder are both called `{id}`: name the model with --alias");
            return Err(UsageError::new(sentence).into());
        }
        let changed = std::fs::metadata(&path).and_then(|metadata| metadata.modified());
        let created = changed.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let ftype = precision.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        let facts = Facts {
            id: name,
            created_s: created.map_or(0, |time| time.as_secs()),
            n_ctx_train: bert.max_tokens(),
            n_ctx: bert.max_tokens(),
            n_params: bert.parameters(),
            size_bytes: bert.weight_bytes(),
            ftype,
            gates: None,
            identity: bert.identity(),
            hidden: bert.dims(),
            vocab: bert.vocabulary(),
        };
        Ok(Some(Loaded { bert, facts }))
    }
}

impl Loaded {
    /// Bytes that the encoder takes at most.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.bert.memory_bytes(Encoder::BATCH_TOKENS).unwrap_or_default()
    }

    /// The encoder with a queue, whose limits count texts where those of the model, `limits`, count requests.
    pub(super) fn with_queue(self, limits: QueueLimits) -> Encoder {
        let texts = |requests: usize| requests.saturating_mul(Encoder::TEXTS_AT_ONCE);
        let limits = QueueLimits {
            waiting: texts(limits.waiting),
            account_waiting: texts(limits.account_waiting),
            account_running: texts(limits.account_running),
            ..limits
        };
        // One thread serves the queue, and the time of a text is its share of a batch.
        Encoder { bert: self.bert, facts: self.facts, queue: JobQueue::new(limits, 1) }
    }
}
