//! The four files of a report in one folder.

use std::path::Path;

use gguf_bitnet::{output_path, write_atomic};

use super::gate_report::GateReport;
use super::{html, junit, markdown};
use crate::{Error, Result};

/// Writes `report.html`, `report.json`, `report.junit.xml` and `report.md` into `folder`, which is made where it is missing.
/// Each file is written in one step, and [`RunFacts::files`](super::RunFacts::files) names all four.
///
/// # Errors
/// [`Error::File`] for a folder that cannot be made, [`Error::Store`] for a file that cannot be written.
pub fn write_files(report: &mut GateReport, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|source| Error::File { path: folder.to_owned(), source })?;
    for name in ["report.html", "report.json", "report.junit.xml", "report.md"] {
        report.run.files.insert(name.to_owned(), folder.join(name).display().to_string());
    }
    let texts = [
        ("report.html", html::html(report)),
        ("report.junit.xml", junit::junit(report)),
        ("report.md", markdown::markdown(report)),
        ("report.json", report.json()),
    ];
    for (name, text) in texts {
        write_atomic(&output_path(&folder.join(name))?, text.as_bytes())?;
    }
    Ok(())
}
