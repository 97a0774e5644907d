//! Counts and times for Prometheus. No label has text of a request.

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use mla_attention::CompressedMlaCache;
use moe_runtime::{QueueStatus, Scheduler, StepReport};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};

use super::answer::Ending;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
    finish: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FinishLabel {
    finish: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TierLabel {
    tier: &'static str,
}

/// The metrics of the server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    running: Gauge<i64, AtomicI64>,
    waiting: Gauge<i64, AtomicI64>,
    slot_tokens: Gauge<i64, AtomicI64>,
    slot_usage: Gauge<f64, AtomicU64>,
    cache_blocks: Family<TierLabel, Gauge<i64, AtomicI64>>,
    cache_misses: Family<ReasonLabel, Counter>,
    cancelled: Family<PhaseLabel, Counter>,
    cache_bytes: Family<TierLabel, Gauge<i64, AtomicI64>>,
    requests: Family<RequestLabels, Counter>,
    answers: Family<FinishLabel, Counter>,
    prompt_tokens: Family<SourceLabel, Counter>,
    generated_tokens: Counter,
    drafted_tokens: Family<ResultLabel, Counter>,
    first_token: Histogram,
    between_tokens: Histogram,
    queued: Histogram,
    prefill: Histogram,
    batch: Histogram,
    experts: Histogram,
    step: Histogram,
    rss: Gauge<i64, AtomicI64>,
    peak_rss: Gauge<i64, AtomicI64>,
    pub(crate) memory_plan: Gauge<i64, AtomicI64>,
    connections: Gauge<i64, AtomicI64>,
    encoder_waiting: Gauge<i64, AtomicI64>,
    encoder_tokens: Counter,
    encoder_batch: Histogram,
    prefix_queries: Counter,
    prefix_hits: Counter,
}

impl Metrics {
    /// All metrics at 0; with `vllm_names` the ones that gateways read under vLLM's names too.
    pub(crate) fn new(vllm_names: bool) -> Metrics {
        let mut registry = Registry::default();
        let seconds = || Histogram::new(exponential_buckets(0.005, 2.0, 18));
        let metrics = Metrics {
            running: Gauge::default(),
            waiting: Gauge::default(),
            slot_tokens: Gauge::default(),
            slot_usage: Gauge::default(),
            cache_blocks: Family::default(),
            cache_misses: Family::default(),
            cancelled: Family::default(),
            cache_bytes: Family::default(),
            requests: Family::default(),
            answers: Family::default(),
            prompt_tokens: Family::default(),
            generated_tokens: Counter::default(),
            drafted_tokens: Family::default(),
            first_token: seconds(),
            between_tokens: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            queued: seconds(),
            prefill: seconds(),
            batch: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]),
            experts: Histogram::new([1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, 256.0]),
            step: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            rss: Gauge::default(),
            peak_rss: Gauge::default(),
            memory_plan: Gauge::default(),
            connections: Gauge::default(),
            encoder_waiting: Gauge::default(),
            encoder_tokens: Counter::default(),
            encoder_batch: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            prefix_queries: Counter::default(),
            prefix_hits: Counter::default(),
            registry: Registry::default(),
        };
        metrics.register(&mut registry, vllm_names);
        Metrics { registry, ..metrics }
    }

    fn register(&self, own: &mut Registry, vllm_names: bool) {
        add(own, "bitnet_requests_running", "Requests in slots", &self.running);
        add(own, "bitnet_requests_waiting", "Requests in the queue", &self.waiting);
        add(own, "bitnet_slot_tokens", "Tokens that the slots hold", &self.slot_tokens);
        add(own, "bitnet_prompt_cache_bytes", "Bytes of the prompt cache", &self.cache_bytes);
        add(own, "bitnet_kv_blocks", "Blocks of 64 tokens in slots, in memory and on disk", &self.cache_blocks);
        add(own, "bitnet_cache_miss", "Answers by the reason for computed tokens of their prompt", &self.cache_misses);
        add(own, "bitnet_cancelled", "Cancelled answers by where they were", &self.cancelled);
        add(own, "bitnet_request", "Requests by route, status and the reason of the end", &self.requests);
        add(own, "bitnet_answer", "Ended answers by the reason of their end", &self.answers);
        add(own, "bitnet_prompt_tokens", "Tokens of prompts by their source", &self.prompt_tokens);
        add(own, "bitnet_generation_tokens", "Tokens of answers", &self.generated_tokens);
        add(own, "bitnet_draft_tokens", "Guessed tokens of answers by their result", &self.drafted_tokens);
        add(own, "bitnet_time_to_first_token_seconds", "From the request to its first token", &self.first_token);
        add(own, "bitnet_inter_token_seconds", "Mean time between tokens of an answer", &self.between_tokens);
        add(own, "bitnet_queue_seconds", "From the request to its slot", &self.queued);
        add(own, "bitnet_prefill_seconds", "From the slot to the first token", &self.prefill);
        add(own, "bitnet_batch_size", "Rows of a step", &self.batch);
        add(own, "bitnet_experts_distinct", "Different experts that a step read, mean of its layers", &self.experts);
        add(own, "bitnet_step_seconds", "Time of a step", &self.step);
        add(own, "bitnet_rss_bytes", "Resident memory", &self.rss);
        add(own, "bitnet_peak_rss_bytes", "Largest resident memory so far", &self.peak_rss);
        add(own, "bitnet_memory_plan_bytes", "Memory that the server planned to take at most", &self.memory_plan);
        add(own, "bitnet_connections", "Open connections", &self.connections);
        add(own, "bitnet_encoder_waiting", "Texts that wait for the sentence encoder", &self.encoder_waiting);
        add(own, "bitnet_encoder_tokens", "Tokens that the sentence encoder has read", &self.encoder_tokens);
        add(own, "bitnet_encoder_batch_seconds", "Time of texts encoded together", &self.encoder_batch);
        if vllm_names {
            add(own, "vllm:num_requests_running", "Requests in slots", &self.running);
            add(own, "vllm:num_requests_waiting", "Requests in the queue", &self.waiting);
            add(own, "vllm:kv_cache_usage_perc", "Share of the slots that running requests take", &self.slot_usage);
            add(own, "vllm:prefix_cache_queries", "Tokens of prompts", &self.prefix_queries);
            add(own, "vllm:prefix_cache_hits", "Tokens of prompts that were cached", &self.prefix_hits);
        }
    }

    /// Counts a request by the pattern of its route.
    pub(crate) fn request(&self, route: &str, status: u16, finish: &'static str) {
        self.requests.get_or_create(&RequestLabels { route: route.to_owned(), status, finish }).inc();
    }

    /// Counts an answer that was cancelled in this phase.
    pub(crate) fn cancelled(&self, phase: &'static str) {
        self.cancelled.get_or_create(&PhaseLabel { phase }).inc();
    }

    /// Counts a connection; the guard counts its end.
    pub(crate) fn connection(&self) -> ConnectionGuard {
        self.connections.inc();
        ConnectionGuard(self.connections.clone())
    }

    /// Number of open connections.
    pub(crate) fn open_connections(&self) -> i64 {
        self.connections.get()
    }

    /// Counts the end of an answer.
    pub(crate) fn ended(&self, ending: &Ending) {
        let (usage, timings) = (&ending.usage, &ending.timings);
        self.answers.get_or_create(&FinishLabel { finish: ending.finish.name() }).inc();
        let sources = [
            ("computed", usage.prompt - usage.cached),
            ("ram", usage.cached - usage.from_disk),
            ("disk", usage.from_disk),
        ];
        for (source, tokens) in sources {
            self.prompt_tokens.get_or_create(&SourceLabel { source }).inc_by(tokens as u64);
        }
        if usage.prompt > usage.cached {
            self.cache_misses.get_or_create(&ReasonLabel { reason: ending.miss }).inc();
        }
        self.prefix_queries.inc_by(usage.prompt as u64);
        self.prefix_hits.inc_by(usage.cached as u64);
        self.generated_tokens.inc_by(usage.answer as u64);
        self.queued.observe(timings.queued.as_secs_f64());
        if usage.answer > 0 {
            self.prefill.observe(timings.prompt.as_secs_f64());
            self.first_token.observe((timings.queued + timings.prompt).as_secs_f64());
        }
        if usage.answer > 1 {
            self.between_tokens.observe(timings.answer.as_secs_f64() / (usage.answer - 1) as f64);
        }
    }

    /// Takes the rows of a step and the time that it took.
    pub(crate) fn step(&self, report: &StepReport, time: Duration) {
        self.batch.observe((report.prompt_rows + report.answer_rows + report.draft_rows) as f64);
        let rejected = report.draft_rows - report.accepted_rows;
        for (result, tokens) in [("accepted", report.accepted_rows), ("rejected", rejected)] {
            self.drafted_tokens.get_or_create(&ResultLabel { result }).inc_by(tokens as u64);
        }
        if report.expert_layers > 0 {
            self.experts.observe(report.distinct_experts as f64 / report.expert_layers as f64);
        }
        self.step.observe(time.as_secs_f64());
    }

    /// Counts texts of so many tokens that were encoded together.
    pub(crate) fn encoded(&self, tokens: usize, time: Duration) {
        self.encoder_tokens.inc_by(tokens as u64);
        self.encoder_batch.observe(time.as_secs_f64());
    }

    /// Takes the state of the scheduler.
    pub(crate) fn idle(&self, scheduler: &Scheduler) {
        self.slot_tokens.set(scheduler.held_tokens() as i64);
        self.slot_usage.set(scheduler.usage());
        let in_slots = scheduler.slots().map(|slot| slot.held_tokens / CompressedMlaCache::BLOCK).sum();
        let [ram, disk] = scheduler.prompt_cache_blocks();
        for (tier, blocks) in [("slot", in_slots), ("ram", ram), ("disk", disk)] {
            self.cache_blocks.get_or_create(&TierLabel { tier }).set(blocks as i64);
        }
        let [ram, disk] = scheduler.prompt_cache_bytes();
        for (tier, bytes) in [("ram", ram), ("disk", disk)] {
            self.cache_bytes.get_or_create(&TierLabel { tier }).set(bytes.cast_signed());
        }
    }

    /// The text that Prometheus reads, with the counts of the queues of model and encoder as they are now.
    pub(crate) fn text(&self, [queue, encoder]: [QueueStatus; 2]) -> String {
        self.running.set(queue.running as i64);
        self.waiting.set(queue.waiting as i64);
        self.encoder_waiting.set(encoder.waiting as i64);
        self.rss.set(gguf_bitnet::rss_bytes().unwrap_or_default().cast_signed());
        self.peak_rss.set(gguf_bitnet::peak_rss_bytes().unwrap_or_default().cast_signed());
        let mut text = String::new();
        // Writing to a string succeeds.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn add<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: &M) {
    registry.register(name, help, metric.clone());
}

pub(crate) struct ConnectionGuard(Gauge<i64, AtomicI64>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
