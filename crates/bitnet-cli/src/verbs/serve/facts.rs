//! Facts about the model, from its files.

use std::time::UNIX_EPOCH;

use anyhow::Result;
use behavior_eval::report::Stamp;
use moe_runtime::ModelFiles;

use crate::http::Facts;
use crate::load;

/// The facts of a model that is served in slots of `n_ctx` tokens; see [`id`] for its name.
pub(super) fn facts(files: &ModelFiles, alias: Option<&str>, n_ctx: usize) -> Result<Facts> {
    let changed = std::fs::metadata(files.path()).and_then(|metadata| metadata.modified());
    let created = changed.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let report = files.report();
    let most = report.classes.iter().max_by_key(|class| class.params);
    Ok(Facts {
        id: id(files, alias),
        created_s: created.map_or(0, |time| time.as_secs()),
        n_ctx_train: files.config.n_ctx,
        n_ctx,
        n_params: report.params,
        size_bytes: report.bytes,
        ftype: most.map_or_else(String::new, |class| class.ty.name().to_owned()),
        gates: gates(files),
        identity: load::state(files)?,
        hidden: files.config.hidden,
        vocab: files.config.vocab,
    })
}

/// The name of a model that is served under `alias`, or under the name of its file.
pub(super) fn id(files: &ModelFiles, alias: Option<&str>) -> String {
    let name = files.path().file_stem().or_else(|| files.path().file_name());
    let id = alias.map(str::to_owned).or_else(|| name.map(|name| name.to_string_lossy().into_owned()));
    id.unwrap_or_else(|| "model".to_owned())
}

/// The verdict of the gates that is written in the file.
fn gates(files: &ModelFiles) -> Option<String> {
    let stamp = Stamp::read(files.gguf()?.metadata()).ok()??;
    Some(stamp.verdict.to_string())
}
