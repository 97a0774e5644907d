//! `--stamp`: the result goes into the student's own metadata.

use anyhow::{Result, anyhow};
use behavior_eval::report::{GateReport, Stamp};
use moe_runtime::ModelFiles;

use crate::exit::UsageError;
use crate::output::{self, Progress};

/// Refuses, before anything runs, a student that cannot be stamped.
pub(super) fn check(files: &ModelFiles) -> Result<()> {
    let path = files.path().display();
    match files.gguf() {
        None => {
            let sentence =
                format!("--stamp writes into a GGUF file, and {path} is none: leave it out, or quantise first");
            Err(UsageError::new(sentence).into())
        }
        Some(file) if file.n_parts() > 1 => {
            let n = file.n_parts();
            let sentence = format!("--stamp writes into a single file, and {path} is split into {n}: join them first");
            Err(UsageError::new(sentence).into())
        }
        Some(_) => Ok(()),
    }
}

/// Writes the stamp and reads it back. Takes the open model: a mapped file cannot be replaced on every system.
pub(super) fn write(report: &GateReport, files: ModelFiles) -> Result<()> {
    let path = files.path().to_owned();
    drop(files);
    let progress = Progress::bytes("stamping");
    let stamp = Stamp::of(report);
    stamp.write_file(&path, &mut |done, total| progress.show(done, total))?;
    drop(progress);
    let file = gguf_bitnet::GgufFile::open(&path)?;
    match Stamp::read(file.metadata())? {
        Some(read) if read.verdict == stamp.verdict && read.student == stamp.student => {
            output::note(format_args!("stamped {}: {}", path.display(), stamp.verdict));
            Ok(())
        }
        _ => Err(anyhow!("{} does not hold the stamp that was written: run the command again", path.display())),
    }
}
