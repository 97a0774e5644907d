//! The memory of a run, summed from shapes and settings before any weight is read.
//!
//! ```text
//! trained numbers | penalty | pages of both files | both heads | residual stream | kept activations | rewards | the largest work
//! ```
//! Work is what lives for a while only: the values of one layer in a backward pass, the logits of some positions, an optimiser's step,
//! the fit of a router or a part of the output. Where a limit is given, first the pages of frozen weights are given back behind
//! their use, then activations are computed again.
//!
//! **Invariant:** the sum is an upper bound of the resident memory, and no choice of it changes a number of the run.

use gguf_bitnet::{LogicalTensor, TensorClass};
use mla_attention::CacheType;
use moe_runtime::adapters::FactorPair;
use moe_runtime::models::{AttentionConfig, ModelConfig};
use moe_runtime::{MemoryPlan, ModelFiles};
use serde::Serialize;

use super::error::TrainError;
use super::model::LOGIT_TOKENS;
use super::optim::Rule;
use super::params::{Group, Kind};
use super::product::UNIT_BYTES;
use super::repair::WINDOWS_AT_A_TIME;
use super::source::Source;
use super::trainer::TrainOptions;
use super::weights::trained;
use super::windows::{REPAIR_TOKENS, held_out_windows};
use crate::adapt::FisherKind;
use crate::error::Result;

/// Program, tokenizer, texts, stacks of threads, and what the allocator keeps.
const FIXED_BYTES: u64 = 128 << 20;
/// Parts of both operands that a thread copies for its products.
const THREAD_BYTES: u64 = 1 << 20;
/// Tokens of a prompt with its answer, where rewards are practised: longer ones are not counted.
const ANSWER_TOKENS: usize = 4096;
/// Answers in a pass.
const ANSWERS: usize = 8;

/// Bytes that a run holds at its peak.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TrainMemory {
    /// Trained numbers with their gradients and the optimiser's moments, by group.
    pub trained: Vec<(Group, u64)>,
    /// The penalty on moves of protected numbers.
    pub penalty: u64,
    /// Pages of the student's and the teacher's files.
    pub files: u64,
    /// Both heads in F32.
    pub heads: u64,
    /// Rows of the residual stream that a backward pass starts from.
    pub stream: u64,
    /// Activations of all layers; 0 where they are computed again.
    pub activations: u64,
    /// The models that answer and their caches, where answers are rewarded.
    pub rewards: u64,
    /// The largest of what is held for a while: one layer, logits, a step of the optimiser, a fit, a part of the output.
    pub work: u64,
    /// The program with its texts.
    pub program: u64,
    /// Whether a pass keeps its activations.
    pub keeps_activations: bool,
    /// Whether pages of frozen weights stay mapped behind their use.
    pub keeps_pages: bool,
    /// The tokens of a pass.
    pub tokens: usize,
}

impl TrainMemory {
    /// All parts together, the most that is resident at a time.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let of_groups = self.trained.iter().map(|(_, bytes)| *bytes);
        let parts = [self.penalty, self.files, self.heads, self.stream, self.activations, self.rewards];
        of_groups.chain(parts).chain([self.work, self.program]).fold(0, u64::saturating_add)
    }

    /// The most comfortable plan of a run within `limit`; without one, within the memory that the system has free, or else the
    /// smallest.
    ///
    /// # Errors
    /// [`TrainError::Memory`] where the smallest plan is above the limit; [`TrainError::TernaryType`].
    pub(super) fn plan(run: &Run<'_>, limit: Option<u64>) -> Result<Self, TrainError> {
        let most = limit.or_else(gguf_bitnet::available_bytes).unwrap_or(u64::MAX);
        let mut last = None;
        for (keeps_pages, keeps_activations) in [(true, true), (false, true), (false, false)] {
            let plan = run.memory(keeps_pages, keeps_activations)?;
            if plan.bytes() <= most {
                return Ok(plan);
            }
            last = Some(plan);
        }
        let plan = last.expect("there is a smallest plan");
        if limit.is_none() {
            return Ok(plan);
        }
        let (group, of_group) = plan
            .trained
            .iter()
            .max_by_key(|(_, bytes)| *bytes)
            .map_or(("none", 0), |(group, bytes)| (group.name(), *bytes));
        Err(TrainError::Memory { limit: most, needed: plan.bytes(), tokens: plan.tokens, group, of_group })
    }
}

/// The settings of a run that decide about its memory.
pub(super) struct Run<'r> {
    pub(super) student: &'r ModelFiles,
    pub(super) source: &'r Source<'r>,
    pub(super) options: &'r TrainOptions,
    /// Windows of the protected texts.
    pub(super) protected: &'r [Vec<u32>],
    pub(super) has_rewards: bool,
    pub(super) threads: usize,
}

impl Run<'_> {
    fn memory(&self, keeps_pages: bool, keeps_activations: bool) -> Result<TrainMemory, TrainError> {
        let (config, o) = (&self.student.config, self.options);
        let (hidden, tokens) = (config.hidden, self.tokens());
        let numbers = Numbers::of(self)?;
        let shape = Shape {
            config,
            groups: &o.groups,
            sidecar_rank: self.sidecar_rank(),
            threads: self.threads,
            tokens,
            window: self.longest(),
        };
        let has_teacher = self.teacher().is_some();
        let heads = product(&[config.vocab, hidden, 4, 1 + usize::from(has_teacher)]);
        let layers = (0..config.n_layers).map(|layer| shape.layer(layer)).max().unwrap_or(0);
        let kept =
            (0..config.n_layers).map(|layer| product(&[tokens, shape.tape(layer), 4])).fold(0, u64::saturating_add);
        let work =
            [layers, shape.logits(), numbers.step, self.repair(&shape), self.writing(&numbers), numbers.measuring];
        let scores = match &config.moe {
            Some(moe) if o.router_loss > 0.0 => {
                product(&[tokens, config.n_layers, moe.router.n_experts + moe.router.top_k, 4])
            }
            _ => 0,
        };
        Ok(TrainMemory {
            trained: numbers.trained,
            penalty: numbers.penalty,
            files: self.pages(keeps_pages),
            heads,
            // Two rows per layer, those behind the last and behind its norm with their gradients, and the teacher's; where routes count,
            // the teacher's scores of each layer.
            stream: product(&[tokens, hidden, 4, 2 * config.n_layers + 6]).saturating_add(scores),
            activations: if keeps_activations { kept } else { 0 },
            rewards: self.rewards(),
            work: work.into_iter().max().unwrap_or(0),
            program: FIXED_BYTES.saturating_add(product(&[self.threads, THREAD_BYTES as usize])),
            keeps_activations,
            keeps_pages,
            tokens,
        })
    }

    /// The largest rank of a trained sidecar; 0 without one.
    fn sidecar_rank(&self) -> usize {
        let pairs = self.options.adapter.iter().flat_map(|adapter| &adapter.pairs);
        pairs.filter(|pair| Group::of_addition(&pair.tensor) == Group::Sidecar).map(FactorPair::rank).max().unwrap_or(0)
    }

    /// Most tokens of a pass.
    fn tokens(&self) -> usize {
        let (windows, o) = (self.source.windows(), self.options);
        let together = o.windows_per_step.max(held_out_windows(windows).len()).min(o.windows_at_a_time);
        let practised = if self.has_rewards { ANSWERS * ANSWER_TOKENS.min(self.student.config.n_ctx) } else { 0 };
        self.longest().saturating_mul(together.max(1)).max(practised)
    }

    /// Most tokens of a window.
    fn longest(&self) -> usize {
        let texts = self.source.windows().iter().chain(self.protected).map(Vec::len).max().unwrap_or(0);
        if self.has_rewards { texts.max(ANSWER_TOKENS.min(self.student.config.n_ctx)) } else { texts }
    }

    fn teacher(&self) -> Option<&ModelFiles> {
        match self.source {
            Source::Texts { teacher, .. } => Some(teacher),
            Source::Recordings(_) => None,
        }
    }

    /// Mapped pages of both files.
    fn pages(&self, keeps_pages: bool) -> u64 {
        let of_file = |files: &ModelFiles| {
            let tensors = files.catalog.tensors().iter();
            tensors.map(|tensor| stored(files, tensor)).fold(0, u64::saturating_add)
        };
        if keeps_pages {
            return of_file(self.student).saturating_add(self.teacher().map_or(0, of_file));
        }
        // A tensor of the student. The teacher's are read matrix by matrix: one, or one expert of each thread.
        let of_student =
            self.student.catalog.tensors().iter().map(|tensor| stored(self.student, tensor)).max().unwrap_or(0);
        let of_teacher = |files: &ModelFiles| {
            let matrix = |tensor: &LogicalTensor| {
                let together = if tensor.class == TensorClass::RoutedExpert { self.threads as u64 } else { 1 };
                (stored(files, tensor) / tensor.outer().max(1) as u64).saturating_mul(together)
            };
            files.catalog.tensors().iter().map(matrix).max().unwrap_or(0)
        };
        of_student.max(self.teacher().map_or(0, of_teacher))
    }

    /// The fit of a router behind the last step.
    fn repair(&self, shape: &Shape<'_>) -> u64 {
        let (config, Some(_), Some(moe)) = (shape.config, self.options.repair, &shape.config.moe) else { return 0 };
        let windows = self.source.windows();
        let all: usize = windows.iter().map(Vec::len).sum();
        let rows = all.min(REPAIR_TOKENS + shape.window * held_out_windows(windows).len());
        // The streams of both models in front of a layer and behind it, the inputs of both routers and their copies; scores and labels;
        // the squares of a least-squares fit.
        let streams = product(&[rows, config.hidden, 4, 8]);
        let scores = product(&[rows, moe.router.n_experts, 4, 12]);
        let squares = product(&[config.hidden, config.hidden, 8, 4]);
        let pass = Shape { tokens: shape.window.saturating_mul(WINDOWS_AT_A_TIME), ..*shape };
        let layers = (0..config.n_layers).map(|layer| pass.layer(layer)).max().unwrap_or(0);
        // The routers themselves join the trained numbers.
        let routers = product(&[config.n_layers, moe.router.n_experts, config.hidden, 8]);
        [streams, scores, squares, layers, routers].into_iter().fold(0, u64::saturating_add)
    }

    /// A part of the output with its rows, and the trits of a tensor that are compared with those of the file.
    fn writing(&self, numbers: &Numbers) -> u64 {
        let files = self.student;
        let largest = files.catalog.tensors().iter().map(|tensor| stored(files, tensor)).max().unwrap_or(0);
        largest.min(UNIT_BYTES as u64).saturating_mul(3).max(numbers.largest_trits.saturating_mul(4))
    }

    /// The student and the teacher as the runtime loads them, with the student's trained tensors beside its file.
    fn rewards(&self) -> u64 {
        let (true, Some(grpo)) = (self.has_rewards, self.options.grpo) else { return 0 };
        let n_ctx = ANSWER_TOKENS.min(self.student.config.n_ctx);
        let of_model = |files: &ModelFiles| {
            MemoryPlan::new(&files.config, &files.catalog, n_ctx, CacheType::F32, n_ctx)
                .with_sequences(&files.config, grpo.group + 1)
                .total_bytes()
        };
        let encoded =
            self.student.catalog.tensors().iter().flat_map(|tensor| self.student.catalog.storage(tensor).into_values());
        let encoded = encoded.fold(0u64, |sum, (_, bytes)| sum.saturating_add(bytes));
        [of_model(self.student), encoded, self.teacher().map_or(0, of_model)].into_iter().fold(0, u64::saturating_add)
    }
}

/// Sums over the trained numbers.
struct Numbers {
    trained: Vec<(Group, u64)>,
    penalty: u64,
    /// The information while it is measured: copies that choose what is kept.
    measuring: u64,
    /// Bytes that a step of the optimiser holds.
    step: u64,
    /// Numbers of the largest ternary tensor whose trits are trained.
    largest_trits: u64,
}

impl Numbers {
    fn of(run: &Run<'_>) -> Result<Self, TrainError> {
        let o = run.options;
        let mut trained_bytes = Vec::new();
        let (mut all, mut step, mut largest_trits) = (0u64, 0u64, 0u64);
        for group in Group::ALL {
            let mut bytes = 0u64;
            for entry in trained(run.student, &o.groups)?.into_iter().filter(|entry| entry.group == group) {
                let n = entry.numbers as u64;
                all = all.saturating_add(n);
                // Value, gradient and two moments.
                bytes = bytes.saturating_add(n.saturating_mul(16));
                if entry.kind == Kind::Latents {
                    bytes = bytes.saturating_add(n.saturating_mul(4) / ternary_core::BLOCK as u64);
                    largest_trits = largest_trits.max(n);
                }
                if o.optimizer.rule == Rule::Muon && entry.kind == Kind::Weights {
                    let (rows, cols) = (entry.tensor.matrix_rows(), entry.tensor.cols());
                    let side = rows.min(cols);
                    step = step.max(product(&[rows, cols, 4, 3]).saturating_add(product(&[side, side, 4, 3])));
                }
            }
            if let Some(adapter) = o.adapter.as_ref().filter(|_| group.is_of_adapter() && o.groups.contains(&group)) {
                let pairs = adapter.pairs.iter().filter(|pair| Group::of_addition(&pair.tensor) == group);
                let factors = pairs.map(|pair| (pair.a.len() + pair.b.len()) as u64);
                let n = factors.sum::<u64>();
                all = all.saturating_add(n);
                // Beside value, gradient and moments the file that the factors come from.
                bytes = bytes.saturating_add(n.saturating_mul(20));
            }
            if bytes > 0 {
                trained_bytes.push((group, bytes));
            }
        }
        if o.focus.is_some() {
            step = step.saturating_add(all.saturating_mul(4));
        }
        let ewc = o.ewc.filter(|_| !run.protected.is_empty());
        let copies =
            ewc.map_or(0, |ewc| u64::from(ewc.keep.is_some()).max(u64::from(ewc.fisher == FisherKind::Shuffled)));
        Ok(Self {
            trained: trained_bytes,
            penalty: ewc.map_or(0, |_| all.saturating_mul(8)),
            measuring: all.saturating_mul(4 * copies),
            step,
            largest_trits,
        })
    }
}

/// The shapes of a pass.
#[derive(Clone, Copy)]
struct Shape<'s> {
    config: &'s ModelConfig,
    groups: &'s [Group],
    sidecar_rank: usize,
    threads: usize,
    tokens: usize,
    /// The tokens of the longest window.
    window: usize,
}

impl Shape<'_> {
    /// Widths of all queries, keys and values of a token.
    fn qkv(&self) -> [usize; 3] {
        let n = self.config.n_heads;
        match &self.config.attention {
            AttentionConfig::Mla(dims) => {
                let key = dims.qk_nope + dims.qk_rope;
                [n * key, n * key, n * dims.v_head]
            }
            AttentionConfig::Gqa(dims) => [n, dims.n_kv_heads, dims.n_kv_heads].map(|heads| heads * dims.head_dim),
        }
    }

    /// Numbers per token that an attention keeps beside queries, keys and values.
    fn inner(&self) -> usize {
        let [q, k, _] = self.qkv();
        match &self.config.attention {
            AttentionConfig::Mla(dims) => 2 * dims.q_lora.unwrap_or(0) + 2 * dims.kv_lora,
            AttentionConfig::Gqa(_) => q + k,
        }
    }

    /// The width of the networks of a layer, and how many of them a token passes through.
    fn networks(&self, layer: usize) -> [(usize, usize); 2] {
        match self.config.moe.as_ref().filter(|_| self.config.is_moe(layer)) {
            Some(moe) => [(moe.expert_ff, moe.router.top_k), (moe.shared_ff(), 1)],
            // The product and what its norm makes of it.
            None => [(self.config.dense_ff, 1), (0, 0)],
        }
    }

    /// Numbers per token that a layer keeps for its backward pass.
    fn tape(&self, layer: usize) -> usize {
        let networks = self.networks(layer).iter().map(|(ff, n)| 4 * ff * n).sum::<usize>();
        let routes = self.config.moe.as_ref().map_or(0, |moe| moe.router.n_experts + 2 * moe.router.top_k);
        self.qkv().iter().sum::<usize>() + self.inner() + networks + routes
    }

    /// Bytes of the backward pass of a layer beyond what is kept: the larger of attention and networks, each computed again.
    fn layer(&self, layer: usize) -> u64 {
        self.attention().max(self.feed(layer))
    }

    fn attention(&self) -> u64 {
        let (config, [q, k, v]) = (self.config, self.qkv());
        let values = config.n_heads * (v / self.kv_heads());
        // The tape, its gradients, the attended values with theirs, and rows of the stream.
        let per_token = 2 * (q + k + v + self.inner()) + 2 * values + 6 * config.hidden;
        let weights = match &config.attention {
            AttentionConfig::Mla(dims) => {
                let queries = dims.q_lora.map_or(config.hidden * q, |rank| rank * (config.hidden + q));
                queries + dims.kv_lora * (config.hidden + k + v) + dims.qk_rope * config.hidden + values * config.hidden
            }
            AttentionConfig::Gqa(_) => (q + k + v + values) * config.hidden,
        };
        let copies = if self.groups.contains(&Group::Attention) { 3 } else { 1 };
        [
            product(&[self.tokens, per_token, 4]),
            product(&[weights, 4, copies]),
            // The weights of a head and their gradient.
            product(&[self.threads, self.window, self.window, 4, 2]),
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }

    fn kv_heads(&self) -> usize {
        match &self.config.attention {
            AttentionConfig::Mla(_) => self.config.n_heads,
            AttentionConfig::Gqa(dims) => dims.n_kv_heads,
        }
    }

    fn feed(&self, layer: usize) -> u64 {
        let hidden = self.config.hidden;
        let [(ff, per_token), (shared, _)] = self.networks(layer);
        let is_moe = self.config.is_moe(layer);
        // An expert has at most all tokens, and all experts together have each token as often as it is routed.
        let rows = self.tokens.saturating_mul(if is_moe { per_token.min(self.threads) } else { 1 });
        let at_work = product(&[rows, 3 * hidden + 8 * ff, 4]).max(product(&[self.tokens, 3 * hidden + 8 * shared, 4]));
        let outputs = product(&[self.tokens, hidden, 4, per_token + 4]);
        let together = if is_moe { self.threads } else { 1 };
        let has = |group| self.groups.contains(&group);
        // The matrices of a network, the gradient of one, and those of all that go to the registry.
        let copies = if has(Group::LatentTrits) || has(Group::DenseNetwork) { 7 } else { 4 };
        let routed = product(&[together, hidden, ff, 4, copies]);
        let of_shared =
            product(&[hidden, shared, 4, if has(Group::SharedExperts) || has(Group::LatentTrits) { 7 } else { 4 }]);
        // Both factors with their gradients, and the numbers of each rank with theirs.
        let of_sidecar = product(&[self.sidecar_rank, 4 * hidden + 2 * self.tokens, 4]);
        [at_work, outputs, routed, of_shared, of_sidecar].into_iter().fold(0, u64::saturating_add)
    }

    /// Logits of some positions with their gradients, the teacher's twice, the probabilities of a position of each thread, and
    /// the gradient of the head where it is trained.
    fn logits(&self) -> u64 {
        let vocab = self.config.vocab;
        let rows = product(&[LOGIT_TOKENS.min(self.tokens), vocab, 4, 4]);
        let is_trained = self.groups.contains(&Group::Head) || self.groups.contains(&Group::Embedding);
        let gradient = if is_trained { product(&[vocab, self.config.hidden, 4]) } else { 0 };
        [rows, product(&[self.threads, vocab, 16]), gradient].into_iter().fold(0, u64::saturating_add)
    }
}

/// Bytes of a tensor in its file.
fn stored(files: &ModelFiles, tensor: &LogicalTensor) -> u64 {
    files.catalog.storage(tensor).into_values().fold(0u64, |sum, (_, bytes)| sum.saturating_add(bytes))
}

fn product(factors: &[usize]) -> u64 {
    factors.iter().fold(1u64, |p, &f| p.saturating_mul(f as u64))
}
