//! From numbers that are NaN or infinite to the tensor that holds them.

use anyhow::{Error, anyhow};
use moe_runtime::ModelFiles;

/// Reads the whole model and names its first damaged tensor, if there is one: the explanation of logits that are not
/// finite.
pub(crate) fn first_defect(files: &ModelFiles) -> Option<Error> {
    let metadata = files.gguf().map(|file| file.metadata());
    let report = gguf_bitnet::verify_source(&**files.catalog.source(), metadata, &mut |_, _| {}).ok()?;
    // Zeros make no number infinite.
    let defect = report.defects.iter().find(|defect| !defect.kind.is_zero())?;
    Some(anyhow!("{}: {defect}: make or download it again", files.path().display()))
}
