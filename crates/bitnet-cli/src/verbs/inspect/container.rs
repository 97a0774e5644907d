//! A file that can be read and whose model this program does not compute: its tensors, its metadata, and the reason.

use std::collections::BTreeMap;

use anyhow::Result;
use gguf_bitnet::{OpenModel, TensorType};
use serde_json::json;

use super::metadata::{metadata_json, print_metadata};
use super::runs::print_runs;
use crate::output::{self, bits_per_weight, size};

/// Prints the facts about a container, and `error` as the reason why its model cannot be run.
pub(super) fn show(container: &OpenModel, error: &moe_runtime::Error, as_json: bool, all_tensors: bool) -> Result<()> {
    let source = container.source();
    let tensors = source.tensors();
    // Tensors, weights and bytes by type.
    let mut types: BTreeMap<TensorType, [u64; 3]> = BTreeMap::new();
    for info in tensors {
        let sum = types.entry(info.ty).or_default();
        *sum = [sum[0] + 1, sum[1] + info.elements() as u64, sum[2] + info.bytes];
    }
    let bytes: u64 = types.values().map(|sum| sum[2]).sum();
    let metadata = match container {
        OpenModel::Gguf(file) => Some(file.metadata()),
        OpenModel::Safetensors(_) => None,
    };
    let reason = error.to_string();
    if as_json {
        let types = types.iter().map(|(ty, [tensors, params, bytes])| {
            json!({ "type": ty, "tensors": tensors, "params": params, "bytes": bytes })
        });
        let mut facts = json!({
            "path": source.path(), "runs": false, "obstacles": [reason], "bytes": bytes,
            "types": types.collect::<Vec<_>>(),
        });
        if let Some(metadata) = metadata {
            facts["metadata"] = metadata_json(metadata);
        }
        if all_tensors {
            let tensors = tensors.iter().map(|t| json!({ "name": t.name, "type": t.ty, "shape": t.shape }));
            facts["tensors"] = tensors.collect();
        }
        return output::json(&facts);
    }
    output::line(format_args!("{}", source.path().display()))?;
    output::line(format_args!("{} tensors in {}", tensors.len(), size(bytes)))?;
    let mut table = output::table(["type", "tensors", "weights", "size", "bits/weight"], 1);
    for (ty, [tensors, params, bytes]) in &types {
        table.add_row([
            ty.name().to_owned(),
            tensors.to_string(),
            params.to_string(),
            size(*bytes),
            format!("{:.4}", bits_per_weight(*bytes, *params)),
        ]);
    }
    output::line(table)?;
    print_runs(&[reason])?;
    metadata.map_or(Ok(()), print_metadata)?;
    if all_tensors {
        for info in tensors {
            output::line(format_args!("{} {} {:?}", output::name(&info.name), info.ty, info.shape))?;
        }
    }
    Ok(())
}
