//! The experts of one model within the memory that they may take.

use std::sync::{Arc, Mutex, PoisonError};

use gguf_bitnet::Catalog;

use super::cache::{CachePolicy, CacheStatistics, ExpertCache, Request};
use super::pages::FilePages;
use super::predictor::ExpertPredictor;
use super::prefetch::{ExpertKey, Prefetcher};
use crate::forward::experts::ResidencyHook;
use crate::models::config::ModelConfig;
use crate::models::experts::RouterConfig;

/// The limit on the memory of routed experts, and the rules that keep it.
#[derive(Clone, Copy, Debug)]
pub struct ExpertMemoryOptions {
    /// Bytes that routed experts may take.
    pub bytes: u64,
    /// The rule by which an expert is evicted.
    pub policy: CachePolicy,
    /// Experts of the next layer that are loaded ahead; 0 turns prediction off.
    pub ahead: usize,
    /// Replaces the prediction by as many experts drawn with this seed: the control that a prediction must beat.
    pub shuffled: Option<u64>,
}

/// Keeps the experts of one model within their memory.
pub struct ExpertMemory {
    prefetcher: Box<dyn Prefetcher>,
    /// Most experts of one token in a layer.
    per_token: usize,
    state: Mutex<State>,
}

struct State {
    cache: ExpertCache,
    predictor: Option<ExpertPredictor>,
    ahead: usize,
    /// Experts that the predictor expects.
    predicted: Vec<usize>,
}

impl ExpertMemory {
    /// Room for `capacity` experts of a model with `n_layers` layers whose tokens are routed by `router`.
    #[must_use]
    pub fn new(
        prefetcher: Box<dyn Prefetcher>,
        n_layers: usize,
        router: &RouterConfig,
        capacity: usize,
        options: &ExpertMemoryOptions,
    ) -> ExpertMemory {
        let n_experts = router.n_experts;
        let predictor = (options.ahead > 0).then(|| ExpertPredictor::new(n_layers, n_experts, options.shuffled));
        let cache = ExpertCache::new(options.policy, n_layers, n_experts, capacity);
        let state = State { cache, predictor, ahead: options.ahead, predicted: Vec::with_capacity(n_experts) };
        ExpertMemory { prefetcher, per_token: router.top_k, state: Mutex::new(state) }
    }

    /// The memory for the experts in `catalog`. `None` when all experts fit, or the model has none.
    pub(crate) fn of_model(
        config: &ModelConfig,
        catalog: &Catalog,
        options: &ExpertMemoryOptions,
    ) -> Option<ExpertMemory> {
        let n_layers = config.n_layers;
        let pages = FilePages::new(catalog, n_layers);
        let router = &config.moe.as_ref()?.router;
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
        Some(ExpertMemory::new(Box::new(pages), n_layers, router, capacity, options))
    }

    /// The hook that layers call before they read experts.
    #[must_use]
    pub fn hook(self: &Arc<ExpertMemory>) -> ResidencyHook {
        let memory = self.clone();
        Arc::new(move |layer, experts| memory.before_reading(layer, experts))
    }

    /// The counts of the cache since the start.
    #[must_use]
    pub fn statistics(&self) -> CacheStatistics {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).cache.statistics()
    }

    /// Loads `experts` of `layer`, which are about to be read, and the experts predicted for the next layer.
    fn before_reading(&self, layer: usize, experts: &[u32]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { cache, predictor, ahead, predicted } = &mut *state;
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
        // A list of more experts than one token uses belongs to a prompt; the predictor learns from single tokens.
        if let Some(predictor) = predictor.as_mut().filter(|_| experts.len() <= self.per_token) {
            predictor.observe(layer, experts);
            predictor.predict(layer, experts, *ahead, predicted);
            for &expert in predicted.iter() {
                let key = key(layer + 1, expert);
                carry_out(key, cache.request_ahead(key));
            }
        }
    }
}

impl std::fmt::Debug for ExpertMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExpertMemory").field("statistics", &self.statistics()).finish()
    }
}
