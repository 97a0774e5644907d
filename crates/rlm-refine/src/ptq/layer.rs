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

use mla_attention::{CacheType, LayerCache};
use moe_runtime::ModelFiles;
use moe_runtime::forward::{Batch, DecoderLayer, FeedForward, LayerScratch, MoeRouter, RouterScratch, SwiGlu};
use ternary_core::{ActMode, BLOCK, Rounding};
use tl_kernels::{ActivationBuffer, Pool};

use super::error::PtqError;
use super::network::{Matrix, Rows, Search, Tokens, calibrate};
use super::report::{LayerReport, NetworkReport, RoutingReport};
use super::rows::TernaryRow;
use super::source::LayerTensors;
use super::steps::Step;
use super::streams::Streams;
use crate::encode::{Encoding, encode_rows};
use crate::error::Result;
use crate::student::StudentPlan;

/// Tokens of a batch where positions do not matter.
const BATCH_TOKENS: usize = 1024;
/// Tokens of a run that is fitted or held out as a whole.
const RUN_TOKENS: usize = 16;
/// One run of this many is held out of the fit and judges its rows.
const HELD_OUT: usize = 16;

/// The inputs of a layer besides the streams.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) files: &'a ModelFiles,
    pub(super) plan: &'a StudentPlan,
    pub(super) search: &'a Search,
    pub(super) pool: &'a Pool,
}

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
    let student = load(context, index, &tensors)?;
    attend(pool, &teacher, &streams.windows, &mut streams.teacher)?;
    attend(pool, &student, &streams.windows, &mut streams.student)?;
    check_finite("the residual stream behind the attention", index, &[&streams.teacher, &streams.student])?;

    let mut behind = streams.teacher.clone();
    feed(pool, &teacher, streams.hidden, &mut behind)?;
    let token_weights = token_weights(context.search, &behind, streams.hidden);
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
    feed(pool, &student, streams.hidden, &mut streams.student)?;
    streams.teacher = behind;
    check_finite("the residual stream", index, &[&streams.teacher, &streams.student])?;
    let (drift, cosine) = streams.drift();
    for tensor in files.catalog.tensors().iter().filter(|tensor| layer_of(&tensor.name) == Some(index)) {
        files.catalog.release(tensor);
    }
    let report = LayerReport { layer: index, drift, cosine, routing: routes.report(), networks };
    Ok(MadeLayer { tensors, report })
}

/// The layer that a tensor belongs to, by its canonical name.
pub(super) fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split_once('.')?.0.parse().ok()
}

/// Every tensor of the layer in its type, without calibration, by its index in the plan.
fn plain_tensors(context: Context<'_>, layer: usize) -> Result<BTreeMap<usize, Vec<u8>>> {
    let Context { files, plan, pool, .. } = context;
    let mut made = BTreeMap::new();
    for (index, planned) in plan.tensors.iter().enumerate() {
        if layer_of(&planned.name) != Some(layer) {
            continue;
        }
        let tensor = &files.catalog.tensors()[index];
        let encoding = Encoding { ty: planned.assignment.ty, rounding: Rounding::LeastSquares, cols: planned.cols() };
        let read = |rows, out: &mut [f32]| Ok(files.catalog.read_rows(tensor, rows, out)?);
        let mut bytes = Vec::new();
        encode_rows(pool, encoding, 0..planned.rows(), &read, &mut bytes)?;
        made.insert(index, bytes);
    }
    Ok(made)
}

/// The layer of the student as the runtime computes it.
fn load(context: Context<'_>, layer: usize, tensors: &BTreeMap<usize, Vec<u8>>) -> Result<DecoderLayer> {
    let infos = tensors.iter().map(|(&index, bytes)| Ok((context.plan.info(index)?, bytes.clone())));
    let tensors = LayerTensors::new(infos.collect::<Result<Vec<_>>>()?, context.files.path());
    tensors.load(&context.files.config, layer)
}

/// Adds the attention of `layer` to every window of `x`.
fn attend(pool: &Pool, layer: &DecoderLayer, windows: &[usize], x: &mut [f32]) -> Result<()> {
    let longest = windows.iter().copied().max().unwrap_or(0);
    let mut cache = LayerCache::new(layer.cache_shape(), longest.max(1), CacheType::F32)
        .map_err(mla_attention::Error::from)
        .map_err(moe_runtime::Error::from)?;
    let mut scratch = LayerScratch::default();
    let hidden = x.len() / windows.iter().sum::<usize>().max(1);
    let mut rest = x;
    for &tokens in windows {
        let (window, tail) = rest.split_at_mut(tokens * hidden);
        cache.reset();
        layer.attend(Batch { pool, x: window, scratch: &mut scratch }, &mut cache, &mut ())?;
        rest = tail;
    }
    Ok(())
}

/// Adds the feed-forward part of `layer` to every row of `x`.
fn feed(pool: &Pool, layer: &DecoderLayer, hidden: usize, x: &mut [f32]) -> Result<()> {
    let mut scratch = LayerScratch::default();
    for rows in x.chunks_mut(BATCH_TOKENS * hidden) {
        layer.feed(Batch { pool, x: rows, scratch: &mut scratch }, 0, &mut ())?;
    }
    Ok(())
}

/// One over the squared length of each token's row, so that tokens of long rows do not decide alone.
fn token_weights(search: &Search, behind: &[f32], hidden: usize) -> Vec<f32> {
    let weight = |row: &[f32]| {
        let length2 = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>() / hidden as f64;
        if length2 > 0.0 { (1.0 / length2) as f32 } else { 0.0 }
    };
    if !search.steps.has(Step::TokenWeights) {
        return vec![1.0; behind.len() / hidden];
    }
    behind.chunks_exact(hidden).map(weight).collect()
}

fn check_finite(what: &'static str, layer: usize, streams: &[&[f32]]) -> Result<()> {
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
    let Context { files, plan, search, pool } = context;
    let read = |index: usize| matrix(files, plan, network.expert, index, &tensors[&index]);
    let matrices = [read(names[0])?, read(names[1])?, read(names[2])?];
    let [fit, held_out] = view.routes.tokens(network.expert, search, view.token_weights);
    let inputs = |positions: &[u32], xq: &mut [f32], xf: &mut [f32]| view.write_inputs(pool, positions, xq, xf);
    let layer = view.layers[0].index() as u64;
    let number = network.expert.map_or(u64::MAX, |e| e as u64);
    let search = Search { seed: search.seed ^ layer.wrapping_mul(0x9e37_79b9).wrapping_add(number), ..search.clone() };
    let (rows, report) = calibrate(pool, &search, network.weights, &matrices, [&fit, &held_out], &inputs)?;
    splice(plan, network.expert, names, &rows, tensors);
    Ok(report)
}

/// One matrix of the teacher, with the values that its plain bytes hold.
fn matrix(files: &ModelFiles, plan: &StudentPlan, expert: Option<usize>, index: usize, plain: &[u8]) -> Result<Matrix> {
    let (planned, tensor) = (&plan.tensors[index], &files.catalog.tensors()[index]);
    let (rows, cols, ty) = (tensor.matrix_rows(), planned.cols(), planned.assignment.ty);
    let first = expert.unwrap_or(0) * rows;
    let mut teacher = vec![0.0; rows * cols];
    files.catalog.read_rows(tensor, first..first + rows, &mut teacher)?;
    let row_bytes = ty.row_bytes(cols)?;
    let mut values = vec![0.0; rows * cols];
    gguf_bitnet::dequantize(ty, &plain[first * row_bytes..][..rows * row_bytes], &mut values)?;
    Ok(Matrix { teacher, plain: values, cols, is_ternary: ty.is_ternary() })
}

/// Writes the rows that were solved for over the plain ones.
fn splice(
    plan: &StudentPlan,
    expert: Option<usize>,
    names: Names,
    rows: &Rows,
    tensors: &mut BTreeMap<usize, Vec<u8>>,
) {
    for (index, rows) in names.iter().zip(rows) {
        let Some(packing) = plan.tensors[*index].assignment.ty.packing() else { continue };
        let row_bytes = plan.tensors[*index].cols() / BLOCK * packing.block_bytes();
        let Some(bytes) = tensors.get_mut(index) else { continue };
        let bytes = &mut bytes[expert.unwrap_or(0) * rows.len() * row_bytes..][..rows.len() * row_bytes];
        for (bytes, row) in bytes.chunks_exact_mut(row_bytes).zip(rows) {
            if let Some(TernaryRow { trits, scales }) = row {
                let blocks = bytes.chunks_exact_mut(packing.block_bytes()).zip(trits.as_chunks::<BLOCK>().0);
                blocks.zip(scales).for_each(|((out, trits), &scale)| packing.encode(trits, scale, out));
            }
        }
    }
}

/// The experts that teacher and student choose for each token; empty for a dense layer.
struct Routes {
    top_k: usize,
    n: usize,
    /// `[n, top_k]` each, ascending within a token.
    teacher: Vec<(u32, f32)>,
    student: Vec<(u32, f32)>,
}

impl Routes {
    fn new(pool: &Pool, teacher: &DecoderLayer, student: &DecoderLayer, streams: &Streams) -> Self {
        let n = streams.teacher.len() / streams.hidden;
        let route = |layer: &DecoderLayer, x: &[f32]| match layer.ffn() {
            FeedForward::Moe { router, .. } => {
                (router.config().top_k, route_all(pool, layer, router, x, streams.hidden))
            }
            FeedForward::Dense(_) => (0, Vec::new()),
        };
        let (top_k, teacher) = route(teacher, &streams.teacher);
        let (_, student) = route(student, &streams.student);
        Self { top_k, n, teacher, student }
    }

    /// The tokens of a network, in those that fit it and those that are held out.
    fn tokens(&self, expert: Option<usize>, search: &Search, token_weights: &[f32]) -> [Tokens; 2] {
        let mut tokens = [(); 2].map(|()| Tokens { positions: Vec::new(), weights: Vec::new() });
        for (t, token_weight) in token_weights.iter().enumerate() {
            let gate = match expert {
                None => Some(1.0),
                Some(expert) => {
                    let chosen = &self.student[t * self.top_k..][..self.top_k];
                    chosen.iter().find(|(id, _)| *id as usize == expert).map(|(_, gate)| *gate)
                }
            };
            if let Some(gate) = gate {
                let gate = if search.steps.has(Step::GateWeights) { gate * gate } else { 1.0 };
                let part = &mut tokens[usize::from(t / RUN_TOKENS % HELD_OUT == HELD_OUT / 2)];
                part.positions.push(u32::try_from(t).unwrap_or(u32::MAX));
                part.weights.push(gate * token_weight);
            }
        }
        tokens
    }

    fn report(&self) -> Option<RoutingReport> {
        if self.top_k == 0 || self.n == 0 {
            return None;
        }
        let (mut exact, mut overlap, mut mass) = (0usize, 0usize, 0.0f64);
        for (teacher, student) in self.teacher.chunks_exact(self.top_k).zip(self.student.chunks_exact(self.top_k)) {
            let common = |id: u32| student.iter().any(|(other, _)| *other == id);
            let both = teacher.iter().filter(|(id, _)| common(*id));
            let (count, weight) = both.fold((0, 0.0), |(n, sum), (_, w)| (n + 1, sum + f64::from(*w)));
            let total: f64 = teacher.iter().map(|(_, w)| f64::from(*w)).sum();
            exact += usize::from(count == self.top_k);
            overlap += count;
            mass += if total > 0.0 { weight / total } else { 0.0 };
        }
        let n = self.n as f64;
        Some(RoutingReport {
            exact: exact as f64 / n,
            overlap: overlap as f64 / (n * self.top_k as f64),
            mass: mass / n,
        })
    }
}

/// The experts and weights that `router` chooses for each row behind the norm of `layer`.
fn route_all(pool: &Pool, layer: &DecoderLayer, router: &MoeRouter, x: &[f32], hidden: usize) -> Vec<(u32, f32)> {
    let (mut acts, mut scratch) = (ActivationBuffer::new(), RouterScratch::default());
    let mut routes = Vec::new();
    for rows in x.chunks(BATCH_TOKENS * hidden) {
        acts.fill(rows.len() / hidden, hidden, |t, row| layer.norm_for_ffn(&rows[t * hidden..][..hidden], row));
        router.route(pool, &acts, &mut scratch);
        routes.extend(scratch.decision.ids.iter().copied().zip(scratch.decision.weights.iter().copied()));
    }
    routes
}

/// Makes the check of a drift that grows too fast.
pub(super) fn check_drift(report: &LayerReport, before: f64, force: bool) -> Result<()> {
    let LayerReport { layer, drift, .. } = *report;
    if !force && (drift > 1.0 || (drift > 0.5 && drift > 4.0 * before)) {
        return Err(PtqError::Drift { layer, drift, before }.into());
    }
    Ok(())
}
