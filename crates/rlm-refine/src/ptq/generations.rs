//! Texts that a model writes itself, to be calibrated on: when it answers, it reads texts of this kind.

use std::ops::ControlFlow;
use std::sync::Arc;

use mla_attention::CacheType;
use moe_runtime::{CraftsmanModel, GenerateOptions, LoadOptions, ModelFiles, Sampler, SamplerConfig, Session};
use ternary_core::ActMode;
use tl_kernels::Pool;

use crate::error::Result;

/// Windows of at most `window_tokens` that hold `n_tokens` in all: the model's prefix, and tokens sampled at temperature 1
/// until a window is full or the model ends. The whole model is in memory meanwhile.
///
/// # Errors
/// A model that cannot be loaded or run.
pub(super) fn generate(
    files: &ModelFiles,
    pool: &Pool,
    window_tokens: usize,
    n_tokens: usize,
    seed: u64,
) -> Result<Vec<Vec<u32>>> {
    let tokenizer = files.tokenizer()?;
    let prefix = tokenizer.raw_prefix();
    // A model without a prefix starts from an ending: the token in front of every text that it was trained on.
    let start =
        if prefix.is_empty() { tokenizer.stop_ids().iter().take(1).copied().collect() } else { prefix.to_vec() };
    let most = window_tokens.saturating_sub(start.len());
    let pool = Arc::new(Pool::new(pool.threads()).map_err(moe_runtime::Error::from)?);
    let options = LoadOptions { act_mode: Some(ActMode::F32), pool, ..LoadOptions::default() };
    let mut session =
        Session::new(Arc::new(CraftsmanModel::from_files(files, &options)?), window_tokens, CacheType::F32)?;
    let config = SamplerConfig { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed, ..SamplerConfig::default() };
    let mut sampler = Sampler::new(config)?;
    let (mut windows, mut tokens) = (Vec::new(), 0);
    while tokens < n_tokens && most > 0 && !start.is_empty() {
        session.reset();
        let max_tokens = most.min((n_tokens - tokens).saturating_sub(start.len()).max(1));
        let options = GenerateOptions { max_tokens, stop: tokenizer.stop_ids().to_vec(), ..GenerateOptions::default() };
        let answer = session.generate(&start, &options, &mut sampler, &mut (), &mut |_| ControlFlow::Continue(()))?;
        let window = [&start[..], &answer.tokens].concat();
        tokens += window.len();
        windows.push(window);
    }
    Ok(windows)
}
