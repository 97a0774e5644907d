//! The ternary matrices of a layer's attention, in the order in which their inputs arise.
//!
//! ```text
//! q, k, v, q_a, kv_a    inputs: the normed residual stream
//! q_b                   inputs: the compressed query behind its norm, with the ternary q_a
//! output                inputs: the attended values, with all matrices before it ternary
//! ```
//! `k_b` and `v_b` are not calibrated: the presets keep them at Q8_0, because the rows of `k_b` do not fill a block.

use std::collections::BTreeMap;

use mla_attention::{CacheType, CompressedMlaCache, InnerProjection, Segments, Sequences};
use moe_runtime::forward::{Batch, DecoderLayer, LayerScratch};
use tl_kernels::Pool;

use super::inputs::InputMoments;
use super::moments::{CHUNK_TOKENS, Moments};
use super::network::solve;
use super::report::MatrixReport;
use super::routes::is_held_out;
use super::steps::Search;
use super::streams::Streams;
use super::tensors::{Context, load, matrix, splice};
use crate::error::Result;

/// Where the inputs of a matrix arise.
#[derive(Clone, Copy, PartialEq)]
enum Input {
    /// The normed residual stream in front of the layer.
    Normed,
    /// Inside of the attention.
    Inner(InnerProjection),
}

/// The matrices by what they read, those of one input side by side.
const MATRICES: [(Input, &[&str]); 3] = [
    (Input::Normed, &["attn_q", "attn_k", "attn_v", "attn_q_a", "attn_kv_a_mqa"]),
    (Input::Inner(InnerProjection::Query), &["attn_q_b"]),
    (Input::Inner(InnerProjection::Output), &["attn_output"]),
];

/// Calibrates the ternary matrices of the attention of a layer, with both streams in front of it, and replaces their rows in
/// `tensors`. Returns their names without `blk.N.` and `.weight`, and their reports.
pub(super) fn calibrate_attention(
    context: Context<'_>,
    teacher: &DecoderLayer,
    streams: &Streams,
    token_weights: &[f32],
    tensors: &mut BTreeMap<usize, Vec<u8>>,
) -> Result<Vec<(String, MatrixReport)>> {
    let Context { plan, pool, search, .. } = context;
    let layer = teacher.index();
    let mut reports = Vec::new();
    for (input, names) in MATRICES {
        let planned = |name: &&str| {
            let full = format!("blk.{layer}.{name}.weight");
            let index = plan.tensors.iter().position(|tensor| tensor.name == full)?;
            plan.tensors[index].assignment.ty.is_ternary().then(|| ((*name).to_owned(), index))
        };
        let planned: Vec<(String, usize)> = names.iter().filter_map(planned).collect();
        if planned.is_empty() {
            continue;
        }
        let student = load(context, layer, tensors)?;
        let inputs = InputMoments::new(moments(pool, input, [&student, teacher], streams, token_weights)?)?;
        for (name, index) in planned {
            let matrix = matrix(context, None, index, &tensors[&index])?;
            let seed = search.seed ^ (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let (rows, report) = solve(pool, &Search { seed, ..search.clone() }, &matrix, &inputs)?;
            splice(plan, None, index, &rows, tensors)?;
            reports.extend(report.map(|report| (name, report)));
        }
    }
    Ok(reports)
}

/// The moments of an input over the tokens that fit, and over those held out.
fn moments(
    pool: &Pool,
    input: Input,
    layers: [&DecoderLayer; 2],
    streams: &Streams,
    token_weights: &[f32],
) -> Result<[Moments; 2]> {
    let width = match input {
        Input::Normed => streams.hidden,
        Input::Inner(projection) => layers[0].attention().input_width(projection).unwrap_or(0),
    };
    let longest = streams.windows.iter().copied().max().unwrap_or(0).max(1);
    let mut passes = [Pass::new(layers[0], longest)?, Pass::new(layers[1], longest)?];
    let mut moments = [Moments::new(width, false), Moments::new(width, true)];
    let mut waiting = [Waiting::default(), Waiting::default()];
    let mut first = 0;
    for &tokens in &streams.windows {
        let range = first * streams.hidden..(first + tokens) * streams.hidden;
        for (pass, stream) in passes.iter_mut().zip([&streams.student, &streams.teacher]) {
            pass.read(pool, input, &stream[range.clone()], width)?;
        }
        for t in 0..tokens {
            let part = usize::from(is_held_out(first + t));
            let rows = passes.each_ref().map(|pass| &pass.inputs[t * width..][..width]);
            waiting[part].push(rows, token_weights[first + t]);
            if waiting[part].weights.len() == CHUNK_TOKENS {
                waiting[part].add_to(pool, &mut moments[part])?;
            }
        }
        first += tokens;
    }
    for (waiting, moments) in waiting.iter_mut().zip(&mut moments) {
        waiting.add_to(pool, moments)?;
    }
    Ok(moments)
}

/// A layer that windows are run through.
struct Pass<'a> {
    layer: &'a DecoderLayer,
    cache: CompressedMlaCache,
    scratch: LayerScratch,
    /// The residual stream of a window, `[tokens, hidden]`.
    x: Vec<f32>,
    /// The inputs of the window, `[tokens, width]`.
    inputs: Vec<f32>,
}

impl<'a> Pass<'a> {
    fn new(layer: &'a DecoderLayer, longest: usize) -> Result<Self> {
        let cache = CompressedMlaCache::new([layer.cache_shape()], longest, CacheType::F32)
            .map_err(mla_attention::Error::from)
            .map_err(moe_runtime::Error::from)?;
        Ok(Self { layer, cache, scratch: LayerScratch::default(), x: Vec::new(), inputs: Vec::new() })
    }

    /// Reads the inputs that the window `x` `[tokens, hidden]` has.
    fn read(&mut self, pool: &Pool, input: Input, x: &[f32], width: usize) -> Result<()> {
        let hidden = self.layer.attention().hidden();
        self.inputs.resize(x.len() / hidden * width, 0.0);
        match input {
            Input::Normed => {
                for (x, out) in x.chunks_exact(hidden).zip(self.inputs.chunks_exact_mut(width)) {
                    self.layer.norm_for_attention(x, out);
                }
            }
            Input::Inner(projection) => {
                self.x.clear();
                self.x.extend_from_slice(x);
                self.cache.reset();
                let batch = Batch { pool, x: &mut self.x, scratch: &mut self.scratch, adapter: None };
                let segments = Segments::one(&self.cache, x.len() / hidden);
                let caches = std::slice::from_mut(&mut self.cache);
                self.layer.attend(batch, &mut Sequences { segments: &segments, caches, layer: 0 }, &mut ())?;
                for (t, out) in self.inputs.chunks_exact_mut(width).enumerate() {
                    self.layer.attention().write_input(projection, self.scratch.attention(), t, out);
                }
            }
        }
        Ok(())
    }
}

/// Tokens that are not in the moments yet: at most [`CHUNK_TOKENS`].
#[derive(Default)]
struct Waiting {
    student: Vec<f32>,
    teacher: Vec<f32>,
    weights: Vec<f32>,
}

impl Waiting {
    fn push(&mut self, [student, teacher]: [&[f32]; 2], weight: f32) {
        self.student.extend_from_slice(student);
        self.teacher.extend_from_slice(teacher);
        self.weights.push(weight);
    }

    fn add_to(&mut self, pool: &Pool, moments: &mut Moments) -> Result<()> {
        moments.add(pool, &self.student, &self.teacher, &self.weights)?;
        self.student.clear();
        self.teacher.clear();
        self.weights.clear();
        Ok(())
    }
}
