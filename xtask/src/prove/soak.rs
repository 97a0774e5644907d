//! `prove soak`: the test of many requests, a part of which end badly, with 12,000 of them.

use xshell::cmd;

use super::proof::Proof;
use crate::outcome::Outcome;
use crate::repo;

const REQUESTS: &str = "12000";
/// The beginning of the line that the test prints.
const LINE: &str = "soak: ";

pub(super) fn prove(proof: &mut Proof<'_>) -> Outcome {
    let sh = repo::shell()?;
    let _requests = sh.push_env("BITNET_SOAK_REQUESTS", REQUESTS);
    let test = "serve::soak";
    let output = cmd!(sh, "cargo test --quiet --profile checked -p bitnet-cli --test it -- {test} --nocapture")
        .ignore_status()
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| Some(line.split_once(LINE)?.1));
    let line = line.ok_or("the test printed no figures: run `cargo test -p bitnet-cli --test it -- serve::soak`")?;
    proof.figure("requests over 8 slots that end well and badly", line, "nothing left behind", output.status.success());
    Ok(())
}
