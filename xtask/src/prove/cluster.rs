//! `prove cluster`: a batch, the gates, a distillation and a calibration by the Ray adapter of the Python package, with kills on two
//! nodes of this machine.
//!
//! pip fetches Ray into an environment in the work folder. Without it, or without the right to make a network namespace, the
//! proof is skipped by name.

use std::path::PathBuf;

use super::environment::environment;
use super::proof::{Judged, Proof};
use super::{interop, namespace};
use crate::outcome::Outcome;
use crate::repo;

const RAY: &str = "ray==2.60.0";

pub(super) fn prove(proof: &mut Proof<'_>, binary: impl FnOnce() -> Outcome<PathBuf>) -> Outcome<Judged> {
    proof.need_disk(2_000_000_000)?;
    if !namespace::is_possible() {
        repo::say("SKIP cluster: this user cannot make a network namespace (unshare -n), or there is no `ip`");
        return Ok(Judged::Skipped);
    }
    let Some(python) = environment(proof, "environment", &[RAY])? else {
        repo::say(&format!("SKIP cluster: pip of {} cannot fetch {RAY}", proof.options.python.display()));
        return Ok(Judged::Skipped);
    };
    let inside = namespace::inside(proof, &python)?;
    interop::script_of(&inside, proof, &binary()?, "two_nodes.py", &[])?;
    Ok(Judged::Measured)
}
