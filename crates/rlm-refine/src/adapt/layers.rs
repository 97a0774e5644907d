//! The layers of a student in order, each adapted on what the layers before it compute with their additions.
//!
//! ```text
//! teacher stream ──► layer ─────────────────────────────► teacher stream behind it
//!                      │ inputs and outputs of its networks
//! student stream ──► attention ──► additions ──► networks with additions ──► student stream behind it
//! ```
//!
//! **Invariant:** both streams are computed by the runtime itself, so the student's is what the student computes with the
//! finished adapter.

use moe_runtime::ModelFiles;
use moe_runtime::adapters::{AdapterFile, FactorPair, LayerAdapter};
use moe_runtime::forward::{DecoderLayer, FeedForward};
use serde::Serialize;
use ternary_core::ActMode;
use tl_kernels::Pool;

use super::error::AdaptError;
use super::networks::{LayerInputs, NetworkAdditions, Networks, additions, ternary};
use crate::error::Result;
use crate::pair::ensure_pair;
use crate::ptq::{Calibration, PtqError, attend, check_finite, feed, inverse_square_lengths, route};

/// How an adapter is made.
#[derive(Clone, Debug)]
pub struct AdaptOptions {
    /// Rank of the addition to each matrix.
    pub rank: usize,
    /// The texts that it is made on.
    pub calibration: Calibration,
}

/// The additions to one layer, in numbers.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AdaptedLayer {
    /// Position in the model.
    pub layer: usize,
    /// Number of its feed-forward matrices that are ternary.
    pub matrices: usize,
    /// Number of them whose error on held-out tokens an addition lowers.
    pub adapted: usize,
    /// Length of the difference of the residual streams behind the layer over the length of the teacher's.
    pub drift: f64,
}

/// An adapter and how it came about.
#[derive(Clone, Debug)]
pub struct Adaptation {
    /// The additions of all layers, ready to be written.
    pub adapter: AdapterFile,
    /// One entry per layer.
    pub layers: Vec<AdaptedLayer>,
}

/// Makes an adapter for `student`, a ternary model that was made of `teacher`: additions of low rank to its ternary
/// feed-forward matrices that lower their errors on the calibration texts. `progress` gets the layers done and in all.
///
/// # Errors
/// Models that are no pair, a student without ternary matrices, an impossible rank, and streams that are not finite.
pub fn adapt(
    teacher: &ModelFiles,
    student: &ModelFiles,
    pool: &Pool,
    options: &AdaptOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Adaptation> {
    ensure_pair(teacher, student)?;
    check_rank(student, options.rank)?;
    let config = &student.config;
    let windows = &options.calibration.windows;
    let lengths: Vec<usize> = windows.iter().map(Vec::len).collect();
    let mut streams = [embed(student, windows)?, embed(teacher, windows)?];
    let (mut pairs, mut layers) = (Vec::new(), Vec::new());
    for index in 0..config.n_layers {
        progress(index as u64, config.n_layers as u64);
        let load = |files: &ModelFiles| DecoderLayer::load(&files.catalog, &files.config, index, ActMode::F32);
        let of = [load(student)?, load(teacher)?];
        for (layer, x) in of.iter().zip(&mut streams) {
            attend(pool, layer, &lengths, x)?;
        }
        let mut behind = streams[1].clone();
        feed(pool, &of[1], config.hidden, None, &mut behind)?;
        let inputs = inputs(pool, &of, &streams, inverse_square_lengths(&behind, config.hidden));
        let networks = networks_of(&of[1], &of[0]);
        let made = additions(pool, &networks, &inputs, options.rank)?;
        let matrices = networks.iter().map(|n| ternary(n.student).iter().filter(|is| **is).count()).sum();
        let adapted = made.iter().map(NetworkAdditions::count).sum();
        pairs.extend(factor_pairs(index, &networks, &made, options.rank));
        feed(pool, &of[0], config.hidden, Some(&layer_adapter(&networks, &made)?), &mut streams[0])?;
        streams[1] = behind;
        check_finite("the residual stream", index, &[&streams[0], &streams[1]])?;
        layers.push(AdaptedLayer { layer: index, matrices, adapted, drift: drift(&streams) });
    }
    progress(config.n_layers as u64, config.n_layers as u64);
    if layers.iter().all(|layer| layer.matrices == 0) {
        return Err(AdaptError::NothingTernary.into());
    }
    pairs.sort_by(|a: &FactorPair, b| a.tensor.cmp(&b.tensor));
    let adapter = AdapterFile {
        architecture: config.arch.gguf_name().to_owned(),
        model: Some(student.identity(&mut |_, _| {})?),
        // The file divides it by the rank, so that the factors count as they are.
        alpha: options.rank as f32,
        pairs,
    };
    Ok(Adaptation { adapter, layers })
}

/// Refuses a rank that a matrix of the student does not have.
pub(crate) fn check_rank(student: &ModelFiles, rank: usize) -> Result<()> {
    let limit =
        student.config.moe.as_ref().map_or(student.config.hidden, |moe| moe.expert_ff.min(student.config.hidden));
    check_rank_within(rank, limit)
}

/// Refuses 0 and a rank above `limit`.
pub(crate) fn check_rank_within(rank: usize, limit: usize) -> Result<()> {
    if !(1..=limit).contains(&rank) {
        return Err(AdaptError::Rank { rank, limit }.into());
    }
    Ok(())
}

/// The embeddings of all windows, `[n, hidden]`.
fn embed(files: &ModelFiles, windows: &[Vec<u32>]) -> Result<Vec<f32>> {
    let (hidden, vocab) = (files.config.hidden, files.config.vocab);
    let Some(embedding) = files.catalog.find("token_embd.weight") else { return Err(PtqError::NoTokens.into()) };
    let mut x = vec![0.0; windows.iter().map(Vec::len).sum::<usize>() * hidden];
    for (&token, row) in windows.iter().flatten().zip(x.chunks_exact_mut(hidden)) {
        let index = token as usize;
        if index >= vocab {
            return Err(PtqError::Token { token, vocab }.into());
        }
        files.catalog.read_rows(embedding, index..index + 1, row)?;
    }
    Ok(x)
}

/// The inputs of the networks of a layer, of student and teacher, for streams behind its attention.
fn inputs(pool: &Pool, of: &[DecoderLayer; 2], streams: &[Vec<f32>; 2], weights: Vec<f32>) -> LayerInputs {
    let hidden = streams[0].len() / weights.len().max(1);
    let rows = [0, 1].map(|i| {
        let mut out = vec![0.0; streams[i].len()];
        pool.chunks_mut(&mut out, hidden, |t, row| of[i].norm_for_ffn(&streams[i][t * hidden..][..hidden], row));
        out
    });
    let (top_k, routes) = route(pool, &of[0], &streams[0], hidden);
    LayerInputs { hidden, rows, weights, routes, top_k }
}

/// The networks of a layer: the routed experts, then the one that all tokens pass through.
fn networks_of<'a>(teacher: &'a DecoderLayer, student: &'a DecoderLayer) -> Vec<Networks<'a>> {
    match (teacher.ffn(), student.ffn()) {
        (FeedForward::Dense(teacher), FeedForward::Dense(student)) => {
            vec![Networks { teacher, student, expert: None }]
        }
        (FeedForward::Moe { experts: teacher, .. }, FeedForward::Moe { experts: student, .. }) => {
            let routed = teacher.routed().iter().zip(student.routed()).enumerate();
            let routed = routed.map(|(e, (teacher, student))| Networks { teacher, student, expert: Some(e) });
            let shared = teacher.shared().zip(student.shared());
            let shared = shared.map(|(teacher, student)| Networks { teacher, student, expert: None });
            routed.chain(shared).collect()
        }
        _ => Vec::new(),
    }
}

fn layer_adapter(networks: &[Networks<'_>], made: &[NetworkAdditions]) -> Result<LayerAdapter> {
    let mut adapter = LayerAdapter::default();
    for (network, made) in networks.iter().zip(made) {
        match network.expert {
            Some(_) => adapter.routed.push(made.adapter()?),
            None => adapter.always = made.adapter()?,
        }
    }
    Ok(adapter)
}

/// The factors of a layer as the file stores them: stacks over the routed experts, with zeros where nothing is added.
fn factor_pairs(layer: usize, networks: &[Networks<'_>], made: &[NetworkAdditions], rank: usize) -> Vec<FactorPair> {
    let is_moe = networks.iter().any(|network| network.expert.is_some());
    let mut pairs = Vec::new();
    for routed in [true, false] {
        let members: Vec<_> =
            networks.iter().zip(made).filter(|(network, _)| network.expert.is_some() == routed).collect();
        let suffix = if routed {
            "_exps"
        } else if is_moe {
            "_shexp"
        } else {
            ""
        };
        for (part, name) in ["gate", "up", "down"].into_iter().enumerate() {
            if members.iter().all(|(_, made)| made.0[part].is_none()) {
                continue;
            }
            let linear = |network: &Networks<'_>| {
                let w = [network.student.gate(), network.student.up(), network.student.down()][part];
                (w.rows(), w.cols())
            };
            let (outputs, inputs) = linear(members[0].0);
            let stack: Vec<usize> = if routed { vec![members.len()] } else { Vec::new() };
            let mut pair = FactorPair {
                tensor: format!("blk.{layer}.ffn_{name}{suffix}.weight"),
                a_shape: [&stack[..], &[rank, inputs]].concat(),
                b_shape: [&stack[..], &[outputs, rank]].concat(),
                a: Vec::new(),
                b: Vec::new(),
            };
            for (_, made) in &members {
                match &made.0[part] {
                    Some(addition) => {
                        pair.a.extend_from_slice(addition.a());
                        pair.b.extend(addition.b());
                    }
                    None => {
                        pair.a.resize(pair.a.len() + rank * inputs, 0.0);
                        pair.b.resize(pair.b.len() + outputs * rank, 0.0);
                    }
                }
            }
            pairs.push(pair);
        }
    }
    pairs
}

/// Length of the difference of the streams over the length of the teacher's.
fn drift([student, teacher]: &[Vec<f32>; 2]) -> f64 {
    let square = |v: f32| f64::from(v) * f64::from(v);
    let difference: f64 = student.iter().zip(teacher).map(|(s, t)| square(s - t)).sum();
    let whole: f64 = teacher.iter().map(|t| square(*t)).sum();
    if whole > 0.0 { (difference / whole).sqrt() } else { 0.0 }
}
