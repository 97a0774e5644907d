//! The table of the experts that are held in memory, and the choice of the expert that is evicted for another.
//!
//! | policy | evicted expert |
//! |---|---|
//! | `Lru` | the least recently used one |
//! | `Lfu` | the least often used one; counts are halved from time to time, so that old use matters less |
//! | `Adaptive` | chosen by the rule with fewer recent errors: an expert that is needed again counts as an error of the rule that evicted it (LeCaR, Vietri et al., HotStorage 2018, without its randomness) |
//!
//! **Invariant:** the experts given to [`ExpertCache::begin`] are not evicted before the next call of it.

use super::prefetch::ExpertKey;

/// Requests between two halvings of the use counts, per expert held.
const HALVING: u64 = 16;

/// Largest difference between the errors of the two rules that is remembered.
const MAX_REGRET: i32 = 64;

/// The rule by which an expert is evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CachePolicy {
    /// The least recently used.
    #[default]
    Lru,
    /// The least frequently used.
    Lfu,
    /// The rule of the two that has erred less lately.
    Adaptive,
}

/// Counts of the requests to a cache and of their consequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStatistics {
    /// Experts that were needed.
    pub requests: u64,
    /// Of these, experts that were not held and had to be loaded on the spot.
    pub loads: u64,
    /// Experts that were loaded ahead.
    pub ahead: u64,
    /// Of these, experts that were needed before they were evicted.
    pub ahead_used: u64,
    /// Experts that were evicted for others.
    pub evictions: u64,
}

/// The consequence of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// The expert is held.
    Held,
    /// The expert has to be loaded, and the memory of the evicted one given back.
    Load {
        /// `None` when there was room.
        evicted: Option<ExpertKey>,
    },
}

/// The table of held experts.
#[derive(Debug)]
pub(super) struct ExpertCache {
    policy: CachePolicy,
    n_experts: usize,
    capacity: usize,
    held: usize,
    /// Number of batches begun.
    clock: u64,
    /// By layer and expert.
    entries: Vec<Entry>,
    /// Errors of the recency rule minus errors of the frequency rule.
    regret: i32,
    /// Requests at which the use counts are halved.
    next_halving: u64,
    statistics: CacheStatistics,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    held: bool,
    /// Loaded ahead and not needed since.
    ahead: bool,
    last_use: u64,
    uses: u32,
    /// The rule that evicted it last.
    evicted_by: Option<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Recency,
    Frequency,
}

impl ExpertCache {
    /// An empty cache of `capacity` experts (at least 1) of a model of `n_layers` layers of `n_experts`.
    #[must_use]
    pub(super) fn new(policy: CachePolicy, n_layers: usize, n_experts: usize, capacity: usize) -> ExpertCache {
        let entries = vec![Entry::default(); n_layers.saturating_mul(n_experts)];
        ExpertCache {
            policy,
            n_experts,
            capacity: capacity.max(1),
            held: 0,
            clock: 0,
            entries,
            regret: 0,
            next_halving: HALVING.saturating_mul(capacity as u64),
            statistics: CacheStatistics::default(),
        }
    }

    /// Begins a batch that needs `experts`; they are requested next.
    pub(super) fn begin(&mut self, experts: impl Iterator<Item = ExpertKey>) {
        self.clock += 1;
        for key in experts {
            let index = self.index(key);
            if let Some(entry) = self.entries.get_mut(index) {
                entry.last_use = self.clock;
                entry.uses = entry.uses.saturating_add(1);
            }
        }
        if self.statistics.requests >= self.next_halving {
            self.entries.iter_mut().for_each(|entry| entry.uses /= 2);
            self.next_halving = self.statistics.requests.saturating_add(HALVING.saturating_mul(self.capacity as u64));
        }
    }

    /// Whether an expert is held.
    #[cfg(test)]
    fn holds(&self, key: ExpertKey) -> bool {
        self.entries.get(self.index(key)).is_some_and(|entry| entry.held)
    }

    /// The counts since the start.
    #[must_use]
    pub(super) fn statistics(&self) -> CacheStatistics {
        self.statistics
    }

    /// Requests an expert that is needed now.
    pub(super) fn request(&mut self, key: ExpertKey) -> Request {
        let index = self.index(key);
        let Some(entry) = self.entries.get_mut(index) else { return Request::Held };
        self.statistics.requests += 1;
        self.statistics.ahead_used += u64::from(std::mem::take(&mut entry.ahead));
        if entry.held {
            return Request::Held;
        }
        self.statistics.loads += 1;
        match entry.evicted_by.take() {
            Some(Rule::Recency) => self.regret = (self.regret + 1).min(MAX_REGRET),
            Some(Rule::Frequency) => self.regret = (self.regret - 1).max(-MAX_REGRET),
            None => {}
        }
        self.take_in(index)
    }

    /// Requests an expert that may be needed soon. It is not loaded when only experts of the current batch could be
    /// evicted for it.
    pub(super) fn request_ahead(&mut self, key: ExpertKey) -> Request {
        let index = self.index(key);
        if self.entries.get(index).is_none_or(|entry| entry.held) || (self.is_full() && self.victim().is_none()) {
            return Request::Held;
        }
        self.statistics.ahead += 1;
        self.entries[index].ahead = true;
        // Counted as used in this batch, so that it is not evicted before it is needed.
        self.entries[index].last_use = self.clock;
        self.take_in(index)
    }

    /// Holds `index`, and evicts another expert when the cache is full and one may be evicted.
    fn take_in(&mut self, index: usize) -> Request {
        let evicted = if self.is_full() { self.victim() } else { None };
        if let Some((out, rule)) = evicted {
            let entry = &mut self.entries[out];
            (entry.held, entry.ahead, entry.evicted_by) = (false, false, Some(rule));
            self.held -= 1;
            self.statistics.evictions += 1;
        }
        self.entries[index].held = true;
        self.held += 1;
        Request::Load { evicted: evicted.map(|(out, _)| self.key(out)) }
    }

    /// The expert to evict, and the rule that chose it.
    fn victim(&self) -> Option<(usize, Rule)> {
        let rule = match self.policy {
            CachePolicy::Lru => Rule::Recency,
            CachePolicy::Lfu => Rule::Frequency,
            CachePolicy::Adaptive if self.regret > 0 => Rule::Frequency,
            CachePolicy::Adaptive => Rule::Recency,
        };
        let candidates = self.entries.iter().enumerate().filter(|(_, e)| e.held && e.last_use < self.clock);
        let victim = match rule {
            Rule::Recency => candidates.min_by_key(|(_, e)| e.last_use),
            Rule::Frequency => candidates.min_by_key(|(_, e)| (e.uses, e.last_use)),
        };
        victim.map(|(index, _)| (index, rule))
    }

    fn is_full(&self) -> bool {
        self.held >= self.capacity
    }

    fn index(&self, key: ExpertKey) -> usize {
        key.layer.saturating_mul(self.n_experts).saturating_add(key.expert)
    }

    fn key(&self, index: usize) -> ExpertKey {
        ExpertKey { layer: index / self.n_experts, expert: index % self.n_experts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loads of a series of single requests for the experts of one layer.
    fn loads(policy: CachePolicy, capacity: usize, series: impl IntoIterator<Item = usize>) -> CacheStatistics {
        let mut cache = ExpertCache::new(policy, 1, 16, capacity);
        for expert in series {
            let key = ExpertKey { layer: 0, expert };
            cache.begin([key].into_iter());
            let held = cache.holds(key);
            assert_eq!(cache.request(key) == Request::Held, held);
            assert!(cache.holds(key) && cache.held <= capacity);
        }
        cache.statistics()
    }

    #[test]
    fn what_fits_is_loaded_once() {
        for policy in [CachePolicy::Lru, CachePolicy::Lfu, CachePolicy::Adaptive] {
            let counted = loads(policy, 4, (0..100).map(|i| i % 4));
            let want = CacheStatistics { requests: 100, loads: 4, ..CacheStatistics::default() };
            assert_eq!(counted, want, "{policy:?}");
        }
    }

    #[test]
    fn each_policy_evicts_by_its_rule() {
        // 0 is used often but not lately, 1 lately but once.
        for (policy, gone) in [(CachePolicy::Lru, 0), (CachePolicy::Lfu, 1)] {
            let mut cache = ExpertCache::new(policy, 1, 4, 2);
            let mut last = Request::Held;
            for expert in [0, 0, 0, 1, 2] {
                let key = ExpertKey { layer: 0, expert };
                cache.begin([key].into_iter());
                last = cache.request(key);
            }
            assert_eq!(last, Request::Load { evicted: Some(ExpertKey { layer: 0, expert: gone }) }, "{policy:?}");
        }
    }

    /// Two experts that are used all the time between scans of the others: frequency keeps them, recency evicts them.
    #[test]
    fn adaptive_learns_to_keep_favourites_through_scans() {
        let series = || (0..4000usize).map(|i| if i % 4 < 2 { i % 4 } else { 2 + (i / 4 * 2 + i % 2) % 14 });
        let of = |policy| loads(policy, 4, series()).loads;
        let (lru, lfu, adaptive) = (of(CachePolicy::Lru), of(CachePolicy::Lfu), of(CachePolicy::Adaptive));
        assert!(lfu <= lru && adaptive <= lru, "{lru} {lfu} {adaptive}");
        // A working set that changes: recency follows at once, frequency keeps experts of the past.
        let moving = || (0..4000usize).map(|i| (i / 400 * 4 + i % 4) % 16);
        let of = |policy| loads(policy, 5, moving()).loads;
        let (lru, lfu, adaptive) = (of(CachePolicy::Lru), of(CachePolicy::Lfu), of(CachePolicy::Adaptive));
        assert!(lru < lfu && adaptive < lfu, "{lru} {lfu} {adaptive}");
    }

    #[test]
    fn the_current_batch_stays_even_when_it_is_too_large() {
        let mut cache = ExpertCache::new(CachePolicy::Lru, 2, 8, 2);
        let keys: Vec<ExpertKey> = (0..5).map(|expert| ExpertKey { layer: 1, expert }).collect();
        cache.begin(keys.iter().copied());
        assert!(keys.iter().all(|&key| cache.request(key) == Request::Load { evicted: None }));
        assert!(keys.iter().all(|&key| cache.holds(key)));
        let soon = ExpertKey { layer: 0, expert: 7 };
        assert_eq!(cache.request_ahead(soon), Request::Held, "no expert of the batch is evicted for a guess");
        assert!(!cache.holds(soon));
    }

    #[test]
    fn guesses_are_counted_and_so_are_the_right_ones() {
        let mut cache = ExpertCache::new(CachePolicy::Lru, 1, 8, 4);
        let key = |expert| ExpertKey { layer: 0, expert };
        for expert in [1, 2] {
            assert_eq!(cache.request_ahead(key(expert)), Request::Load { evicted: None });
        }
        cache.begin([key(2)].into_iter());
        assert_eq!(cache.request(key(2)), Request::Held);
        let counted = cache.statistics();
        assert_eq!((counted.ahead, counted.ahead_used, counted.loads), (2, 1, 0));
        // Keys outside of the model are ignored, so that a hook cannot damage the table.
        assert_eq!(cache.request(key(8)), Request::Held);
        assert_eq!(cache.request_ahead(key(99)), Request::Held);
    }
}
