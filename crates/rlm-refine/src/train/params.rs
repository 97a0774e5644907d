//! The registry of what a run trains: values, gradients, and the group that a user names.
//!
//! Only trained tensors are in it; all others are read from the file when they are needed. A ternary tensor gives one or
//! two entries: the logarithms of factors on its scales, one per block, and the latent weights behind its trits. An adapter gives
//! two for each tensor that it adds to.
//!
//! **Invariant:** entries stand in the order in which they were added, and every gradient has as many numbers as its values.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use gguf_bitnet::TensorClass;
use moe_runtime::adapters::sidecar_layer;
use serde::Serialize;
use tl_kernels::math;

/// A class of weights that a user switches on and off together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Group {
    /// The matrices that score experts.
    Router,
    /// A factor per block of ternary weights.
    Scales,
    /// The weights of all norms.
    Norms,
    /// The experts that every token passes through.
    SharedExperts,
    /// The feed-forward networks of layers without experts.
    DenseNetwork,
    /// Attention matrices and their biases.
    Attention,
    /// The matrix of the logits.
    Head,
    /// The rows of the tokens.
    Embedding,
    /// The numbers that ternary weights are rounded from.
    LatentTrits,
    /// The factors of an adapter's additions to matrices, while the student itself stays.
    Adapter,
    /// The factors of an adapter's sidecars, while the student itself stays.
    Sidecar,
}

impl Group {
    /// Every group, in the order of reports.
    pub const ALL: [Group; 11] = [
        Group::Router,
        Group::Scales,
        Group::Norms,
        Group::SharedExperts,
        Group::DenseNetwork,
        Group::Attention,
        Group::Head,
        Group::Embedding,
        Group::LatentTrits,
        Group::Adapter,
        Group::Sidecar,
    ];

    /// The name on command lines and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Group::Router => "router",
            Group::Scales => "scales",
            Group::Norms => "norms",
            Group::SharedExperts => "shared",
            Group::DenseNetwork => "dense",
            Group::Attention => "attention",
            Group::Head => "head",
            Group::Embedding => "embedding",
            Group::LatentTrits => "trits",
            Group::Adapter => "adapter",
            Group::Sidecar => "sidecar",
        }
    }

    /// The group of the factors that an adapter has for `tensor`.
    #[must_use]
    pub fn of_addition(tensor: &str) -> Group {
        if sidecar_layer(tensor).is_some() { Group::Sidecar } else { Group::Adapter }
    }

    /// Whether its numbers are those of an adapter, so that the student itself stays.
    #[must_use]
    pub fn is_of_adapter(self) -> bool {
        matches!(self, Group::Adapter | Group::Sidecar)
    }

    /// The group of a tensor whose weights are not ternary; `None` for one that is never trained.
    #[must_use]
    pub fn of_class(class: TensorClass) -> Option<Group> {
        Some(match class {
            TensorClass::Router => Group::Router,
            TensorClass::Norm => Group::Norms,
            TensorClass::SharedExpert => Group::SharedExperts,
            TensorClass::DenseFfn => Group::DenseNetwork,
            TensorClass::Attention | TensorClass::AttentionKb | TensorClass::AttentionVb | TensorClass::Bias => {
                Group::Attention
            }
            TensorClass::Head => Group::Head,
            TensorClass::Embedding => Group::Embedding,
            _ => return None,
        })
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no group has.
#[derive(Debug, thiserror::Error)]
#[error(
    "there is no group `{0}`: name some of router, scales, norms, shared, dense, attention, head, embedding and trits, or of adapter and sidecar"
)]
pub struct UnknownGroup(String);

impl FromStr for Group {
    type Err = UnknownGroup;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Group::ALL.into_iter().find(|group| group.name() == name).ok_or_else(|| UnknownGroup(name.to_owned()))
    }
}

/// The meaning of the numbers of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The weights that the model multiplies with.
    Weights,
    /// `ln` of a factor on each block's scale.
    LogScales,
    /// Latent weights over their block's scale, which rounding turns into trits.
    Latents,
    /// The first factor of an addition to the matrix, `[rank, inputs]`.
    FactorA,
    /// The second factor, `[outputs, rank]`.
    FactorB,
}

/// One entry: the numbers of a tensor that are trained.
#[derive(Clone, Debug)]
pub struct Param {
    /// llama.cpp's name of the tensor, or of the one that factors are added to.
    pub name: String,
    /// The group that it belongs to.
    pub group: Group,
    /// The meaning of its numbers.
    pub kind: Kind,
    /// Rows of the tensor flattened to `[rows, cols]`.
    pub rows: usize,
    /// Numbers in a row.
    pub cols: usize,
    /// Rows of one matrix of a stack.
    pub matrix_rows: usize,
    /// For latents, the scale of each block in the file; else empty.
    pub block_scales: Vec<f32>,
    /// The numbers as they are now, `[rows, cols]`.
    pub values: Vec<f32>,
    /// The gradient of the loss, `[rows, cols]`.
    pub gradient: Vec<f32>,
}

/// A gradient of some numbers of an entry, in a run from `first` on.
#[derive(Clone, Debug)]
pub struct PartGradient {
    /// Number of the entry.
    pub param: usize,
    /// Its first number that the gradient is for.
    pub first: usize,
    /// The gradient of the loss by these numbers.
    pub values: Vec<f32>,
}

/// The gradients of all entries while a pass adds to them.
#[derive(Debug)]
pub(super) struct Gradients(Mutex<Vec<Vec<f32>>>);

impl Gradients {
    /// Adds gradients in the order in which they are given. Threads may add those of different numbers at the same time.
    pub(super) fn add(&self, parts: Vec<PartGradient>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for PartGradient { param, first, values } in parts {
            let into = &mut all[param][first..first + values.len()];
            into.iter_mut().zip(&values).for_each(|(sum, value)| *sum += value);
        }
    }
}

/// The entries of all tensors that are trained.
#[derive(Clone, Debug, Default)]
pub struct Params {
    list: Vec<Param>,
    by_name: HashMap<(String, Kind), usize>,
}

impl Params {
    /// Adds an entry with zeros as its gradient.
    ///
    /// # Panics
    /// When the entry exists, or has another number of values than its shape says.
    pub fn add(&mut self, param: Param) {
        assert_eq!(param.values.len(), param.rows * param.cols, "an entry has rows x cols values");
        let gradient = vec![0.0; param.values.len()];
        let known = self.by_name.insert((param.name.clone(), param.kind), self.list.len());
        assert!(known.is_none(), "each entry is added once");
        self.list.push(Param { gradient, ..param });
    }

    /// Number of the entry of a tensor.
    #[must_use]
    pub fn find(&self, name: &str, kind: Kind) -> Option<usize> {
        self.by_name.get(&(name.to_owned(), kind)).copied()
    }

    /// The entries in the order in which they were added.
    #[must_use]
    pub fn list(&self) -> &[Param] {
        &self.list
    }

    /// All entries, to change their values and gradients.
    pub fn list_mut(&mut self) -> &mut [Param] {
        &mut self.list
    }

    /// Lends the gradients to a pass, whose parts add to them while they read the values.
    pub(super) fn take_gradients(&mut self) -> Gradients {
        Gradients(Mutex::new(self.list.iter_mut().map(|param| std::mem::take(&mut param.gradient)).collect()))
    }

    /// Takes back what [`Params::take_gradients`] lent.
    pub(super) fn put_gradients(&mut self, gradients: Gradients) {
        let all = gradients.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.list.iter_mut().zip(all).for_each(|(param, gradient)| param.gradient = gradient);
    }

    /// Sets all gradients to 0.
    pub fn clear_gradients(&mut self) {
        self.list.iter_mut().for_each(|param| param.gradient.fill(0.0));
    }

    /// The first entry with a gradient that is not finite.
    #[must_use]
    pub fn broken_gradient(&self) -> Option<&Param> {
        self.list.iter().find(|param| !param.gradient.iter().all(|d| d.is_finite()))
    }

    /// The first entry with a value that is not finite, or the logarithm of a factor that is not.
    #[must_use]
    pub fn broken_value(&self) -> Option<&Param> {
        let is_usable = |kind, value: f32| match kind {
            Kind::LogScales => math::exp(value).is_finite(),
            Kind::Weights | Kind::Latents | Kind::FactorA | Kind::FactorB => value.is_finite(),
        };
        self.list.iter().find(|param| !param.values.iter().all(|&value| is_usable(param.kind, value)))
    }
}
