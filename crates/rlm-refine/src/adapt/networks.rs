//! The additions to the feed-forward networks of one layer, each made on the tokens that its network sees.
//!
//! ```text
//! gate, up   inputs: norm(x) of the student's stream       target: the teacher's gate and up on its own stream
//! down       inputs: the student's, with what was added    target: the teacher's down on its own gate and up
//! ```

use std::sync::Mutex;

use moe_runtime::adapters::FfnAdapter;
use moe_runtime::forward::SwiGlu;
use tl_kernels::{ActivationBuffer, Linear, Pool};

use super::micro_lora::MicroLora;
use super::residual::{Judged, Pair};
use crate::error::Result;
use crate::ptq::{CHUNK_TOKENS, Moments, is_held_out};

/// The normed inputs of the networks of a layer, and the student's choice of experts.
pub(super) struct LayerInputs {
    pub(super) hidden: usize,
    /// `[n, hidden]` of the student, then of the teacher.
    pub(super) rows: [Vec<f32>; 2],
    /// The weight of each token, `[n]`.
    pub(super) weights: Vec<f32>,
    /// `[n, top_k]`: expert and gate.
    pub(super) routes: Vec<(u32, f32)>,
    pub(super) top_k: usize,
}

/// The additions to gate, up and down of a network.
#[derive(Clone, Debug, Default)]
pub(super) struct NetworkAdditions(pub(super) [Option<MicroLora>; 3]);

impl NetworkAdditions {
    /// The additions as the forward pass computes them.
    pub(super) fn adapter(&self) -> Result<FfnAdapter> {
        let low_rank = |part: &Option<MicroLora>| {
            part.as_ref().map(MicroLora::low_rank).transpose().map_err(moe_runtime::Error::from)
        };
        let [gate, up, down] = &self.0;
        Ok(FfnAdapter { gate: low_rank(gate)?, up: low_rank(up)?, down: low_rank(down)? })
    }

    /// Number of matrices with an addition.
    pub(super) fn count(&self) -> usize {
        self.0.iter().flatten().count()
    }
}

/// A network of the teacher and of the student; `expert` is its number where it is routed.
pub(super) struct Networks<'a> {
    pub(super) teacher: &'a SwiGlu,
    pub(super) student: &'a SwiGlu,
    pub(super) expert: Option<usize>,
}

/// The matrices of a network that are ternary.
pub(super) fn ternary(network: &SwiGlu) -> [bool; 3] {
    [network.gate(), network.up(), network.down()].map(|linear| matches!(linear, Linear::Ternary(_)))
}

/// The additions of `rank` to the ternary matrices of all `networks` of a layer, in their order.
pub(super) fn additions(
    pool: &Pool,
    networks: &[Networks<'_>],
    inputs: &LayerInputs,
    rank: usize,
) -> Result<Vec<NetworkAdditions>> {
    let made: Vec<Mutex<Option<Result<NetworkAdditions>>>> = networks.iter().map(|_| Mutex::new(None)).collect();
    // A network is one task on one thread, so that no result depends on the number of threads.
    pool.run(networks.len(), &|i| {
        let additions = networks[i].additions(inputs, rank);
        *made[i].lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(additions);
    });
    let taken = made.into_iter().map(|slot| slot.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
    taken.map(|additions| additions.unwrap_or_else(|| Ok(NetworkAdditions::default()))).collect()
}

impl Networks<'_> {
    fn additions(&self, inputs: &LayerInputs, rank: usize) -> Result<NetworkAdditions> {
        let Networks { teacher, student, .. } = self;
        let [gate, up, down] = ternary(student);
        let mut made = NetworkAdditions::default();
        if !(gate || up || down) {
            return Ok(made);
        }
        let tokens = self.tokens(inputs);
        if gate || up {
            let moments = judged(&tokens, inputs, inputs.hidden, |[xq, xf]| (xq, xf))?;
            let parts = [(gate, teacher.gate(), student.gate()), (up, teacher.up(), student.up())];
            for (slot, (is_ternary, teacher, student)) in made.0.iter_mut().zip(parts) {
                if is_ternary {
                    *slot = addition(teacher, student, &moments, rank)?;
                }
            }
        }
        if down {
            let adapted = student.with_gate_and_up(sum(student.gate(), &made.0[0])?, sum(student.up(), &made.0[1])?)?;
            let hidden = |network: &SwiGlu, x: &[f32]| {
                let (n, mut acts) = (x.len() / inputs.hidden, ActivationBuffer::new());
                acts.set(x, n, inputs.hidden);
                let mut out = vec![0.0; n * network.gate().rows()];
                network.hidden_rows(&Pool::serial(), &mut acts, &mut out);
                out
            };
            let width = student.down().cols();
            let moments = judged(&tokens, inputs, width, |[xq, xf]| (hidden(&adapted, &xq), hidden(teacher, &xf)))?;
            made.0[2] = addition(teacher.down(), student.down(), &moments, rank)?;
        }
        Ok(made)
    }

    /// The tokens that fit an addition, and those that judge it: positions and weights.
    fn tokens(&self, inputs: &LayerInputs) -> [Vec<(usize, f32)>; 2] {
        let mut parts = [Vec::new(), Vec::new()];
        for (t, weight) in inputs.weights.iter().enumerate() {
            let gate = match self.expert {
                None => Some(1.0),
                Some(expert) => {
                    let chosen = &inputs.routes[t * inputs.top_k..][..inputs.top_k];
                    chosen.iter().find(|(id, _)| *id as usize == expert).map(|(_, gate)| gate * gate)
                }
            };
            if let Some(gate) = gate {
                parts[usize::from(is_held_out(t))].push((t, gate * weight));
            }
        }
        parts
    }
}

/// The moments of inputs of `width`, which `inputs_of` makes of the rows of student and teacher.
fn judged(
    tokens: &[Vec<(usize, f32)>; 2],
    inputs: &LayerInputs,
    width: usize,
    inputs_of: impl Fn([Vec<f32>; 2]) -> (Vec<f32>, Vec<f32>),
) -> Result<Judged> {
    let mut judged = Judged::new(width);
    let sums: [&mut Moments; 2] = [&mut judged.fit, &mut judged.held_out];
    for (moments, tokens) in sums.into_iter().zip(tokens) {
        for chunk in tokens.chunks(CHUNK_TOKENS) {
            let gathered = inputs.rows.each_ref().map(|rows| {
                let row = |&(t, _): &(usize, f32)| &rows[t * inputs.hidden..][..inputs.hidden];
                chunk.iter().flat_map(row).copied().collect::<Vec<f32>>()
            });
            let weights: Vec<f32> = chunk.iter().map(|(_, weight)| *weight).collect();
            let (student, teacher) = inputs_of(gathered);
            moments.add(&Pool::serial(), &student, &teacher, &weights)?;
        }
    }
    Ok(judged)
}

fn addition(teacher: &Linear, student: &Linear, moments: &Judged, rank: usize) -> Result<Option<MicroLora>> {
    let (w, q) = (values(teacher)?, values(student)?);
    Pair { teacher: &w, student: &q, inputs: student.cols() }.addition(moments, rank)
}

/// The weights of a matrix, `[rows, cols]`.
fn values(linear: &Linear) -> Result<Vec<f32>> {
    let mut values = vec![0.0; linear.rows() * linear.cols()];
    for (r, row) in values.chunks_exact_mut(linear.cols()).enumerate() {
        linear.dequantize_row(r, row).map_err(moe_runtime::Error::from)?;
    }
    Ok(values)
}

/// The matrix with an addition folded into it, in F32.
fn sum(linear: &Linear, addition: &Option<MicroLora>) -> Result<Linear> {
    let Some(addition) = addition else { return Ok(linear.clone()) };
    let (rows, cols, mut values) = (linear.rows(), linear.cols(), values(linear)?);
    let (a, b, rank) = (addition.a(), addition.b(), addition.rank());
    for (row, b) in values.chunks_exact_mut(cols).zip(b.chunks_exact(rank)) {
        for (factor, a) in b.iter().zip(a.chunks_exact(cols)) {
            row.iter_mut().zip(a).for_each(|(w, a)| *w += factor * a);
        }
    }
    Ok(Linear::from_f32(rows, cols, values).map_err(moe_runtime::Error::from)?)
}
