//! `verify`: reads a whole model and names every defect.

use std::path::PathBuf;

use pyo3::prelude::*;

use crate::errors::sentence;
use crate::options::locate;
use crate::worker::{Reporter, run_job};

/// The report as JSON, with the sentences of its defects, notices and unwritten ends, and whether the model is valid.
#[pyfunction]
#[pyo3(signature = (path, allow_zero, on_progress))]
pub(crate) fn verify(
    py: Python<'_>,
    path: PathBuf,
    allow_zero: bool,
    on_progress: Option<Py<PyAny>>,
) -> PyResult<(String, bool, Vec<String>, Vec<String>)> {
    let path = locate(&path)?;
    let work = move |reporter: &Reporter| {
        gguf_bitnet::verify(&path, &mut |done, total| reporter.tell("verifying", done, total))
    };
    let report = run_job(py, on_progress.as_ref(), work)?.map_err(sentence)?;
    let report = if allow_zero { report.allow_zero() } else { report };
    let tails = report.zero_tails.iter().map(|tail| format!("{}: {tail}", tail.path.display()));
    let (tails, defects): (Vec<String>, Vec<String>) =
        (tails.collect(), report.defects.iter().map(ToString::to_string).collect());
    let notices: Vec<String> = report.notices.iter().map(ToString::to_string).collect();
    let (defects, notices) = match report.zero_allowed {
        true => (defects, [tails, notices].concat()),
        false => ([tails, defects].concat(), notices),
    };
    let json = serde_json::to_string(&report).map_err(sentence)?;
    Ok((json, report.is_valid(), defects, notices))
}
