//! The networks of one layer: all of them solved here, or those of a shard, with the others from the folder of the rounds.
//!
//! ```text
//! a unit of a part    {"network":"7","report":{...}}\n and the bytes of its ternary matrices: gate, up, down
//! ```

use std::collections::BTreeMap;
use std::ops::Range;

use gguf_bitnet::dequantize;
use moe_runtime::forward::{DecoderLayer, FeedForward, SwiGlu};
use serde::{Deserialize, Serialize};
use tl_kernels::Pool;

use super::network::calibrate;
use super::report::NetworkReport;
use super::rounds::{Round, damaged};
use super::routes::Routes;
use super::steps::Search;
use super::streams::Streams;
use super::tensors::{Context, DENSE, Names, ROUTED, SHARED, matrix, splice, ternary_names};
use crate::error::Result;
use crate::student::StudentPlan;

/// The names of networks, and their reports.
pub(super) type Reports = Vec<(String, NetworkReport)>;

/// The tensors of a layer in the making, by their index in the plan.
type Tensors = BTreeMap<usize, Vec<u8>>;

/// Solves for the ternary networks of a layer and replaces their rows in `tensors`. `progress` is called with the number of each
/// network done.
pub(super) fn calibrate_networks(
    context: Context<'_>,
    view: &View<'_>,
    tensors: &mut Tensors,
    progress: &mut dyn FnMut(usize),
) -> Result<Reports> {
    let teacher = view.layers[1];
    let mut reports = Vec::new();
    for (number, network) in networks_of(teacher).into_iter().enumerate() {
        if let Some(names) = ternary_names(context.plan, teacher.index(), network.suffix) {
            let report = calibrate_network(context, &network, names, view, tensors)?;
            reports.push((network.name.clone(), report));
        }
        progress(number + 1);
    }
    Ok(reports)
}

/// The line in front of a network's bytes in a part.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnitHead {
    network: String,
    report: NetworkReport,
}

/// The networks of a layer of the teacher that are ternary in the student, with their tensors: the units of a round.
pub(super) fn ternary_networks<'a>(plan: &StudentPlan, teacher: &'a DecoderLayer) -> Vec<(Network<'a>, Names)> {
    let names_of = |network: &Network<'_>| ternary_names(plan, teacher.index(), network.suffix);
    networks_of(teacher).into_iter().filter_map(|network| names_of(&network).map(|names| (network, names))).collect()
}

/// As [`calibrate_networks`], with the networks of other shards from their parts.
pub(super) fn share_networks(
    context: Context<'_>,
    view: &View<'_>,
    round: &Round<'_>,
    tensors: &mut Tensors,
    progress: &mut dyn FnMut(usize),
) -> Result<Reports> {
    let networks = ternary_networks(context.plan, view.layers[1]);
    if networks.is_empty() {
        return Ok(Vec::new());
    }
    let parts = round.parts(&mut |unit| {
        let (network, names) = &networks[unit];
        let report = calibrate_network(context, network, *names, view, tensors)?;
        progress(unit + 1);
        let head = UnitHead { network: network.name.clone(), report };
        let mut bytes = serde_json::to_vec(&head).map_err(|error| round.unwritten(error.into()))?;
        bytes.push(b'\n');
        for (index, span) in spans(context, network, *names, tensors) {
            bytes.extend_from_slice(&tensors[&index][span]);
        }
        Ok(bytes)
    })?;
    let mut reports = Vec::new();
    for (unit, (network, names)) in networks.iter().enumerate() {
        let bytes = parts.read(unit)?;
        let report = take(context, (network, *names), &bytes, tensors);
        let report = report.ok_or_else(|| damaged(parts.path(unit), &network.name))?;
        reports.push((network.name.clone(), report));
    }
    Ok(reports)
}

/// The ternary matrices of a network: their tensors, and their bytes in these.
fn spans(context: Context<'_>, network: &Network<'_>, names: Names, tensors: &Tensors) -> Vec<(usize, Range<usize>)> {
    let ternary = names.into_iter().filter(|&index| context.plan.tensors[index].assignment.ty.is_ternary());
    let span = |index: usize| {
        let all = tensors[&index].len();
        let Some(expert) = network.expert else { return (index, 0..all) };
        let len = all / context.files.catalog.tensors()[index].outer().max(1);
        (index, expert * len..(expert + 1) * len)
    };
    ternary.map(span).collect()
}

/// Replaces the rows of a network in `tensors` by those of a unit; `None` for a unit of another network or length, and for
/// rows that hold no finite numbers, which would end the student's job.
fn take(
    context: Context<'_>,
    (network, names): (&Network<'_>, Names),
    unit: &[u8],
    tensors: &mut Tensors,
) -> Option<NetworkReport> {
    let end = unit.iter().position(|&byte| byte == b'\n')?;
    let head: UnitHead = serde_json::from_slice(&unit[..end]).ok()?;
    let mut rest = &unit[end + 1..];
    for (index, span) in spans(context, network, names, tensors) {
        let bytes = rest.split_off(..span.len()).filter(|bytes| are_finite(context.plan, index, bytes))?;
        tensors.get_mut(&index)?[span].copy_from_slice(bytes);
    }
    (head.network == network.name && rest.is_empty()).then_some(head.report)
}

/// Whether the rows of a tensor can be decoded, to finite numbers.
fn are_finite(plan: &StudentPlan, index: usize, rows: &[u8]) -> bool {
    let (ty, cols) = (plan.tensors[index].assignment.ty, plan.tensors[index].cols());
    let Ok(row_bytes) = ty.row_bytes(cols) else { return false };
    let mut values = vec![0.0; cols];
    let is_finite = |row: &[u8]| dequantize(ty, row, &mut values).is_ok() && values.iter().all(|v| v.is_finite());
    rows.chunks(row_bytes.max(1)).all(is_finite)
}

/// A feed-forward network of the teacher, and the names of its tensors.
pub(super) struct Network<'a> {
    /// Its name in reports.
    name: String,
    weights: &'a SwiGlu,
    /// The ending of its tensors' names.
    suffix: &'static str,
    /// Its number in a stack; `None` for a network that all tokens pass through.
    expert: Option<usize>,
}

fn networks_of(teacher: &DecoderLayer) -> Vec<Network<'_>> {
    match teacher.ffn() {
        FeedForward::Dense(weights) => {
            vec![Network { name: "dense".to_owned(), weights, suffix: DENSE, expert: None }]
        }
        FeedForward::Moe { experts, .. } => {
            let routed = experts.routed().iter().enumerate();
            let routed =
                routed.map(|(e, weights)| Network { name: e.to_string(), weights, suffix: ROUTED, expert: Some(e) });
            let shared = experts.shared();
            let shared =
                shared.map(|weights| Network { name: "shared".to_owned(), weights, suffix: SHARED, expert: None });
            routed.chain(shared).collect()
        }
    }
}

/// The activations in front of the networks of a layer.
pub(super) struct View<'a> {
    /// The residual streams behind the attention.
    pub(super) streams: &'a Streams,
    /// Student and teacher, whose norms stand between the streams and the networks.
    pub(super) layers: [&'a DecoderLayer; 2],
    pub(super) routes: &'a Routes,
    /// The weight of each token in the sums, `[n]`.
    pub(super) token_weights: &'a [f32],
}

impl View<'_> {
    /// Writes the networks' inputs at `positions`: the student's, then the teacher's.
    fn write_inputs(&self, pool: &Pool, positions: &[u32], xq: &mut [f32], xf: &mut [f32]) {
        let hidden = self.streams.hidden;
        let streams = [&self.streams.student, &self.streams.teacher];
        for ((out, layer), stream) in [xq, xf].into_iter().zip(self.layers).zip(streams) {
            pool.chunks_mut(out, hidden, |i, row| {
                layer.norm_for_ffn(&stream[positions[i] as usize * hidden..][..hidden], row);
            });
        }
    }
}

/// Calibrates a network and replaces its rows in `tensors`.
fn calibrate_network(
    context: Context<'_>,
    network: &Network<'_>,
    names: Names,
    view: &View<'_>,
    tensors: &mut BTreeMap<usize, Vec<u8>>,
) -> Result<NetworkReport> {
    let Context { search, pool, plan, .. } = context;
    let read = |index: usize| matrix(context, network.expert, index, &tensors[&index]);
    let matrices = [read(names[0])?, read(names[1])?, read(names[2])?];
    let [(fit, pooled_fit), (held_out, pooled_held_out)] =
        view.routes.tokens(network.expert, search, view.token_weights, matrices[0].cols);
    let inputs = |positions: &[u32], xq: &mut [f32], xf: &mut [f32]| view.write_inputs(pool, positions, xq, xf);
    let layer = view.layers[0].index() as u64;
    let number = network.expert.map_or(u64::MAX, |e| e as u64);
    let search = Search { seed: search.seed ^ layer.wrapping_mul(0x9e37_79b9).wrapping_add(number), ..search.clone() };
    let (rows, report) = calibrate(pool, &search, network.weights, &matrices, [&fit, &held_out], &inputs)?;
    for (index, rows) in names.into_iter().zip(&rows) {
        splice(plan, network.expert, index, rows, tensors)?;
    }
    let pooled_tokens = pooled_fit + pooled_held_out;
    Ok(NetworkReport {
        tokens: report.tokens - pooled_tokens,
        held_out_tokens: report.held_out_tokens - pooled_held_out,
        pooled_tokens,
        ..report
    })
}
