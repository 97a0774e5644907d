//! The adapters of a running model, added up: for each layer the additions to its matrices.
//!
//! **Invariant:** every addition fits its matrix; additions of zero are left out, so that they change no bit.

use std::path::{Path, PathBuf};

use gguf_bitnet::RowOrder;
use tl_kernels::LowRank;

use crate::adapters::error::AdapterError;
use crate::adapters::file::{AdapterFile, FactorPair};
use crate::adapters::layer::{FfnAdapter, LayerAdapter};
use crate::adapters::sidecar::{SIDECAR, sidecar_layer};
use crate::error::Result;
use crate::load::files::ModelFiles;

/// An adapter and the strength with which it is applied.
#[derive(Clone, Debug)]
pub struct ScaledAdapter {
    /// The file of the adapter.
    pub path: PathBuf,
    /// A factor of its additions; 1 for the adapter as it was made.
    pub scale: f32,
}

/// The sum of some adapters of one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdapterSet {
    /// By layer of the model.
    layers: Vec<LayerAdapter>,
    head: Option<LowRank>,
}

impl AdapterSet {
    /// Adds up adapters in memory, which must be made for this model.
    ///
    /// # Errors
    /// Factors that do not fit, and additions to a matrix that takes none.
    pub fn new(files: &ModelFiles, adapters: &[(&AdapterFile, f32)]) -> Result<AdapterSet> {
        let mut set = AdapterSet::empty(files);
        for (part, scale) in adapters {
            set.add(files, part, *scale)?;
        }
        Ok(set)
    }

    /// This set with one more addition to the head.
    ///
    /// # Panics
    /// When the set has an addition to a head of another shape.
    #[must_use]
    pub fn with_head_addition(mut self, addition: &LowRank) -> AdapterSet {
        self.head = Some(match self.head.take() {
            None => addition.clone(),
            Some(earlier) => earlier.plus(addition),
        });
        self
    }

    pub(crate) fn empty(files: &ModelFiles) -> AdapterSet {
        let layers = vec![LayerAdapter::default(); files.config.n_layers];
        AdapterSet { layers, head: None }
    }

    /// The additions of layer `index`; `None` for a layer that stays as it is.
    pub(crate) fn layer(&self, index: usize) -> Option<&LayerAdapter> {
        self.layers.get(index).filter(|layer| layer.parts().next().is_some())
    }

    /// The addition to the head.
    pub(crate) fn head(&self) -> Option<&LowRank> {
        self.head.as_ref()
    }

    /// Bytes of all additions in memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.layers.iter().flat_map(LayerAdapter::parts).chain(&self.head).map(LowRank::bytes).sum()
    }

    /// A hash of all additions and their places: sets of equal hash compute the same bits.
    #[must_use]
    pub fn identity(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"craftsman adapter set 2\n").update(&(self.layers.len() as u64).to_le_bytes());
        for layer in &self.layers {
            hasher.update(&(layer.routed.len() as u64).to_le_bytes());
            layer.places().for_each(|place| hash_place(&mut hasher, place));
        }
        hash_place(&mut hasher, self.head());
        *hasher.finalize().as_bytes()
    }

    pub(crate) fn add(&mut self, files: &ModelFiles, adapter: &AdapterFile, scale: f32) -> Result<()> {
        if !scale.is_finite() {
            return Err(AdapterError::Scale { name: "scale", value: scale }.into());
        }
        for pair in &adapter.pairs {
            let matrix = check_shapes(files, &pair.tensor, [&pair.a_shape, &pair.b_shape])?;
            let additions = additions(pair, matrix, scale * adapter.scale(pair.rank()))?;
            let places = self.places(files, &pair.tensor)?;
            for (place, addition) in places.into_iter().zip(additions) {
                if addition.is_zero() {
                    continue;
                }
                *place = Some(match place.take() {
                    None => addition,
                    Some(earlier) => earlier.plus(&addition),
                });
            }
        }
        Ok(())
    }

    /// The places of the additions to `tensor`: one, or one per routed expert.
    fn places(&mut self, files: &ModelFiles, tensor: &str) -> Result<Vec<&mut Option<LowRank>>> {
        let unsupported = || AdapterError::Unsupported { tensor: tensor.to_owned() };
        if tensor == "output.weight" {
            return Ok(vec![&mut self.head]);
        }
        let (layer, name) =
            tensor.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).ok_or_else(unsupported)?;
        let index: usize = layer.parse().map_err(|_| unsupported())?;
        let experts = files.config.moe.as_ref().map_or(0, |moe| moe.router.n_experts);
        let LayerAdapter { attention, always, sidecar, routed } = self.layers.get_mut(index).ok_or_else(unsupported)?;
        let part: fn(&mut FfnAdapter) -> &mut Option<LowRank> = match name {
            "attn_q.weight" => return Ok(vec![&mut attention.q]),
            "attn_q_a.weight" => return Ok(vec![&mut attention.q_a]),
            "attn_q_b.weight" => return Ok(vec![&mut attention.q_b]),
            "attn_kv_a_mqa.weight" => return Ok(vec![&mut attention.kv_a]),
            "attn_k.weight" => return Ok(vec![&mut attention.k]),
            "attn_v.weight" => return Ok(vec![&mut attention.v]),
            "attn_output.weight" => return Ok(vec![&mut attention.out]),
            "ffn_gate.weight" | "ffn_gate_shexp.weight" => return Ok(vec![&mut always.gate]),
            "ffn_up.weight" | "ffn_up_shexp.weight" => return Ok(vec![&mut always.up]),
            "ffn_down.weight" | "ffn_down_shexp.weight" => return Ok(vec![&mut always.down]),
            SIDECAR => return Ok(vec![sidecar]),
            "ffn_gate_exps.weight" => |expert| &mut expert.gate,
            "ffn_up_exps.weight" => |expert| &mut expert.up,
            "ffn_down_exps.weight" => |expert| &mut expert.down,
            _ => return Err(unsupported().into()),
        };
        routed.resize(experts, FfnAdapter::default());
        Ok(routed.iter_mut().map(part).collect())
    }
}

/// A matrix that takes an addition, or each matrix of a stack.
pub(crate) struct Target {
    outputs: usize,
    inputs: usize,
    rank: usize,
}

/// The matrix of the model that factors of these dimensions are added to; refuses dimensions that do not fit it.
pub(crate) fn check_shapes(files: &ModelFiles, tensor: &str, [a, b]: [&[usize]; 2]) -> Result<Target> {
    let name = || tensor.to_owned();
    let (stack, [outputs, inputs]) = shape_of(files, tensor)?;
    let (rank, limit) = (b.last().copied().unwrap_or(0), outputs.min(inputs));
    if !(1..=limit).contains(&rank) {
        return Err(AdapterError::Rank { tensor: name(), rank, limit }.into());
    }
    let of_stack = |shape: [usize; 2]| stack.into_iter().chain(shape).collect::<Vec<_>>();
    for (end, got, expected) in [(".lora_a", a, of_stack([rank, inputs])), (".lora_b", b, of_stack([outputs, rank]))] {
        if *got != expected {
            return Err(AdapterError::Shape { tensor: format!("{tensor}{end}"), expected, got: got.to_vec() }.into());
        }
    }
    Ok(Target { outputs, inputs, rank })
}

/// The number of matrices of a stack, and the outputs and inputs of a matrix that takes additions.
fn shape_of(files: &ModelFiles, tensor: &str) -> Result<(Option<usize>, [usize; 2])> {
    let (config, name) = (&files.config, || tensor.to_owned());
    if sidecar_layer(tensor).is_some_and(|layer| layer < config.n_layers) {
        return Ok((None, [config.hidden; 2]));
    }
    let found = files.catalog.find(tensor).ok_or_else(|| AdapterError::NoTensor { tensor: name() })?;
    // Rows that are read in another order than they are stored in would need the same of the second factor.
    if found.parts.iter().any(|part| part.order != RowOrder::AsStored) {
        return Err(AdapterError::Unsupported { tensor: name() }.into());
    }
    match *found.shape {
        [outputs, inputs] => Ok((None, [outputs, inputs])),
        [n, outputs, inputs] => Ok((Some(n), [outputs, inputs])),
        _ => Err(AdapterError::Unsupported { tensor: name() }.into()),
    }
}

/// The additions of a pair to a matrix, or to each matrix of a stack.
fn additions(pair: &FactorPair, target: Target, scale: f32) -> Result<Vec<LowRank>> {
    let Target { outputs, inputs, rank } = target;
    for (end, shape, values) in [(".lora_a", &pair.a_shape, &pair.a), (".lora_b", &pair.b_shape, &pair.b)] {
        if values.len() != shape.iter().product::<usize>() {
            let (tensor, expected, got) = (format!("{}{end}", pair.tensor), shape.clone(), vec![values.len()]);
            return Err(AdapterError::Shape { tensor, expected, got }.into());
        }
    }
    let matrices = pair.a.chunks_exact(rank * inputs).zip(pair.b.chunks_exact(outputs * rank));
    matrices.map(|(a, b)| Ok(LowRank::new(inputs, outputs, a, b, scale)?)).collect()
}

/// Takes in an addition, or that there is none.
fn hash_place(hasher: &mut blake3::Hasher, place: Option<&LowRank>) {
    hasher.update(&[u8::from(place.is_some())]);
    for factor in place.iter().flat_map(|addition| addition.factors()) {
        hasher.update(&(factor.len() as u64).to_le_bytes());
        for values in factor.chunks(256) {
            let mut bytes = [0; 4 * 256];
            for (bytes, value) in bytes.chunks_exact_mut(4).zip(values) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
            hasher.update(&bytes[..4 * values.len()]);
        }
    }
}

/// Refuses an adapter that was made for another model. `known` keeps the identity of this one, which takes a while.
pub(crate) fn check_model(
    adapter: &AdapterFile,
    files: &ModelFiles,
    identity: &mut dyn FnMut() -> Result<String>,
    known: &mut Option<String>,
) -> Result<()> {
    let architecture = files.config.arch.gguf_name;
    if adapter.architecture != architecture {
        let (adapter, model) = (adapter.architecture.clone(), architecture.to_owned());
        return Err(AdapterError::Architecture { adapter, model }.into());
    }
    let Some(made_for) = &adapter.model else { return Ok(()) };
    let model = match known {
        Some(known) => known,
        None => known.insert(identity()?),
    };
    if made_for != model {
        return Err(AdapterError::OtherModel { adapter: short(made_for), model: short(model) }.into());
    }
    Ok(())
}

/// The first digits of an identity, which tell models apart.
fn short(identity: &str) -> String {
    identity.chars().take(16).collect()
}

impl ScaledAdapter {
    /// The adapter at `path` at its own strength.
    #[must_use]
    pub fn new(path: &Path) -> ScaledAdapter {
        ScaledAdapter { path: path.to_owned(), scale: 1.0 }
    }
}
