//! `--prompt-cache`: where the computed beginnings of prompts are kept.

use std::path::PathBuf;

use anyhow::Result;
use moe_runtime::{DiskOptions, ModelFiles, PromptCache, PromptCacheOptions, PromptKey, Session};

use super::path::path_not_stream;
use super::size::size;
use crate::load;

const PROMPT_CACHE: &str =
    "prompts are kept in many files and cannot go to standard output: write the name of a folder";

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PromptCacheArgs {
    /// Keep the computed beginnings of prompts in a folder, where later runs of the same model find them
    #[arg(long, value_name = "DIR", value_parser = path_not_stream(PROMPT_CACHE))]
    prompt_cache: Option<PathBuf>,
    /// Most bytes that the prompt cache takes on the disk
    #[arg(long, value_name = "SIZE", default_value = "8GB", requires = "prompt_cache", value_parser = size)]
    prompt_cache_size: u64,
}

impl PromptCacheArgs {
    /// The folder and its bound, where the options ask for one.
    #[cfg(feature = "serve")]
    pub(crate) fn disk(&self) -> Option<DiskOptions> {
        let dir = self.prompt_cache.clone()?;
        Some(DiskOptions { dir, bytes: self.prompt_cache_size })
    }

    /// The key of `session`, a sequence of the model of `files`, and the prompt cache, where the options ask for one.
    ///
    /// # Errors
    /// A folder that cannot be used; weights that cannot be read.
    pub(crate) fn open(&self, session: &Session, files: &ModelFiles) -> Result<Option<(PromptCache, PromptKey)>> {
        let Some(dir) = &self.prompt_cache else { return Ok(None) };
        let disk = Some(DiskOptions { dir: dir.clone(), bytes: self.prompt_cache_size });
        let cache = PromptCache::open(&PromptCacheOptions { memory_bytes: 0, disk })?;
        let adapters = session.adapters().current();
        let layout = session.cache().layout();
        let key = PromptKey::new(&load::state(files)?, session.model(), layout, adapters.as_deref());
        Ok(Some((cache, key)))
    }
}
