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
use moe_runtime::forward::{Batch, DecoderLayer, LayerScratch};
use ternary_core::ActMode;
use tl_kernels::Pool;

use super::attention::calibrate_attention;
use super::error::PtqError;
use super::networks::{View, calibrate_networks, share_networks, ternary_networks};
use super::report::LayerReport;
use super::rounds::Rounds;
use super::routes::Routes;
use super::steps::{Search, Step};
use super::streams::Streams;
use super::tensors::{Context, load, plain_tensors};
use crate::error::Result;

/// Tokens of a batch where positions do not matter.
const BATCH_TOKENS: usize = 1024;

/// The tensors of a layer of the student.
#[derive(Debug)]
pub(super) struct MadeLayer {
    /// The bytes of each tensor, by its index in the plan.
    pub(super) tensors: BTreeMap<usize, Vec<u8>>,
    pub(super) report: LayerReport,
}

/// Makes layer `index` and moves both streams behind it. `progress` is called with the number of each network done. Where there are
/// `rounds`, other machines solve some of the networks.
pub(super) fn make_layer(
    context: Context<'_>,
    rounds: Option<&Rounds<'_>>,
    index: usize,
    streams: &mut Streams,
    progress: &mut dyn FnMut(usize),
) -> Result<MadeLayer> {
    let Context { files, pool, .. } = context;
    let config = &files.config;
    let teacher = DecoderLayer::load(&files.catalog, config, index, ActMode::F32)?;
    let units = || ternary_networks(context.plan, &teacher).len();
    let round = rounds.map(|rounds| rounds.round(files, index, units(), streams)).transpose()?;
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
    let networks = match &round {
        Some(round) => share_networks(context, &view, round, &mut tensors, progress)?,
        None => calibrate_networks(context, &view, &mut tensors, progress)?,
    };

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
