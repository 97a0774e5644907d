//! `prove clients`: the Python packages `openai`, `anthropic` and `langchain-openai` against `bitnet serve`.
//!
//! pip fetches them into an environment in the work folder; without Python's `venv`, pip or a network the proof is skipped.

use std::path::PathBuf;

use super::environment::environment;
use super::interop;
use super::proof::{Judged, Proof};
use crate::outcome::Outcome;
use crate::repo;

const PACKAGES: [&str; 3] = ["openai==3.57.0", "anthropic==2.14.0", "langchain-openai==1.7.4"];

pub(super) fn prove(proof: &mut Proof<'_>, binary: impl FnOnce() -> Outcome<PathBuf>) -> Outcome<Judged> {
    proof.need_disk(500_000_000)?;
    let Some(python) = environment(proof, "environment", &PACKAGES)? else {
        let named = proof.options.python.display();
        repo::say(&format!("SKIP clients: pip of {named} cannot fetch {}", PACKAGES.join(", ")));
        return Ok(Judged::Skipped);
    };
    interop::script_of(&python, proof, &binary()?, "clients.py", &[])?;
    Ok(Judged::Measured)
}
