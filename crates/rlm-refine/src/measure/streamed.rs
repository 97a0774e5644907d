//! A model that is larger than memory, as the gates see it: its layers are loaded one at a time, and each moves the tokens of
//! a group of prompts on.
//!
//! ```text
//! for each token of the longest answer:    one pass over the file; every prompt of the group gets its next token
//! behind the last one:                     one pass that records prompt and answer of each
//!
//! a pass:   layer 0 -> all sequences | layer 1 -> all sequences | ...      each layer's pages are released behind it
//! ```
//!
//! **Invariant:** answers and columns have the bits of [`ModelSubject`](super::ModelSubject): a row does not depend on the
//! rows beside it.
//!
//! **Invariant:** resident memory stays below [`StreamedSubject::memory_bytes`]: a layer, or the embedding, or the head, whichever
//! is the largest, and the tokens of a group. The pages of each are released before the next one is touched.

use std::collections::VecDeque;
use std::sync::Arc;

use behavior_eval::model::{Answer, AnswerEnd, ModelError, RoutingTable, Run, Subject, SubjectInfo, Want};
use gguf_bitnet::LogicalTensor;
use mla_attention::{CacheType, CompressedMlaCache, Segments, Sequences};
use moe_runtime::forward::{Batch, DecoderLayer, FeedForward, LayerScratch, ModelEnds};
use moe_runtime::{ChatTemplate, ControlTokens, LoadedBytes, ModelFiles, Sampler, SamplerConfig, Tokenizer};
use ternary_core::ActMode;
use tl_kernels::Pool;

use super::answers::encode;
use super::error::{Error, Result};
use super::info::subject_info;
use super::recorder::{Recorder, route_rows};
use crate::ptq::layer_of;

/// Rows that run at once.
const BATCH_ROWS: usize = 256;
/// Most prompts of a group.
const MOST_PROMPTS: usize = 64;
/// Program, metadata, tokenizer, buffers of a batch.
const FIXED_BYTES: u64 = 256 << 20;

/// The work on one group of prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupReport {
    /// Prompts in the group.
    pub prompts: usize,
    /// Passes over the layers.
    pub passes: usize,
    /// Bytes of the weights that the passes go over. A pass with few tokens reaches a part of the experts alone; where memory is
    /// short, the system reads pages more than once.
    pub weight_bytes: u64,
}

/// How a [`StreamedSubject`] runs.
#[derive(Clone, Debug)]
pub struct StreamedOptions {
    /// The threads that compute all products.
    pub pool: Arc<Pool>,
    /// Activations of ternary, Q8_0 and Q6_K matrices.
    pub act_mode: ActMode,
    /// Numbers in the key/value caches.
    pub cache_type: CacheType,
    /// Most resident memory; `None` takes groups of 64 prompts.
    pub memory_bytes: Option<u64>,
}

/// A model whose layers are in memory one at a time.
pub struct StreamedSubject {
    files: ModelFiles,
    info: SubjectInfo,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    ends: ModelEnds,
    options: StreamedOptions,
    /// Bytes of weights that are resident at most, and that a pass reads.
    weight_bytes: [u64; 2],
    /// Prompts that will be asked for, in order.
    announced: VecDeque<Vec<u32>>,
    want: Want,
    /// Prompts of the group that were computed and not asked for yet.
    ready: VecDeque<Sequence>,
    on_group: Box<dyn FnMut(&GroupReport)>,
}

impl std::fmt::Debug for StreamedSubject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamedSubject")
            .field("info", &self.info)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// A prompt of a group.
struct Sequence {
    /// The prompt, and the answer as far as it has come.
    tokens: Vec<u32>,
    prompt: usize,
    end: Option<AnswerEnd>,
    /// One for each layer.
    caches: Vec<CompressedMlaCache>,
    /// Tokens that the caches hold.
    done: usize,
    /// The residual stream of the new rows, then their final hidden states.
    x: Vec<f32>,
    sampler: Sampler,
    run: Option<Run>,
    /// Routing of the rounded router inputs, one table for each layer with a router.
    local: Vec<RoutingTable>,
}

impl StreamedSubject {
    /// Opens the model for streaming; reads no layer. `id` is its [`ModelFiles::identity`]; `on_group` learns about the groups.
    ///
    /// # Errors
    /// [`Error::NoExperts`], [`Error::NoChatTemplate`], and tensors outside of the layers that cannot be used.
    pub fn open(
        files: ModelFiles,
        id: String,
        options: StreamedOptions,
        on_group: Box<dyn FnMut(&GroupReport)>,
    ) -> Result<StreamedSubject> {
        let info = subject_info(&files, id)?;
        let tokenizer = files.tokenizer()?;
        let Some(template) = ChatTemplate::of_model(&tokenizer)? else {
            return Err(Error::NoChatTemplate { path: files.path().display().to_string() });
        };
        let ends = ModelEnds::load(&files.catalog, &files.config, options.act_mode)?;
        let stored =
            |tensor: &LogicalTensor| -> u64 { files.catalog.storage(tensor).values().map(|(_, bytes)| *bytes).sum() };
        let mut layers = vec![0u64; files.config.n_layers];
        // Of the parts outside of the layers, the ones that stay in memory and the ones whose pages are released.
        let (mut kept, mut released, mut all) = (0u64, Vec::new(), 0u64);
        for tensor in files.catalog.tensors() {
            let (loaded, stored) = (LoadedBytes::of(&files.catalog, tensor), stored(tensor));
            // Weights that become another type or order are in memory twice while they are made.
            let resident = loaded.total().saturating_add(if loaded.converted > 0 { stored } else { 0 });
            match layer_of(&tensor.name) {
                Some(index) => match layers.get_mut(index) {
                    Some(layer) => *layer = layer.saturating_add(resident),
                    // The layers behind the last one, which predict tokens ahead, are not read.
                    None => continue,
                },
                None if loaded.converted == 0 => released.push(resident),
                None => kept = kept.saturating_add(resident),
            }
            all = all.saturating_add(stored);
        }
        let largest = layers.iter().chain(&released).copied().max().unwrap_or(0);
        let weight_bytes = [largest.saturating_add(kept), all];
        let (announced, ready, want) = (VecDeque::new(), VecDeque::new(), Want::default());
        Ok(Self { files, info, tokenizer, template, ends, options, weight_bytes, announced, want, ready, on_group })
    }

    /// Upper bound of the resident memory with groups of `tokens` tokens, mapped pages included.
    #[must_use]
    pub fn memory_bytes(&self, tokens: usize) -> u64 {
        let group = (tokens as u64).saturating_mul(self.token_bytes());
        FIXED_BYTES.saturating_add(self.weight_bytes[0]).saturating_add(group)
    }

    /// Bytes that a token of a group takes: caches, residual stream, and the columns that are recorded.
    fn token_bytes(&self) -> u64 {
        let (config, info) = (&self.files.config, &self.info);
        let caches = config.n_layers * config.cache_shape().bytes_per_token(self.options.cache_type);
        let inputs = if self.want.router_inputs { 2 * info.hidden } else { 0 };
        let scores = if self.want.scores { info.n_experts } else { 0 };
        let columns = info.moe_layers.len() * (inputs + scores + 6 * info.top_k);
        (caches + 4 * (columns + 4 * info.hidden)) as u64
    }

    /// Computes the group that begins with `prompt`.
    fn compute(&mut self, prompt: &[u32], max_new_tokens: usize) -> Result<(), ModelError> {
        let mut group = vec![prompt.to_vec()];
        let mut tokens = prompt.len() + max_new_tokens;
        let limit = self.options.memory_bytes.unwrap_or(u64::MAX);
        let need = self.memory_bytes(tokens);
        if need > limit {
            return Err(Error::Memory { need, limit, tokens }.into());
        }
        if self.announced.front().is_some_and(|next| next == prompt) {
            self.announced.pop_front();
        }
        while let Some(next) = self.announced.front().filter(|_| group.len() < MOST_PROMPTS) {
            tokens += next.len() + max_new_tokens;
            if self.memory_bytes(tokens) > limit {
                break;
            }
            group.extend(self.announced.pop_front());
        }
        // The group before has touched the head, for its last logits.
        self.release_outside();
        let mut sequences = group.into_iter().map(|prompt| self.sequence(prompt)).collect::<Result<Vec<Sequence>>>()?;
        let mut passes = 0;
        while self.advance(&mut sequences, max_new_tokens)? {
            passes += 1;
        }
        self.record(&mut sequences)?;
        passes += 1;
        let weight_bytes = self.weight_bytes[1].saturating_mul(passes as u64);
        (self.on_group)(&GroupReport { prompts: sequences.len(), passes, weight_bytes });
        self.ready = sequences.into();
        Ok(())
    }

    fn sequence(&self, prompt: Vec<u32>) -> Result<Sequence> {
        let sampler = Sampler::new(SamplerConfig::greedy())?;
        Ok(Sequence {
            prompt: prompt.len(),
            tokens: prompt,
            end: None,
            caches: Vec::new(),
            done: 0,
            x: Vec::new(),
            sampler,
            run: None,
            local: Vec::new(),
        })
    }

    /// Gives every answer that goes on its next token; `false` when none goes on.
    fn advance(&self, sequences: &mut [Sequence], max_new_tokens: usize) -> Result<bool, ModelError> {
        for sequence in sequences.iter_mut().filter(|sequence| sequence.end.is_none()) {
            if sequence.tokens.len() - sequence.prompt >= max_new_tokens {
                sequence.end = Some(AnswerEnd::Length);
            } else if sequence.tokens.len() > self.files.config.n_ctx && sequence.tokens.len() > sequence.prompt {
                sequence.end = Some(AnswerEnd::Context);
            }
        }
        if sequences.iter().all(|sequence| sequence.end.is_some()) {
            return Ok(false);
        }
        self.pass(sequences, max_new_tokens, false)?;
        let hidden = self.info.hidden;
        for sequence in sequences.iter_mut().filter(|sequence| sequence.end.is_none()) {
            let last = &sequence.x[sequence.x.len() - hidden..];
            let token = sequence.sampler.sample(&self.ends.logits(&self.options.pool, last))?;
            match self.tokenizer.is_stop(token) {
                true => sequence.end = Some(AnswerEnd::Stop),
                false => sequence.tokens.push(token),
            }
        }
        self.release_outside();
        Ok(true)
    }

    /// Runs prompt and answer of every sequence once more, and keeps the columns.
    fn record(&self, sequences: &mut [Sequence]) -> Result<(), ModelError> {
        for sequence in sequences.iter_mut() {
            sequence.caches.iter_mut().for_each(CompressedMlaCache::reset);
            (sequence.done, sequence.end) = (0, sequence.end.or(Some(AnswerEnd::Length)));
            sequence.run = Some(Recorder::columns(&self.info, &self.want, sequence.tokens.len()));
        }
        self.pass(sequences, 0, true)?;
        for sequence in sequences.iter_mut() {
            if let Some(column) = sequence.run.as_mut().and_then(|run| run.final_hidden.as_mut()) {
                column.copy_from_slice(&sequence.x);
            }
            sequence.caches = Vec::new();
        }
        Ok(())
    }

    /// Moves the new tokens of the sequences through all layers: of those without an end, or of all when they are recorded.
    fn pass(&self, sequences: &mut [Sequence], room: usize, records: bool) -> Result<(), ModelError> {
        let config = &self.files.config;
        let mut active: Vec<&mut Sequence> =
            sequences.iter_mut().filter(|sequence| records || sequence.end.is_none()).collect();
        for sequence in &mut active {
            self.ends.embed(&sequence.tokens[sequence.done..], &mut sequence.x)?;
        }
        self.release_outside();
        let mut scratch = LayerScratch::default();
        for index in 0..config.n_layers {
            let layer = DecoderLayer::load(&self.files.catalog, config, index, self.options.act_mode)?;
            for sequence in &mut active {
                if sequence.caches.len() == index {
                    let n_ctx = (sequence.tokens.len() + room).min(config.n_ctx);
                    let cache = CompressedMlaCache::new([layer.cache_shape()], n_ctx, self.options.cache_type);
                    sequence.caches.push(cache.map_err(moe_runtime::Error::from)?);
                }
                self.forward(&layer, sequence, &mut scratch, records)?;
            }
            drop(layer);
            let of_layer = |tensor: &&LogicalTensor| layer_of(&tensor.name) == Some(index);
            self.files.catalog.tensors().iter().filter(of_layer).for_each(|tensor| self.files.catalog.release(tensor));
        }
        for sequence in active {
            self.ends.norm(&self.options.pool, &mut sequence.x);
            sequence.done = sequence.tokens.len();
        }
        Ok(())
    }

    /// Moves the new rows of a sequence through a layer.
    fn forward(
        &self,
        layer: &DecoderLayer,
        sequence: &mut Sequence,
        scratch: &mut LayerScratch,
        records: bool,
    ) -> Result<(), ModelError> {
        let (pool, hidden, n) = (&*self.options.pool, self.info.hidden, sequence.tokens.len());
        let cache = std::slice::from_mut(&mut sequence.caches[layer.index()]);
        let mut run = sequence.run.take().filter(|_| records);
        for x in sequence.x.chunks_mut(BATCH_ROWS * hidden) {
            let segments = Segments::one(&cache[0], x.len() / hidden);
            let mut rows = Sequences { segments: &segments, caches: &mut *cache, layer: 0 };
            let batch = Batch { pool, x, scratch: &mut *scratch, adapter: None };
            match run.take() {
                None => layer.forward(batch, &mut rows, &mut ())?,
                Some(columns) => {
                    let mut recorder = Recorder::of_layer(layer, &self.info, columns, n);
                    layer.forward(batch, &mut rows, &mut recorder)?;
                    run = Some(recorder.into_run());
                }
            }
        }
        if let (Some(run), FeedForward::Moe { router, .. }) = (&run, layer.ffn())
            && let Some(inputs) = &run.router_inputs
        {
            let rows = inputs.chunks_exact((n * hidden).max(1)).nth(sequence.local.len()).unwrap_or_default();
            let rounded: Vec<f32> = rows.iter().map(|&x| behavior_eval::records::artifact::rounded(x)).collect();
            sequence.local.push(route_rows(pool, router, &rounded, hidden));
        }
        sequence.run = run;
        Ok(())
    }

    /// Gives back the pages of the embedding and the head.
    fn release_outside(&self) {
        let catalog = &self.files.catalog;
        catalog
            .tensors()
            .iter()
            .filter(|tensor| layer_of(&tensor.name).is_none())
            .for_each(|tensor| catalog.release(tensor));
    }
}

impl Subject for StreamedSubject {
    fn info(&self) -> &SubjectInfo {
        &self.info
    }

    fn announce(&mut self, prompts: Vec<Vec<u32>>, want: &Want) {
        self.announced = prompts.into();
        self.want = want.clone();
    }

    fn encode(&mut self, system: &str, user: &str) -> Result<Vec<u32>, ModelError> {
        Ok(encode(&self.tokenizer, &self.template, system, user)?)
    }

    fn generate(&mut self, prompt: &[u32], max_new_tokens: usize) -> Result<Answer, ModelError> {
        let is_of = |sequence: &Sequence| sequence.tokens.get(..sequence.prompt) == Some(prompt);
        while self.ready.front().is_some_and(|sequence| !is_of(sequence)) {
            self.ready.pop_front();
        }
        if self.ready.is_empty() {
            self.compute(prompt, max_new_tokens)?;
        }
        let sequence = self.ready.front().ok_or("the group is empty")?;
        let tokens = sequence.tokens[sequence.prompt..].to_vec();
        let text = self.tokenizer.decode(&tokens, ControlTokens::Hide);
        Ok(Answer { tokens, text, stop_reason: sequence.end.unwrap_or(AnswerEnd::Length) })
    }

    fn run(&mut self, tokens: &[u32], want: &Want, logits: &mut dyn FnMut(usize, &[f32])) -> Result<Run, ModelError> {
        let sequence = self.ready.front_mut().filter(|sequence| sequence.tokens == tokens);
        let Some(sequence) = sequence else { return Err("a streamed model records its own answers only".into()) };
        if let Some(from) = want.logits_from {
            for (row, position) in sequence.x.chunks_exact(self.info.hidden).zip(0..).skip(from) {
                logits(position, &self.ends.logits(&self.options.pool, row));
            }
        }
        sequence.run.take().ok_or_else(|| "the prompt was recorded already".into())
    }

    fn route(&mut self, layer: usize, _inputs: &[f32]) -> Result<RoutingTable, ModelError> {
        let table = self.ready.front().and_then(|sequence| sequence.local.get(layer));
        table.cloned().ok_or_else(|| format!("layer number {layer} was not recorded").into())
    }
}
