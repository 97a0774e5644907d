//! `prove offload`: 10,000 requests to a coprocessor in a process of its own for each kind of fault, in real time.
//!
//! `bitnet offload simulate` stands in for the device on a pseudo-terminal, and `bitnet offload check` asks it. The tests of
//! rlm-embed ask the same device on a virtual clock.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::child::Scoped;
use super::proof::Proof;
use crate::bitnet;
use crate::outcome::Outcome;
use crate::report::number;

const REQUESTS: &str = "10000";
const FAULTS: [(&str, &[&str]); 9] = [
    ("no fault", &[]),
    ("20 % delayed", &["--delay=200"]),
    ("20 % dropped", &["--drop=200"]),
    ("30 % duplicated", &["--duplicate=300"]),
    ("30 % corrupted", &["--corrupt=300"]),
    ("30 % reordered", &["--reorder=300"]),
    ("0.1 % hang", &["--hang=1"]),
    ("10 % reset", &["--reset=100"]),
    (
        "all faults",
        &["--delay=50", "--drop=50", "--duplicate=50", "--corrupt=50", "--reorder=50", "--hang=1", "--reset=20"],
    ),
];

/// Time behind its deadline at which a request counts as late: programs that share the processors may take this long to go on.
const SLACK_MS: f64 = 20.0;

pub(super) fn prove(proof: &mut Proof<'_>, binary: &Path) -> Outcome {
    for (name, faults) in FAULTS {
        let report = ask(binary, faults)?;
        let count = |key| number(&report, key);
        let (requests, device, software) = (count("requests")?, count("by_device")?, count("by_software")?);
        let (wrong, deadline, most) = (count("wrong")?, count("deadline_ms")?, count("ms.most")?);
        let told = format!(
            "{device} by the device, {software} by the software, {wrong} wrong, {} sent again; {} behind the deadline of {deadline} ms, \
             median {:.2} ms, longest {most:.1} ms",
            count("retries")?,
            count("behind_deadline")?,
            count("ms.p50")?,
        );
        let is_whole = device + software == requests && requests == REQUESTS.parse::<f64>()?;
        let pass = is_whole && wrong == 0.0 && device > 0.0 && most <= deadline + SLACK_MS;
        let target = format!("none wrong, none later than {:.0} ms", deadline + SLACK_MS);
        proof.figure(format!("{REQUESTS} requests over a terminal, {name}"), told, target, pass);
    }
    Ok(())
}

/// Asks a device with `faults`.
fn ask(binary: &Path, faults: &[&str]) -> Outcome<Value> {
    let device = Command::new(binary).args(["offload", "simulate"]).args(faults).stdout(Stdio::piped()).spawn()?;
    let mut device = Scoped(device);
    let output = device.0.stdout.take().ok_or("the device has no output")?;
    let mut terminal = String::new();
    BufReader::new(output).read_line(&mut terminal)?;
    bitnet::json(binary, &["offload", "check", terminal.trim(), "--requests", REQUESTS])
}
