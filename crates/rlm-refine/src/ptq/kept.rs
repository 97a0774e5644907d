//! The windows of an unfinished job, so that a job which is continued does not generate or route its texts again.
//!
//! ```text
//! OUT.partial/state.N, or DIR/state.N of rounds    {"model": BLAKE3 (in DIR, of a sample), "request": BLAKE3 of texts and options, "windows": [[token, ...], ...], "sources": [...]}
//! ```
//! N is the number of layers plus 1: the streams have the numbers before it.
//!
//! **Invariant:** kept windows count for the same texts and options alone, and a job with another model than theirs is refused.

use std::io::Write;
use std::path::{Path, PathBuf};

use gguf_bitnet::{Job, NewFile};
use moe_runtime::ModelFiles;
use serde::Deserialize;
use serde_json::json;

use super::calibration::{Calibration, NamedText, SourceReport, WindowOptions, request};
use super::error::PtqError;
use super::rounds::state;
use crate::error::{Error, Result};

/// Most bytes of kept windows: ten million tokens and more.
const MAX_BYTES: u64 = 128 << 20;

#[derive(Deserialize)]
struct Kept {
    model: String,
    request: String,
    windows: Vec<Vec<u32>>,
    sources: Vec<SourceReport>,
}

/// The place of a calibration that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished<'a> {
    /// The output of a job.
    Output(&'a Path),
    /// The folder of rounds that several machines share.
    Rounds(&'a Path),
}

impl Unfinished<'_> {
    fn state(self, number: usize) -> Result<PathBuf> {
        match self {
            Unfinished::Output(out) => Ok(Job::state_path(out, number)?),
            Unfinished::Rounds(dir) => Ok(state(dir, number)),
        }
    }
}

impl Calibration {
    /// The windows that an unfinished calibration keeps for these texts and options; `None` where it keeps none. They are
    /// those of [`Calibration::new`] for the model of that calibration; one with another model refuses them.
    ///
    /// # Errors
    /// An output that cannot be written, or a kept file that cannot be read.
    pub fn of_unfinished(
        files: &ModelFiles,
        place: Unfinished<'_>,
        sources: &[NamedText],
        exclude: &[NamedText],
        options: WindowOptions,
    ) -> Result<Option<Self>> {
        let path = place.state(number(files))?;
        let Some(text) = gguf_bitnet::read_text_if_any(&path, MAX_BYTES)? else { return Ok(None) };
        let kept = serde_json::from_str::<Kept>(&text).ok().filter(|kept| {
            let fits = |window: &Vec<u32>| (1..=options.window_tokens).contains(&window.len());
            kept.request == request(sources, exclude, options)
                && !kept.windows.is_empty()
                && kept.windows.iter().all(fits)
        });
        Ok(kept.map(|kept| Self { model: Some(kept.model), ..Self::of(kept.windows, kept.sources, kept.request) }))
    }

    /// Checks that kept windows are those of the model that is quantised.
    ///
    /// # Errors
    /// [`PtqError::OtherModel`].
    pub(crate) fn ensure_of_model(&self, source_blake3: &str) -> Result<()> {
        match &self.model {
            Some(model) if model != source_blake3 => Err(PtqError::OtherModel.into()),
            _ => Ok(()),
        }
    }

    /// Keeps the windows among the states of an open job on the model with this BLAKE3.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn keep(
        &self,
        files: &ModelFiles,
        source_blake3: &str,
        states: &dyn Fn(usize) -> PathBuf,
    ) -> Result<()> {
        let path = states(number(files));
        if path.exists() {
            return Ok(());
        }
        let Self { request, windows, sources, .. } = self;
        let kept = json!({ "model": source_blake3, "request": request, "windows": windows, "sources": sources });
        let mut file = NewFile::create(&path)?;
        file.write_all(kept.to_string().as_bytes()).map_err(Error::io("write", &path))?;
        Ok(file.publish()?)
    }
}

/// The number of the state that keeps the windows.
fn number(files: &ModelFiles) -> usize {
    files.config.n_layers + 1
}
