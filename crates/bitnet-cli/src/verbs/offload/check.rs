//! `bitnet offload check`: requests of all kinds to a coprocessor, each answer beside that of the software.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use behavior_eval::stats::quantile;
use rlm_embed::offload::answer::answer;
use rlm_embed::offload::{OffloadPolicy, Trial};
use serde_json::json;

use super::line::coprocessor;
use crate::args::whole;
use crate::output;
use crate::output::Progress;

/// Ask a coprocessor, and compare its answers with those of the software.
///
/// Prints JSON: how often the device answered and how often the software did in its place, what was dropped, and the milliseconds per
/// request. Ends with 1 when a device gave a wrong answer, or none at all.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The serial line of the device, such as /dev/ttyACM0; its speed is left as it is
    device: PathBuf,
    /// Number of requests; the five kinds take turns
    #[arg(long, default_value = "10000", value_name = "N", value_parser = whole::<u32>(1..=1_000_000))]
    requests: u32,
    /// Milliseconds in which a request must have its answer
    #[arg(long, default_value = "20", value_name = "N", value_parser = whole::<u64>(1..=3_600_000))]
    deadline_ms: u64,
    /// Times that a request is sent within its deadline
    #[arg(long, default_value = "3", value_name = "N", value_parser = whole::<u32>(1..=1000))]
    attempts: u32,
}

pub(super) fn execute(args: &Args) -> Result<()> {
    let deadline = Duration::from_millis(args.deadline_ms);
    let policy = OffloadPolicy { deadline, attempts: args.attempts, ..OffloadPolicy::default() };
    let mut device = coprocessor(&args.device, policy)?;
    let progress = Progress::items("asking");
    let (mut wrong, mut times) = (0, Vec::new());
    for i in 0..args.requests {
        let trial = Trial::new(i);
        let request = trial.request();
        let start = Instant::now();
        let reply = device.ask(&request)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        let mut expected = vec![0; request.answer_bytes()];
        answer(&request, &mut expected)?;
        wrong += u32::from(reply.body != expected);
        progress.show(u64::from(i + 1), u64::from(args.requests));
    }
    drop(progress);
    let counts = device.counts();
    let late = times.iter().filter(|ms| **ms > deadline.as_secs_f64() * 1e3).count();
    times.sort_by(f64::total_cmp);
    let ms = |q: f64| quantile(&times, q);
    output::json(&json!({
        "requests": counts.requests, "by_device": counts.by_device, "by_software": counts.by_software, "wrong": wrong,
        "retries": counts.retries, "stray_frames": counts.stray_frames, "bad_frames": counts.bad_frames,
        "deadline_ms": args.deadline_ms, "behind_deadline": late,
        "ms": { "p50": ms(0.5), "p95": ms(0.95), "p99": ms(0.99), "most": ms(1.0) },
    }))?;
    let device = args.device.display();
    match (wrong, counts.by_device) {
        (0, 0) => bail!(
            "{device}: the device answered no request within its deadline: check its power, its line and its firmware"
        ),
        (0, _) => Ok(()),
        (n, _) => bail!("{device}: {n} answers differ from those of the software: its firmware is another one"),
    }
}
