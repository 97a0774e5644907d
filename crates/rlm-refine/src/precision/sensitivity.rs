//! The error that each type of each class causes, measured on the teacher's stream in one visit to its layers.
//!
//! ```text
//! x ──► attention ──► experts ──► y           the teacher
//! x ──► at a type ──► experts ──► y + d       a class of the layer at a type          error = mean of |d|^2 / |y|^2 over tokens
//! x ──► attention ──► at a type ► y + d
//! ```
//! Of the networks only those in question are computed again, because all of them read the same input and their outputs add up. The
//! errors of layers add up too. The embedding's is that of its rows, over their length; the head's that of the logits around their
//! mean (which the softmax ignores), over their length.
//!
//! **Invariant:** errors depend neither on the number of threads nor on the instruction set: the runtime's rows do not, and
//! sums are F64 in the order of the tokens.

use std::collections::BTreeMap;

use gguf_bitnet::{TensorClass, TensorType};
use moe_runtime::forward::{
    At, Batch, DecoderLayer, FeedForward, FfnBatch, FfnScratch, LayerScratch, RoutingDecision, SwiGlu, Taps,
};
use ternary_core::ActMode;
use tl_kernels::{ActivationBuffer, Pool};

use super::candidates::Candidates;
use super::head::measure_head;
use super::shares::{length2, lengths2, mean_share, subtract};
use super::weights::{Network, Weights};
use crate::error::Result;
use crate::ptq::{Streams, attend, check_finite, feed, layer_of, route};

/// Tokens of a batch.
pub(super) const BATCH_TOKENS: usize = 1024;

/// Measures every candidate on `windows`. `progress` is called with the layers done and in all, the head counted as one.
///
/// # Errors
/// Weights or streams that are not finite, and weights that a type cannot hold, by tensor or layer.
pub(crate) fn measure(
    weights: Weights<'_>,
    windows: &[Vec<u32>],
    candidates: &mut Candidates,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let n_layers = weights.files.config.n_layers;
    let total = n_layers as u64 + 1;
    let mut stream = measure_embedding(weights, windows, candidates)?;
    let lengths: Vec<usize> = windows.iter().map(Vec::len).collect();
    for layer in 0..n_layers {
        progress(layer as u64, total);
        measure_layer(weights, &lengths, layer, candidates, &mut stream)?;
    }
    progress(n_layers as u64, total);
    measure_head(weights, candidates, &stream)?;
    progress(total, total);
    candidates.share_ternary_errors();
    Ok(())
}

/// Measures the embedding and returns the teacher's stream in front of the first layer.
fn measure_embedding(weights: Weights<'_>, windows: &[Vec<u32>], candidates: &mut Candidates) -> Result<Vec<f32>> {
    let hidden = weights.files.config.hidden;
    let mut errors = Vec::new();
    for (ty, plan) in candidates.measured(TensorClass::Embedding) {
        let tensor = plan.tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
        let stored = tensor.map_or(TensorType::F32, |tensor| tensor.assignment.ty);
        let Streams { teacher, mut student, .. } = Streams::embed(weights.files, windows, stored)?;
        subtract(&mut student, &teacher);
        errors.push((ty, mean_share(student.chunks_exact(hidden).map(length2), &lengths2(&teacher, hidden))));
    }
    errors.into_iter().for_each(|(ty, error)| candidates.add_error(TensorClass::Embedding, ty, error));
    Ok(Streams::embed(weights.files, windows, TensorType::F32)?.teacher)
}

/// Measures the classes of a layer and moves the stream behind it.
fn measure_layer(
    weights: Weights<'_>,
    windows: &[usize],
    index: usize,
    candidates: &mut Candidates,
    stream: &mut Vec<f32>,
) -> Result<()> {
    let Weights { files, pool, .. } = weights;
    let (catalog, config, hidden) = (&files.catalog, &files.config, files.config.hidden);
    let mut layer = DecoderLayer::load(catalog, config, index, ActMode::F32)?;
    let mut attended = stream.clone();
    attend(pool, &layer, windows, &mut attended)?;
    let mut behind = attended.clone();
    feed(pool, &layer, hidden, None, &mut behind)?;
    check_finite("the residual stream", index, &[&attended, &behind])?;
    let lengths2 = lengths2(&behind, hidden);
    let error = |difference: &[f32]| mean_share(difference.chunks_exact(hidden).map(length2), &lengths2);

    let (_, routes) = route(pool, &layer, &attended, hidden);
    let differences = network_differences(weights, &layer, candidates, &attended, &routes)?;
    let mut errors: Vec<_> = differences.iter().map(|(&(class, ty), sums)| (class, ty, error(sums))).collect();
    drop(differences);
    for (ty, plan) in candidates.measured(TensorClass::Attention) {
        layer.load_attention(&weights.attention(plan, index)?.catalog(config)?, config, ActMode::F32)?;
        let mut student = stream.clone();
        attend(pool, &layer, windows, &mut student)?;
        feed_on_routes(pool, &layer, &routes, hidden, &mut student)?;
        subtract(&mut student, &behind);
        errors.push((TensorClass::Attention, ty, error(&student)));
    }
    errors.into_iter().for_each(|(class, ty, error)| candidates.add_error(class, ty, error));
    *stream = behind;
    drop(layer);
    let of_layer = catalog.tensors().iter().filter(|tensor| layer_of(&tensor.name) == Some(index));
    of_layer.for_each(|tensor| catalog.release(tensor));
    Ok(())
}

/// The differences that the types of a layer's networks make in the stream, `[n, hidden]` each.
type Differences = BTreeMap<(TensorClass, TensorType), Vec<f32>>;

/// The difference that each type of the networks of `layer` makes, on the stream behind the attention.
fn network_differences(
    weights: Weights<'_>,
    layer: &DecoderLayer,
    candidates: &Candidates,
    attended: &[f32],
    routes: &[(u32, f32)],
) -> Result<Differences> {
    let (pool, hidden) = (weights.pool, weights.files.config.hidden);
    let mut differences = Differences::new();
    for network in networks_of(layer, attended.len() / hidden, routes) {
        let Network { class, swiglu, tokens, .. } = &network;
        let plans = candidates.measured(*class);
        if tokens.is_empty() || plans.is_empty() {
            continue;
        }
        let mut inputs = vec![0.0; tokens.len() * hidden];
        pool.chunks_mut(&mut inputs, hidden, |i, row| {
            layer.norm_for_ffn(&attended[tokens[i].0 * hidden..][..hidden], row);
        });
        let teacher = outputs(pool, swiglu, &inputs, hidden);
        for (ty, plan) in plans {
            let student = weights.network(plan, layer.index(), &network)?;
            let mut student = outputs(pool, &student, &inputs, hidden);
            subtract(&mut student, &teacher);
            let sums = differences.entry((*class, ty)).or_insert_with(|| vec![0.0; attended.len()]);
            for (&(token, gate), row) in tokens.iter().zip(student.chunks_exact(hidden)) {
                let sums = &mut sums[token * hidden..][..hidden];
                sums.iter_mut().zip(row).for_each(|(sum, d)| *sum += gate * d);
            }
        }
    }
    Ok(differences)
}

/// The networks of a layer for `n` tokens with these experts and gates `[n, top_k]`.
fn networks_of<'a>(layer: &'a DecoderLayer, n: usize, routes: &[(u32, f32)]) -> Vec<Network<'a>> {
    let for_all = |class, swiglu| {
        let tokens = (0..n).map(|token| (token, 1.0)).collect();
        Network { class, expert: None, swiglu, tokens }
    };
    match layer.ffn() {
        FeedForward::Dense(swiglu) => vec![for_all(TensorClass::DenseFfn, swiglu)],
        FeedForward::Moe { router, experts } => {
            let mut tokens = vec![Vec::new(); experts.routed().len()];
            let top_k = router.config().top_k;
            for (i, &(expert, gate)) in routes.iter().enumerate() {
                tokens[expert as usize].push((i / top_k, gate));
            }
            let routed = experts.routed().iter().zip(tokens).enumerate();
            let class = TensorClass::RoutedExpert;
            let routed = routed.map(|(e, (swiglu, tokens))| Network { class, expert: Some(e), swiglu, tokens });
            routed.chain(experts.shared().map(|swiglu| for_all(TensorClass::SharedExpert, swiglu))).collect()
        }
    }
}

/// Adds the feed-forward part of `layer` to every row of `x`. Where its router chooses other experts than the teacher's
/// `routes` `[n, top_k]`, those of the teacher are taken: a few tokens between two experts would decide about the error otherwise.
fn feed_on_routes(
    pool: &Pool,
    layer: &DecoderLayer,
    routes: &[(u32, f32)],
    hidden: usize,
    x: &mut [f32],
) -> Result<()> {
    let mut scratch = LayerScratch::default();
    for (i, rows) in x.chunks_mut(BATCH_TOKENS * hidden).enumerate() {
        layer.feed(
            Batch { pool, x: rows, scratch: &mut scratch, adapter: None },
            i * BATCH_TOKENS,
            &mut HeldRoutes(routes),
        )?;
    }
    Ok(())
}

/// The experts and gates of the teacher, `[n, top_k]`.
struct HeldRoutes<'a>(&'a [(u32, f32)]);

impl Taps for HeldRoutes<'_> {
    fn routing(&mut self, at: At, decision: &mut RoutingDecision) {
        let top_k = decision.ids.len() / at.n.max(1);
        let teacher = self.0[at.first * top_k..].chunks_exact(top_k);
        let student = decision.ids.chunks_exact_mut(top_k).zip(decision.weights.chunks_exact_mut(top_k));
        for ((ids, gates), teacher) in student.zip(teacher) {
            if ids.iter().zip(teacher).any(|(id, (held, _))| id != held) {
                for ((id, gate), &(held, held_gate)) in ids.iter_mut().zip(gates).zip(teacher) {
                    (*id, *gate) = (held, held_gate);
                }
            }
        }
    }
}

/// The outputs of a network for `inputs` `[n, hidden]`.
fn outputs(pool: &Pool, network: &SwiGlu, inputs: &[f32], hidden: usize) -> Vec<f32> {
    let (mut acts, mut scratch) = (ActivationBuffer::new(), FfnScratch::default());
    let mut outputs = vec![0.0; inputs.len()];
    for (x, y) in inputs.chunks(BATCH_TOKENS * hidden).zip(outputs.chunks_mut(BATCH_TOKENS * hidden)) {
        acts.set(x, x.len() / hidden, hidden);
        network.forward(FfnBatch { pool, x: &mut acts, adapter: None }, &mut scratch, y, |_| {});
    }
    outputs
}

#[cfg(test)]
mod tests {
    use moe_runtime::ModelFiles;
    use ternary_core::Rounding;

    use super::*;
    use crate::recipe::Recipe;

    #[test]
    fn every_architecture_is_measured() {
        for case in fixtures::golden_cases() {
            let files = ModelFiles::open(&fixtures::path(format!("goldens/{case}"))).unwrap();
            let windows: Vec<Vec<u32>> = [7, 12].map(|n| (1..n).collect()).to_vec();
            let mut candidates = Candidates::new(&files, &Recipe::default(), u64::MAX, 17).unwrap();
            let weights = Weights { files: &files, pool: &Pool::serial(), rounding: Rounding::LeastSquares };
            measure(weights, &windows, &mut candidates, &mut |_, _| {}).unwrap();
            let rows = candidates.table.classes.iter().flat_map(|class| &class.candidates);
            let errors: Vec<f64> = rows.map(|candidate| candidate.error).collect();
            assert!(errors.iter().all(|error| (0.0..10.0).contains(error)), "{case}: {errors:?}");
            assert!(errors.iter().any(|error| *error > 0.0), "{case}");
        }
    }
}
