//! Which experts stay in memory when the file is larger than the memory it may take.
//!
//! ```text
//! router ──► hook(layer, experts) ──► ExpertCache: those not held are loaded, others make room
//!                                 └─► ExpertPredictor: which experts will the next layer want?  (only if asked for)
//!                                            │
//!                                            ▼
//!                             Prefetcher: read ahead, give back            (FilePages: pages of the mapped file)
//! ```
//!
//! All pages of an expert are asked for at once, before the first of them is touched: the disk then has a queue to work on
//! instead of one page at a time. Nothing here changes a result.
//!
//! **Invariant:** the experts of the batch at hand are never given back.

mod cache;
mod pages;
mod predictor;

use std::sync::{Arc, Mutex, PoisonError};

use gguf_bitnet::Catalog;

use crate::forward::experts::ResidencyHook;
use crate::forward::layer::FeedForward;
use crate::forward::model::CraftsmanModel;
use crate::models::config::RouterConfig;

pub use cache::{CachePolicy, CacheStatistics, ExpertCache, Request};
pub use pages::FilePages;
pub use predictor::ExpertPredictor;

/// A routed expert of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExpertKey {
    /// Layer, from 0.
    pub layer: usize,
    /// Expert of the layer.
    pub expert: usize,
}

/// What can bring experts into memory and give them back. Both are hints: an expert can always be read.
pub trait Prefetcher: Send + Sync {
    /// Starts to bring an expert into memory and returns without waiting for it.
    fn load(&self, expert: ExpertKey);
    /// Gives the memory of an expert back.
    fn release(&self, expert: ExpertKey);
}

/// How memory for experts is used.
#[derive(Clone, Copy, Debug)]
pub struct ResidencyOptions {
    /// Bytes that routed experts may take.
    pub bytes: u64,
    /// Which expert makes room.
    pub policy: CachePolicy,
    /// Experts of the next layer that are loaded ahead; 0 turns prediction off.
    pub ahead: usize,
    /// Replaces the prediction by as many experts drawn with this seed: the control that a prediction must beat.
    pub shuffled: Option<u64>,
}

/// Keeps the experts of one model within their memory.
pub struct Residency {
    prefetcher: Box<dyn Prefetcher>,
    /// Most experts of one token in a layer.
    per_token: usize,
    state: Mutex<State>,
}

struct State {
    cache: ExpertCache,
    predictor: Option<ExpertPredictor>,
    ahead: usize,
    /// Experts that the predictor named.
    named: Vec<usize>,
}

impl Residency {
    /// Residency of `n_layers` layers whose tokens are routed by `router`, with memory for `capacity` experts.
    #[must_use]
    pub fn new(
        prefetcher: Box<dyn Prefetcher>,
        n_layers: usize,
        router: &RouterConfig,
        capacity: usize,
        options: &ResidencyOptions,
    ) -> Residency {
        let n_experts = router.n_experts;
        let predictor = (options.ahead > 0).then(|| ExpertPredictor::new(n_layers, n_experts, options.shuffled));
        let cache = ExpertCache::new(options.policy, n_layers, n_experts, capacity);
        let state = State { cache, predictor, ahead: options.ahead, named: Vec::with_capacity(n_experts) };
        Residency { prefetcher, per_token: router.top_k, state: Mutex::new(state) }
    }

    /// Watches over the experts of `model`, whose tensors `catalog` has. `None` when they all fit, or the model has none.
    #[must_use]
    pub fn attach(model: &mut CraftsmanModel, catalog: &Catalog, options: &ResidencyOptions) -> Option<Arc<Residency>> {
        let pages = FilePages::new(catalog, model.layers().len());
        let router = model.config().moe.as_ref()?.router.clone();
        let (held, bytes_each) = (pages.n_experts(), pages.largest_bytes());
        let capacity = usize::try_from(options.bytes.checked_div(bytes_each)?).unwrap_or(usize::MAX);
        if capacity >= held {
            return None;
        }
        tracing::info!(
            name: "MemoryPressure",
            experts = held,
            capacity,
            bytes_each,
            policy = ?options.policy,
            ahead = options.ahead,
            "MemoryPressure"
        );
        let n_layers = model.layers().len();
        let residency = Arc::new(Residency::new(Box::new(pages), n_layers, &router, capacity, options));
        for layer in model.layers_mut() {
            if let FeedForward::Moe { experts, .. } = layer.ffn_mut() {
                experts.set_residency(Some(residency.hook()));
            }
        }
        Some(residency)
    }

    /// What a layer's [`ExpertBank`](crate::ExpertBank) calls before it reads its experts.
    #[must_use]
    pub fn hook(self: &Arc<Residency>) -> ResidencyHook {
        let residency = self.clone();
        Arc::new(move |layer, experts| residency.before(layer, experts))
    }

    /// What the cache has counted.
    #[must_use]
    pub fn statistics(&self) -> CacheStatistics {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).cache.statistics()
    }

    /// `experts` of `layer` are about to be read.
    fn before(&self, layer: usize, experts: &[u32]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { cache, predictor, ahead, named } = &mut *state;
        let carry_out = |key: ExpertKey, request: Request| {
            if let Request::Load { evicted } = request {
                if let Some(evicted) = evicted {
                    self.prefetcher.release(evicted);
                }
                self.prefetcher.load(key);
            }
        };
        let key = |layer: usize, expert: usize| ExpertKey { layer, expert };
        cache.begin(experts.iter().map(|&e| key(layer, e as usize)));
        for &expert in experts {
            let key = key(layer, expert as usize);
            carry_out(key, cache.request(key));
        }
        // More experts than a token has come from a prompt: they tell nothing about the path of one token.
        if let Some(predictor) = predictor.as_mut().filter(|_| experts.len() <= self.per_token) {
            predictor.observe(layer, experts);
            predictor.predict(layer, experts, *ahead, named);
            for &expert in named.iter() {
                let key = key(layer + 1, expert);
                carry_out(key, cache.request_ahead(key));
            }
        }
    }
}

impl std::fmt::Debug for Residency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Residency").field("statistics", &self.statistics()).finish()
    }
}
