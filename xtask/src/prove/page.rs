//! `prove page`: the built-in page of `bitnet serve` in headless Chromium, driven by Playwright.
//!
//! pip fetches Playwright into an environment in the work folder; Chromium is one that is installed. Without either the proof is
//! skipped.

use std::path::PathBuf;

use super::environment::environment;
use super::interop;
use super::proof::{Judged, Proof};
use crate::bitnet::arg;
use crate::outcome::Outcome;
use crate::repo;

const PLAYWRIGHT: &str = "playwright==1.65.2";
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

pub(super) fn prove(proof: &mut Proof<'_>, binary: impl FnOnce() -> Outcome<PathBuf>) -> Outcome<Judged> {
    let Some(browser) = browser() else {
        repo::say(&format!("SKIP page: no Chromium is installed ({})", BROWSERS.join(", ")));
        return Ok(Judged::Skipped);
    };
    proof.need_disk(500_000_000)?;
    let Some(python) = environment(proof, "environment", &[PLAYWRIGHT])? else {
        repo::say(&format!("SKIP page: pip of {} cannot fetch {PLAYWRIGHT}", proof.options.python.display()));
        return Ok(Judged::Skipped);
    };
    let options = proof.options;
    let mut more = vec!["--browser", arg(&browser)?];
    if let Some(images) = &options.dir {
        std::fs::create_dir_all(images)?;
        more.extend(["--images", arg(images)?]);
    }
    interop::script_of(&python, proof, &binary()?, "page.py", &more)?;
    Ok(Judged::Measured)
}

/// The first Chromium in the folders of programs.
fn browser() -> Option<PathBuf> {
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    BROWSERS.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| path.is_file())
}
