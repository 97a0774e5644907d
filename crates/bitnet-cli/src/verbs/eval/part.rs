//! A share of the windows of `bitnet eval fidelity`: their records in a part, which `bitnet merge` makes the report of.

use std::path::Path;

use anyhow::Result;
use behavior_eval::fidelity::{FidelityConfig, TextCut, compare_record, score_record};
use behavior_eval::model::LanguageModel;
use gguf_bitnet::{Cut, Shard, UnitJob, UnitResult};
use serde_json::{Value, json};

use super::scored::{Scored, explain};
use crate::output::{self, Progress};

/// The names of the jobs in manifests: two models, or one.
pub(in crate::verbs) const FIDELITY_JOB: &str = "fidelity";
pub(in crate::verbs) const PERPLEXITY_JOB: &str = "perplexity";

/// The share, its file, and whether it replaces an existing one.
pub(super) struct Task<'a> {
    pub(super) shard: Shard,
    pub(super) part: &'a Path,
    pub(super) force: bool,
    /// Settings beside models and text that decide the numbers.
    pub(super) settings: Value,
}

/// Measures the windows of a share with one model, or with teacher and student.
pub(super) fn write(task: &Task<'_>, models: &mut [Scored], config: &FidelityConfig) -> Result<()> {
    let Some(first) = models.first() else { return Ok(()) };
    let cut = TextCut::new(&first.tokens, config, first.scorer.vocab_size())?;
    let manifest = json!({
        "job": if models.len() == 1 { PERPLEXITY_JOB } else { FIDELITY_JOB },
        "version": 1,
        "models": models.iter().map(Scored::identity).collect::<Result<Vec<String>>>()?,
        "tokens": digest(&first.tokens),
        "cut": cut,
        "settings": task.settings,
    });
    let mut job = UnitJob::open(task.part, &manifest, Cut { units: cut.windows, shard: Some(task.shard) }, task.force)?;
    let progress = Progress::items("windows");
    while let Some(window) = job.next_unit() {
        let (done, all) = job.progress();
        progress.show(done as u64, all as u64);
        let bytes = match models {
            [teacher, student] => {
                compare_record(&mut teacher.scorer, &mut student.scorer, &teacher.tokens, config, window)
                    .map_err(|error| explain(error, &[&teacher.files, &student.files]))?
            }
            [model, ..] => score_record(&mut model.scorer, &model.tokens, config, window)
                .map_err(|error| explain(error, &[&model.files]))?,
            [] => Vec::new(),
        };
        job.append(&UnitResult { bytes, ..UnitResult::default() })?;
    }
    drop(progress);
    job.finish()?;
    output::line(format_args!("wrote {}", task.part.display()))
}

/// BLAKE3 of the tokens of a text.
fn digest(tokens: &[u32]) -> String {
    let mut hasher = blake3::Hasher::new();
    tokens.iter().for_each(|token| {
        hasher.update(&token.to_le_bytes());
    });
    hasher.finalize().to_string()
}
