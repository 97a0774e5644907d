//! `--adapter`: low-rank additions to the weights of a model.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use moe_runtime::ModelFiles;
use moe_runtime::adapters::{AdapterSet, AdapterSlot, OpenAdapters, ScaledAdapter};

use crate::output::Progress;

#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct AdapterArgs {
    /// Add a LoRA adapter (GGUF) to the weights, with SCALE as its strength (default: 1); several add up
    #[arg(long = "adapter", value_name = "FILE[=SCALE]", value_parser = parse)]
    pub(crate) adapters: Vec<ScaledAdapter>,
}

impl AdapterArgs {
    /// Opens the files of the adapters; `None` where there are none.
    ///
    /// # Errors
    /// A file that is missing or no GGUF.
    pub(crate) fn open(&self) -> Result<Option<OpenAdapters>> {
        Ok((!self.adapters.is_empty()).then(|| OpenAdapters::open(&self.adapters)).transpose()?)
    }

    /// The sum of the adapters, for verbs that do not need their identity.
    ///
    /// # Errors
    /// As [`AdapterArgs::open`] and [`sum_of_adapters`].
    pub(crate) fn load(&self, files: &ModelFiles) -> Result<Option<Arc<AdapterSet>>> {
        sum_of_adapters(self.open()?.as_ref(), files)
    }

    /// As [`AdapterArgs::load`], as the place that a session takes them from.
    ///
    /// # Errors
    /// As [`AdapterArgs::load`].
    pub(crate) fn slot(&self, files: &ModelFiles) -> Result<AdapterSlot> {
        Ok(AdapterSlot::new(self.load(files)?))
    }
}

/// Adds up adapters that belong to the model. Reads the whole model, with a bar, where an adapter names the model that it
/// belongs to.
///
/// # Errors
/// A file that is no adapter, and an adapter of another model.
pub(crate) fn sum_of_adapters(adapters: Option<&OpenAdapters>, files: &ModelFiles) -> Result<Option<Arc<AdapterSet>>> {
    let Some(adapters) = adapters else { return Ok(None) };
    Ok(Some(Arc::new(adapters.set(files, &mut || identity(files))?)))
}

/// The identity of the model with its adapters. Reads the whole model, with a bar, unless that was done before.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn adapted_identity(adapters: Option<&OpenAdapters>, files: &ModelFiles) -> Result<String> {
    let identity = identity(files)?;
    match adapters {
        None => Ok(identity),
        Some(adapters) => Ok(adapters.identity(&identity)?),
    }
}

fn identity(files: &ModelFiles) -> moe_runtime::Result<String> {
    let progress = Progress::bytes("identifying the model");
    files.identity(&mut |done, total| progress.show(done, total))
}

/// Parses a file and perhaps a strength. Text behind the last `=` that is no number belongs to the name of the file.
fn parse(text: &str) -> Result<ScaledAdapter, String> {
    let (path, scale): (&str, f32) = match text.rsplit_once('=') {
        Some((path, scale)) if scale.parse::<f32>().is_ok() => (path, scale.parse().unwrap_or(1.0)),
        _ => (text, 1.0),
    };
    if path.is_empty() || path == "-" {
        return Err(
            "an adapter is mapped from a file: write its name, and behind it =SCALE for another strength".into()
        );
    }
    if !scale.is_finite() {
        return Err("the strength behind `=` must be a finite number, for example 0.5".into());
    }
    Ok(ScaledAdapter { path: PathBuf::from(path), scale })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strength_stands_behind_the_last_equals_sign() {
        let parsed = |text| parse(text).map(|adapter| (adapter.path.display().to_string(), adapter.scale));
        assert_eq!(parsed("a.gguf"), Ok(("a.gguf".into(), 1.0)));
        assert_eq!(parsed("a.gguf=0.5"), Ok(("a.gguf".into(), 0.5)));
        assert_eq!(parsed("a=b.gguf"), Ok(("a=b.gguf".into(), 1.0)));
        assert_eq!(parsed("a=b.gguf=-2"), Ok(("a=b.gguf".into(), -2.0)));
        for wrong in ["", "-", "=1", "-=1", "a.gguf=nan", "a.gguf=inf"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
