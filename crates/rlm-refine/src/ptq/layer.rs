//! One layer of the student, made from one layer of the teacher: both residual streams go in, and both come out behind it.
//!
//! ```text
//! teacher stream ──► attention ──► x_f ──────────────────────────► experts ──► teacher stream behind the layer
//! student stream ──► attention ──► x_q ──► calibrate the networks ──► experts ──► student stream behind the layer
//!                    at its type           on norm(x_q) and norm(x_f)  ternary
//! ```
//!
//! **Invariant:** both layers are computed by the runtime itself, so the student stream is what the finished student
//! computes.

use std::collections::BTreeMap;

use mla_attention::{CacheType, CompressedMlaCache, Segments, Sequences};
use moe_runtime::adapters::LayerAdapter;
use moe_runtime::forward::{Batch, DecoderLayer, FeedForward, LayerScratch, SwiGlu};
use ternary_core::ActMode;
use tl_kernels::Pool;

use super::attention::calibrate_attention;
use super::error::PtqError;
use super::network::calibrate;
use super::report::{LayerReport, NetworkReport};
use super::routes::Routes;
use super::steps::{Search, Step};
use super::streams::Streams;
use super::tensors::{Context, load, matrix, plain_tensors, splice};
use crate::error::Result;
use crate::student::StudentPlan;

/// Tokens of a batch where positions do not matter.
const BATCH_TOKENS: usize = 1024;

/// The tensors of a layer of the student.
#[derive(Debug)]
pub(super) struct MadeLayer {
    /// The bytes of each tensor, by its index in the plan.
    pub(super) tensors: BTreeMap<usize, Vec<u8>>,
    pub(super) report: LayerReport,
}

/// Makes layer `index` and moves both streams behind it. `progress` is called with the number of each network done.
pub(super) fn make_layer(
    context: Context<'_>,
    index: usize,
    streams: &mut Streams,
    progress: &mut dyn FnMut(usize),
) -> Result<MadeLayer> {
    let Context { files, plan, pool, .. } = context;
    let config = &files.config;
    let teacher = DecoderLayer::load(&files.catalog, config, index, ActMode::F32)?;
    let mut tensors = plain_tensors(context, index)?;
    let mut attended = streams.teacher.clone();
    attend(pool, &teacher, &streams.windows, &mut attended)?;
    let mut behind = attended.clone();
    feed(pool, &teacher, streams.hidden, None, &mut behind)?;
    let token_weights = token_weights(context.search, &behind, streams.hidden);

    let attention = calibrate_attention(context, &teacher, streams, &token_weights, &mut tensors)?;
    let student = load(context, index, &tensors)?;
    streams.teacher = attended;
    attend(pool, &student, &streams.windows, &mut streams.student)?;
    check_finite("the residual stream behind the attention", index, &[&streams.teacher, &streams.student])?;

    let routes = Routes::new(pool, &teacher, &student, streams);
    let view = View { streams, layers: [&student, &teacher], routes: &routes, token_weights: &token_weights };
    let mut networks = Vec::new();
    for (number, network) in networks_of(&teacher).into_iter().enumerate() {
        if let Some(names) = network.ternary_names(plan, index) {
            let report = calibrate_network(context, &network, names, &view, &mut tensors)?;
            networks.push((network.name.clone(), report));
        }
        progress(number + 1);
    }

    let student = load(context, index, &tensors)?;
    feed(pool, &student, streams.hidden, None, &mut streams.student)?;
    streams.teacher = behind;
    check_finite("the residual stream", index, &[&streams.teacher, &streams.student])?;
    let (drift, cosine) = streams.drift();
    let report = LayerReport { layer: index, drift, cosine, routing: routes.report(), attention, networks };
    Ok(MadeLayer { tensors, report })
}

/// Adds the attention of `layer` to every window of `x`.
pub(crate) fn attend(pool: &Pool, layer: &DecoderLayer, windows: &[usize], x: &mut [f32]) -> Result<()> {
    let longest = windows.iter().copied().max().unwrap_or(0);
    let mut cache = CompressedMlaCache::new([layer.cache_shape()], longest.max(1), CacheType::F32)
        .map_err(mla_attention::Error::from)
        .map_err(moe_runtime::Error::from)?;
    let mut scratch = LayerScratch::default();
    let hidden = x.len() / windows.iter().sum::<usize>().max(1);
    let mut rest = x;
    for &tokens in windows {
        let (window, tail) = rest.split_at_mut(tokens * hidden);
        cache.reset();
        let segments = Segments::one(&cache, tokens);
        let mut sequences = Sequences { segments: &segments, caches: std::slice::from_mut(&mut cache), layer: 0 };
        layer.attend(Batch { pool, x: window, scratch: &mut scratch, adapter: None }, &mut sequences, &mut ())?;
        rest = tail;
    }
    Ok(())
}

/// Adds the feed-forward part of `layer`, with the additions of an adapter, to every row of `x`.
pub(crate) fn feed(
    pool: &Pool,
    layer: &DecoderLayer,
    hidden: usize,
    adapter: Option<&LayerAdapter>,
    x: &mut [f32],
) -> Result<()> {
    let mut scratch = LayerScratch::default();
    for rows in x.chunks_mut(BATCH_TOKENS * hidden) {
        layer.feed(Batch { pool, x: rows, scratch: &mut scratch, adapter }, 0, &mut ())?;
    }
    Ok(())
}

/// The weight of each token in the sums.
fn token_weights(search: &Search, behind: &[f32], hidden: usize) -> Vec<f32> {
    if !search.steps.has(Step::TokenWeights) {
        return vec![1.0; behind.len() / hidden];
    }
    inverse_square_lengths(behind, hidden)
}

/// One over the mean square of each token's row, so that tokens of long rows do not decide alone.
pub(crate) fn inverse_square_lengths(behind: &[f32], hidden: usize) -> Vec<f32> {
    let weight = |row: &[f32]| {
        let length2 = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>() / hidden as f64;
        if length2 > 0.0 { (1.0 / length2) as f32 } else { 0.0 }
    };
    behind.chunks_exact(hidden).map(weight).collect()
}

pub(crate) fn check_finite(what: &'static str, layer: usize, streams: &[&[f32]]) -> Result<()> {
    if streams.iter().all(|x| x.iter().all(|v| v.is_finite())) {
        return Ok(());
    }
    Err(PtqError::NotFinite { what, layer }.into())
}

/// A feed-forward network of the teacher, and the names of its tensors.
struct Network<'a> {
    /// Its name in reports.
    name: String,
    weights: &'a SwiGlu,
    /// The ending of its tensors' names.
    suffix: &'static str,
    /// Its number in a stack; `None` for a network that all tokens pass through.
    expert: Option<usize>,
}

/// Indices of gate, up and down in the plan.
type Names = [usize; 3];

fn networks_of(teacher: &DecoderLayer) -> Vec<Network<'_>> {
    match teacher.ffn() {
        FeedForward::Dense(weights) => {
            vec![Network { name: "dense".to_owned(), weights, suffix: "", expert: None }]
        }
        FeedForward::Moe { experts, .. } => {
            let routed = experts.routed().iter().enumerate();
            let routed =
                routed.map(|(e, weights)| Network { name: e.to_string(), weights, suffix: "_exps", expert: Some(e) });
            let shared = experts.shared();
            let shared =
                shared.map(|weights| Network { name: "shared".to_owned(), weights, suffix: "_shexp", expert: None });
            routed.chain(shared).collect()
        }
    }
}

impl Network<'_> {
    /// The tensors of the network, if any is ternary.
    fn ternary_names(&self, plan: &StudentPlan, layer: usize) -> Option<Names> {
        let find = |part: &str| {
            let name = format!("blk.{layer}.ffn_{part}{}.weight", self.suffix);
            plan.tensors.iter().position(|tensor| tensor.name == name)
        };
        let names = [find("gate")?, find("up")?, find("down")?];
        names.iter().any(|&index| plan.tensors[index].assignment.ty.is_ternary()).then_some(names)
    }
}

/// The activations in front of the networks of a layer.
struct View<'a> {
    /// The residual streams behind the attention.
    streams: &'a Streams,
    /// Student and teacher, whose norms stand between the streams and the networks.
    layers: [&'a DecoderLayer; 2],
    routes: &'a Routes,
    /// The weight of each token in the sums, `[n]`.
    token_weights: &'a [f32],
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

/// Makes the check of a drift that grows too fast.
pub(super) fn check_drift(report: &LayerReport, before: f64, force: bool) -> Result<()> {
    let LayerReport { layer, drift, .. } = *report;
    if !force && (drift > 1.0 || (drift > 0.5 && drift > 4.0 * before)) {
        return Err(PtqError::Drift { layer, drift, before }.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_student_that_drifts_away_is_refused_and_force_goes_on() {
        let report = |drift| LayerReport {
            layer: 7,
            drift,
            cosine: 0.9,
            routing: None,
            attention: Vec::new(),
            networks: Vec::new(),
        };
        for (drift, before) in [(0.6, 0.1), (1.1, 1.0), (f64::INFINITY, 0.1)] {
            let refused = check_drift(&report(drift), before, false).unwrap_err().to_string();
            assert!(refused.contains("layer 7") && refused.contains("--force"), "{refused}");
            check_drift(&report(drift), before, true).unwrap();
        }
        for (drift, before) in [(0.4, 0.05), (0.9, 0.3), (0.0, 0.0)] {
            check_drift(&report(drift), before, false).unwrap();
        }
    }
}
