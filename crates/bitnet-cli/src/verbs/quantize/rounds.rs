//! The waiting of `quantize --rounds` for parts that are missing, and its messages.

use std::cell::RefCell;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, bail};
use rlm_refine::RoundsReport;
use rlm_refine::ptq::PtqError;
use serde_json::json;

use crate::output;

/// Time between two looks at the folder.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// `--wait`, and the last thing that was waited for.
pub(super) struct Waiting {
    waits: bool,
    told: RefCell<String>,
}

impl Waiting {
    pub(super) fn new(waits: bool) -> Self {
        Self { waits, told: RefCell::default() }
    }

    /// Waits a moment, and tells once what for; `false` where nothing is waited for.
    pub(super) fn looks_again(&self, missing: &PtqError) -> bool {
        if self.waits {
            let sentence = missing.to_string();
            if *self.told.borrow() != sentence {
                output::note(format_args!("waiting: {sentence}"));
                self.told.replace(sentence);
            }
            sleep(LOOK_EVERY);
        }
        self.waits
    }
}

/// Prints the parts that were written, and the next thing to do.
///
/// # Errors
/// Missing parts, where this call could not write any.
pub(super) fn show_rounds(report: &RoundsReport, dir: &Path, as_json: bool) -> Result<()> {
    let RoundsReport { written, missing } = report;
    if let (true, Some(missing)) = (written.is_empty(), missing) {
        bail!("{missing}");
    }
    if as_json {
        let missing = missing.as_ref().map(PtqError::to_string);
        return output::json(&json!({ "rounds": dir, "written": written, "missing": missing }));
    }
    for part in written {
        output::line(format_args!("wrote {}", part.display()))?;
    }
    match missing {
        Some(missing) => output::line(missing),
        None => output::line(format_args!(
            "all layers are solved: the same command with --out in place of --shard makes the student, with --rounds {}",
            dir.display()
        )),
    }
}
