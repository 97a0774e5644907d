//! A place for one sequence, which keeps its tokens for the next job that begins like it.

use std::time::Duration;

use mla_attention::CompressedMlaCache;

use super::job::{Job, JobEvent, JobStart};
use super::running::Running;
use crate::error::{Error, Result};
use crate::prompt_cache::{PromptCache, PromptKey};
use crate::sessions::error::SessionError;
use crate::sessions::step::check_tokens;

/// One sequence and the job that it is for.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// The tokens whose positions the cache holds.
    pub(super) held: Vec<u32>,
    pub(super) running: Option<Running>,
    /// Grows with each use.
    pub(super) last_use: u64,
    /// Full blocks of the sequence that the prompt cache got.
    pub(super) kept_blocks: usize,
}

impl Slot {
    /// Tokens that the slot holds and `prompt` begins with.
    pub(super) fn common(&self, prompt: &[u32]) -> usize {
        self.held.iter().zip(prompt).take_while(|(a, b)| a == b).count()
    }

    /// Begins a job with the longest beginning of its prompt that the slot or the prompt cache holds.
    ///
    /// # Errors
    /// A prompt that the model cannot read. The owner was told.
    pub(super) fn begin(
        &mut self,
        mut job: Job,
        place: (usize, &mut CompressedMlaCache),
        prompts: Option<&mut (PromptCache, PromptKey)>,
        (vocab, hidden): (usize, usize),
        now: Duration,
    ) -> Option<()> {
        let (number, cache) = place;
        let resumed = check(&job, cache.n_ctx(), vocab).and_then(|()| self.resume(&job, cache, prompts));
        match resumed {
            Ok((disk_tokens, is_evicted)) => {
                let (cached_tokens, prompt_tokens) = (self.held.len(), job.prompt.len());
                let start = JobStart { slot: number, prompt_tokens, cached_tokens, disk_tokens, is_evicted };
                let mut running = Running::new(job, now, cached_tokens, hidden);
                if running.tell(JobEvent::Started(start)).is_some() {
                    running.job.interrupt.raise();
                }
                self.running = Some(running);
                Some(())
            }
            Err(error) => {
                let _ = (job.on_event)(JobEvent::Failed(&error));
                None
            }
        }
    }

    /// Cuts the sequence back to what `job` begins with, or replaces it by blocks of the prompt cache; the tokens that came
    /// from files, and whether more of them had been there.
    fn resume(
        &mut self,
        job: &Job,
        cache: &mut CompressedMlaCache,
        prompts: Option<&mut (PromptCache, PromptKey)>,
    ) -> Result<(usize, bool)> {
        let prompt = &job.prompt;
        if !Running::may_resume(&job.work) {
            self.cut(cache, 0);
            return Ok((0, false));
        }
        let common = self.common(prompt).min(prompt.len() - 1);
        let mut is_evicted = false;
        if let Some((held, key)) = prompts {
            let own = cache.full_blocks();
            let prefix = held.prefix(key, prompt, &own[..own.len().min(common / CompressedMlaCache::BLOCK)]);
            let tokens = prefix.tokens();
            is_evicted = prefix.is_evicted;
            if tokens > common {
                self.cut(cache, 0);
                cache.resume(&prefix.blocks)?;
                self.held.extend_from_slice(&prompt[..tokens]);
                self.kept_blocks = prefix.blocks.len();
                return Ok((prefix.from_disk * CompressedMlaCache::BLOCK, is_evicted));
            }
        }
        self.cut(cache, common);
        Ok((0, is_evicted))
    }

    /// Takes the tokens of a step into the sequence, and gives full blocks to the prompt cache.
    pub(super) fn extend(
        &mut self,
        n: usize,
        cache: &CompressedMlaCache,
        prompts: Option<&mut (PromptCache, PromptKey)>,
    ) {
        let Some(running) = &self.running else { return };
        let tokens = running.pending(self.held.len());
        self.held.extend_from_slice(&tokens[..n]);
        let blocks = cache.full_blocks();
        if let Some((held, key)) = prompts
            && blocks.len() > self.kept_blocks
        {
            held.insert(key, &self.held, blocks);
            self.kept_blocks = blocks.len();
        }
    }

    fn cut(&mut self, cache: &mut CompressedMlaCache, tokens: usize) {
        cache.truncate(tokens);
        self.held.truncate(tokens);
        self.kept_blocks = self.kept_blocks.min(tokens / CompressedMlaCache::BLOCK);
    }
}

fn check(job: &Job, n_ctx: usize, vocab: usize) -> Result<()> {
    check_tokens(&job.prompt, vocab)?;
    match job.prompt.len() {
        need if need > n_ctx => Err(Error::Session(SessionError::ContextFull { have: n_ctx, need })),
        _ => Ok(()),
    }
}
