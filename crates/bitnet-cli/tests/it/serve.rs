//! `bitnet serve` over a real socket: the dialects event by event, wrong and hostile requests, cancellation, the end.

mod agent;
mod agents;
mod choices;
mod client;
mod dialects;
mod embeddings;
mod metrics;
mod requests;
mod running;
#[cfg(target_os = "linux")]
mod soak;
mod thinker;
