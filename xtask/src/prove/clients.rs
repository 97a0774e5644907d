//! `prove clients`: packages of Python and agents of Node against `bitnet serve`.
//!
//! pip and npm fetch them into the work folder. Where one of the two cannot, or where this user cannot make the network namespace
//! in which the harness and the agents run, a SKIP line names what was not tried.

use std::path::PathBuf;

use super::environment::{environment, modules};
use super::proof::{Judged, Proof};
use super::{interop, namespace};
use crate::bitnet::arg;
use crate::outcome::Outcome;
use crate::repo;

const PACKAGES: [&str; 3] = ["openai==3.57.0", "anthropic==2.14.0", "langchain-openai==1.7.4"];
/// lm-eval reads the tokenizer of a checkpoint with transformers; neither needs torch for that.
const HARNESS: [&str; 2] = ["lm-eval[api]==0.4.13", "transformers==5.24.0"];
const AGENTS: [&str; 3] = ["@openai/codex@0.171.0", "@anthropic-ai/claude-code@2.1.332", "opencode-ai@1.18.33"];

pub(super) fn prove(proof: &mut Proof<'_>, binary: impl FnOnce() -> Outcome<PathBuf>) -> Outcome<Judged> {
    proof.need_disk(4_000_000_000)?;
    let (binary, pip) = (binary()?, proof.options.python.display().to_string());
    let has_namespaces = namespace::is_possible();
    let mut measured = false;
    if let Some(python) = environment(proof, "environment", &PACKAGES)? {
        interop::script_of(&python, proof, &binary, "clients.py", &[])?;
        measured = true;
    } else {
        repo::say(&format!("SKIP clients: pip of {pip} cannot fetch {}", PACKAGES.join(", ")));
    }
    if !has_namespaces {
        repo::say(
            "SKIP lm-eval and agents: this user cannot make a network namespace (unshare -n), or there is no `ip`",
        );
        return Ok(if measured { Judged::Measured } else { Judged::Skipped });
    }
    if let Some(python) = environment(proof, "harness", &HARNESS)? {
        let inside = namespace::inside(proof, &python)?;
        interop::script_of(&inside, proof, &binary, "harness.py", &[])?;
        measured = true;
    } else {
        repo::say(&format!("SKIP lm-eval: pip of {pip} cannot fetch {}", HARNESS.join(", ")));
    }
    if let Some(modules) = modules(proof, &AGENTS)? {
        let inside = namespace::inside(proof, &proof.options.python)?;
        interop::script_of(&inside, proof, &binary, "agents.py", &["--modules", arg(&modules)?])?;
        measured = true;
    } else {
        repo::say(&format!("SKIP agents: npm cannot fetch {}", AGENTS.join(", ")));
    }
    Ok(if measured { Judged::Measured } else { Judged::Skipped })
}
