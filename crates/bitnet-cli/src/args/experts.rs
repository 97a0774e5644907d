//! `--expert-memory` and the options that refine it: experts of a file that is larger than the memory.

use clap::ValueEnum;
use moe_runtime::storage::{CachePolicy, ExpertMemoryOptions};

use super::number::whole;
use super::size::size;

#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct ExpertArgs {
    /// Memory that routed experts may take, for example 4GB; others are read from the file again when needed
    #[arg(long, value_name = "SIZE", value_parser = size)]
    expert_memory: Option<u64>,
    /// Rule by which an expert is dropped to make room
    #[arg(long, value_enum, value_name = "RULE", default_value = "lru", requires = "expert_memory")]
    expert_policy: Policy,
    /// Experts of the next layer to load ahead, by prediction
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole::<u8>(0..=255), requires = "expert_memory")]
    expert_ahead: u8,
    /// Load ahead at random instead: the control that a prediction has to beat
    #[arg(long, hide = true, value_name = "SEED", value_parser = whole::<u64>(0..=u64::MAX), requires = "expert_ahead")]
    expert_ahead_shuffled: Option<u64>,
}

/// Rule by which an expert is dropped to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Policy {
    /// The least recently used
    Lru,
    /// The least frequently used
    Lfu,
    /// The one of the two rules that has erred less of late
    Adaptive,
}

impl ExpertArgs {
    /// The limit on the memory of experts, if there is one.
    pub(super) fn bound(self) -> Option<ExpertMemoryOptions> {
        let policy = match self.expert_policy {
            Policy::Lru => CachePolicy::Lru,
            Policy::Lfu => CachePolicy::Lfu,
            Policy::Adaptive => CachePolicy::Adaptive,
        };
        let (ahead, shuffled) = (usize::from(self.expert_ahead), self.expert_ahead_shuffled);
        self.expert_memory.map(|bytes| ExpertMemoryOptions { bytes, policy, ahead, shuffled })
    }
}
