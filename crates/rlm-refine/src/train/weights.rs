//! The weights that a training pass multiplies with: from the registry where they are trained, from the file where not.
//!
//! ```text
//! frozen               W = file
//! weights              W = values                       d values = d W
//! scales               W = exp(f_b) file                d f_b    = sum over block b of W d W
//! latents u            W = exp(f_b) s_b round(u)        d u      = exp(f_b) s_b d W        straight through
//! factors of an adapter stand beside W: see parts/addition.rs
//! ```
//! `s_b` is the scale of block `b` in the file, and `round` gives -1, 0 or 1. While training is softened by a share `1 - h`,
//! `round(u)` is `h round(u) + (1 - h) clamp(u, -1, 1)`.
//!
//! **Invariant:** frozen weights are decoded when a part of a layer is computed, and dropped behind it.

use std::ops::Range;

use gguf_bitnet::{LogicalTensor, TensorType};
use moe_runtime::ModelFiles;
use moe_runtime::adapters::{AdapterFile, AdapterSet};
use ternary_core::BLOCK;
use tl_kernels::math;

use super::error::TrainError;
use super::params::{Group, Kind, Param, Params, PartGradient};
use crate::adapt::MicroLora;
use crate::error::Result;

/// The matrices of a routed expert.
pub(super) const EXPERT_PARTS: [&str; 3] = ["ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight"];

/// The weights of a model in training.
#[derive(Debug)]
pub struct Weights<'a> {
    /// The file of the student, or of a teacher.
    pub files: &'a ModelFiles,
    /// The registry of trained numbers.
    pub params: Params,
    /// The share of hard rounding in the latents, 0 to 1.
    pub hardness: f32,
    /// Whether the pages of frozen weights are given back once they are decoded, so that mapped files do not count as memory.
    pub drops_pages: bool,
    /// The matrix of each stack that entries of the registry begin with.
    first_matrix: usize,
}

/// A tensor with numbers to train.
pub(super) struct Trained<'f> {
    pub(super) tensor: &'f LogicalTensor,
    pub(super) group: Group,
    pub(super) kind: Kind,
    /// The rows of the tensor that have them.
    pub(super) rows: usize,
    /// How many there are.
    pub(super) numbers: usize,
}

/// The entries of the registry where tensors of `groups` are trained, in order, from shapes alone.
///
/// # Errors
/// [`TrainError::TernaryType`].
pub(super) fn trained<'f>(files: &'f ModelFiles, groups: &[Group]) -> Result<Vec<Trained<'f>>, TrainError> {
    let mut all = Vec::new();
    for tensor in files.catalog.tensors() {
        all.extend(of_ternary(files, tensor, tensor.rows(), groups)?);
    }
    for group in Group::ALL.into_iter().filter(|group| groups.contains(group)) {
        all.extend(of_group(files, group).map(|tensor| {
            let rows = tensor.rows();
            Trained { tensor, group, kind: Kind::Weights, rows, numbers: rows * tensor.cols() }
        }));
    }
    Ok(all)
}

/// The entries for `rows` rows of a tensor, if it is ternary; its weights themselves belong to no group.
fn of_ternary<'f>(
    files: &ModelFiles,
    tensor: &'f LogicalTensor,
    rows: usize,
    groups: &[Group],
) -> Result<Vec<Trained<'f>>, TrainError> {
    let ty = files.catalog.tensor_type(tensor).filter(|ty| ty.is_ternary());
    let Some(ty) = ty else { return Ok(Vec::new()) };
    let entries = [
        (Group::Scales, Kind::LogScales, rows * (tensor.cols() / BLOCK)),
        (Group::LatentTrits, Kind::Latents, rows * tensor.cols()),
    ];
    let entries = entries.into_iter().filter(|(group, ..)| groups.contains(group));
    let entries: Vec<_> =
        entries.map(|(group, kind, numbers)| Trained { tensor, group, kind, rows, numbers }).collect();
    // Types without a packing have one scale per row or tensor, or blocks of another length.
    if ty.packing().is_none() && !entries.is_empty() {
        return Err(TrainError::TernaryType { name: tensor.name.clone(), ty: ty.name() });
    }
    Ok(entries)
}

/// The tensors of a group that are not ternary.
fn of_group(files: &ModelFiles, group: Group) -> impl Iterator<Item = &LogicalTensor> {
    let is_ternary = |tensor: &LogicalTensor| files.catalog.tensor_type(tensor).is_some_and(TensorType::is_ternary);
    let all = files.catalog.tensors().iter();
    all.filter(move |tensor| !is_ternary(tensor) && Group::of_class(tensor.class) == Some(group))
}

/// A matrix whose trits are trained.
pub(super) struct ChangedMatrix<'w> {
    pub(super) tensor: &'w str,
    /// Its number in a stack of matrices.
    pub(super) number: usize,
    /// Trits that are others than in the file.
    pub(super) changed: u64,
    /// All of its trits.
    pub(super) trits: u64,
}

/// The share of trits that are others than in the file; `None` where no latents are trained.
pub(super) fn changed_share(matrices: &[ChangedMatrix<'_>]) -> Option<f64> {
    let sum = |of: fn(&ChangedMatrix<'_>) -> u64| matrices.iter().map(of).sum::<u64>();
    let (changed, all) = (sum(|matrix| matrix.changed), sum(|matrix| matrix.trits));
    (all > 0).then(|| changed as f64 / all as f64)
}

impl<'a> Weights<'a> {
    /// The weights of a file; tensors of `groups` are trained.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn new(files: &'a ModelFiles, groups: &[Group]) -> Result<Self> {
        let mut weights = Self::none(files, 0);
        for entry in trained(files, groups)? {
            weights.add_entry(&entry)?;
        }
        Ok(weights)
    }

    /// The weights of a file, of which the scales and the trits of one routed expert are trained, as far as it is ternary.
    ///
    /// # Errors
    /// As [`Weights::new`].
    pub(super) fn of_expert(files: &'a ModelFiles, layer: usize, expert: usize) -> Result<Self> {
        let mut weights = Self::none(files, expert);
        for part in EXPERT_PARTS {
            let tensor = weights.tensor(&format!("blk.{layer}.{part}"))?;
            for entry in of_ternary(files, tensor, tensor.matrix_rows(), &[Group::Scales, Group::LatentTrits])? {
                weights.add_entry(&entry)?;
            }
        }
        Ok(weights)
    }

    /// The weights of a file, none of which are trained.
    fn none(files: &'a ModelFiles, first_matrix: usize) -> Self {
        Self { files, params: Params::default(), hardness: 1.0, drops_pages: false, first_matrix }
    }

    /// The row of a tensor that an entry for it begins with.
    pub(super) fn first_row(&self, tensor: &LogicalTensor) -> usize {
        self.first_matrix * tensor.matrix_rows()
    }

    fn add_entry(&mut self, entry: &Trained<'_>) -> Result<()> {
        let Trained { tensor, group, kind, rows, numbers } = *entry;
        match kind {
            Kind::LogScales => self.add(tensor, rows, (group, kind), vec![0.0; numbers]),
            Kind::Latents => self.add_latents(tensor, rows)?,
            Kind::Weights | Kind::FactorA | Kind::FactorB => {
                let values = self.whole(tensor)?;
                self.add(tensor, rows, (group, kind), values);
            }
        }
        Ok(())
    }

    /// Adds the tensors of a group that are not ternary and not trained yet.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn add_group(&mut self, group: Group) -> Result<()> {
        for tensor in of_group(self.files, group).filter(|tensor| !self.wants(&tensor.name)).collect::<Vec<_>>() {
            let values = self.whole(tensor)?;
            self.add(tensor, tensor.rows(), (group, Kind::Weights), values);
        }
        Ok(())
    }

    /// Replaces the values of a tensor that is trained as weights.
    ///
    /// # Panics
    /// When the tensor is not, or has another number of values.
    pub fn set(&mut self, name: &str, values: &[f32]) {
        let index = self.params.find(name, Kind::Weights).expect("the tensor is trained");
        self.params.list_mut()[index].values.copy_from_slice(values);
    }

    /// Adds the factors of an adapter for this model. Its strength becomes a part of the second ones. An addition whose factors are
    /// both zero has no gradient, so its first one is drawn at random: it still adds nothing.
    ///
    /// # Errors
    /// Factors that do not fit the model, and additions to a matrix that takes none.
    pub fn add_adapter(&mut self, adapter: &AdapterFile, seed: u64) -> Result<()> {
        AdapterSet::new(self.files, &[(adapter, 1.0)])?;
        for pair in &adapter.pairs {
            let scale = adapter.scale(pair.rank());
            let (mut a, b): (_, Vec<f32>) = (pair.a.clone(), pair.b.iter().map(|b| scale * b).collect());
            let [[rank, inputs], [outputs, _]] =
                [&pair.a_shape, &pair.b_shape].map(|shape| [shape[shape.len() - 2], shape[shape.len() - 1]]);
            let matrices = a.chunks_exact_mut(rank * inputs).zip(b.chunks_exact(outputs * rank));
            for (number, (a, b)) in matrices.enumerate() {
                if a.iter().chain(b).all(|v| *v == 0.0) {
                    let seed = seed.wrapping_add((self.params.list().len() + (number << 32)) as u64);
                    a.copy_from_slice(MicroLora::blank(inputs, outputs, rank, seed).a());
                }
            }
            self.add_factor(&pair.tensor, Kind::FactorA, [rank, inputs], a);
            self.add_factor(&pair.tensor, Kind::FactorB, [outputs, rank], b);
        }
        Ok(())
    }

    fn add_factor(&mut self, name: &str, kind: Kind, [matrix_rows, cols]: [usize; 2], values: Vec<f32>) {
        let (rows, name, group) = (values.len() / cols, name.to_owned(), Group::of_addition(name));
        let (block_scales, gradient) = (Vec::new(), Vec::new());
        self.params.add(Param { name, group, kind, rows, cols, matrix_rows, block_scales, values, gradient });
    }

    /// The factors of the addition to matrix `outer` of a tensor: entries of the registry, and their numbers there.
    pub(super) fn factors(&self, name: &str, outer: usize) -> Option<[(usize, Range<usize>); 2]> {
        let place = |kind| {
            let param = self.params.find(name, kind)?;
            let Param { matrix_rows, cols, .. } = self.params.list()[param];
            Some((param, outer * matrix_rows * cols..(outer + 1) * matrix_rows * cols))
        };
        Some([place(Kind::FactorA)?, place(Kind::FactorB)?])
    }

    fn add(&mut self, tensor: &LogicalTensor, rows: usize, (group, kind): (Group, Kind), values: Vec<f32>) {
        let (cols, matrix_rows) = (values.len() / rows.max(1), tensor.matrix_rows());
        let (name, block_scales, gradient) = (tensor.name.clone(), Vec::new(), Vec::new());
        self.params.add(Param { name, group, kind, rows, cols, matrix_rows, block_scales, values, gradient });
    }

    /// Adds latents that stand for the trits of the file: -1, 0 and 1.
    fn add_latents(&mut self, tensor: &LogicalTensor, rows: usize) -> Result<()> {
        let mut latents = vec![0.0; rows * tensor.cols()];
        let first = self.first_row(tensor);
        self.files.catalog.read_rows(tensor, first..first + rows, &mut latents)?;
        drop_matrices(self.files, tensor, first, rows);
        let mut block_scales = Vec::with_capacity(latents.len() / BLOCK);
        for block in latents.chunks_exact_mut(BLOCK) {
            let scale = block.iter().fold(0.0f32, |m, w| m.max(w.abs()));
            block.iter_mut().for_each(|w| *w = if scale > 0.0 { *w / scale } else { 0.0 });
            block_scales.push(scale);
        }
        self.add(tensor, rows, (Group::LatentTrits, Kind::Latents), latents);
        if let Some(param) = self.params.list_mut().last_mut() {
            param.block_scales = block_scales;
        }
        Ok(())
    }

    /// Moves the latents of a tensor towards the weights of a teacher, as far as they are still rounded to the trits of the file:
    /// where both disagree, they come to stand `margin` from the edge.
    ///
    /// # Errors
    /// A teacher's tensor that is missing, of another shape, or cannot be read.
    pub fn start_latents(&mut self, teacher: &ModelFiles, margin: f32) -> Result<()> {
        let first_matrix = self.first_matrix;
        for param in self.params.list_mut().iter_mut().filter(|param| param.kind == Kind::Latents) {
            let missing = || TrainError::Missing { tensor: param.name.clone() };
            let tensor = teacher.catalog.find(&param.name).ok_or_else(missing)?;
            let first = first_matrix * param.matrix_rows;
            if tensor.rows() < first + param.rows
                || tensor.cols() != param.cols
                || tensor.matrix_rows() != param.matrix_rows
            {
                return Err(TrainError::Shape { tensor: param.name.clone() }.into());
            }
            let mut row = vec![0.0; param.cols];
            for r in 0..param.rows {
                teacher.catalog.read_rows(tensor, first + r..first + r + 1, &mut row)?;
                let latents = &mut param.values[r * param.cols..(r + 1) * param.cols];
                for (i, (latent, &w)) in latents.iter_mut().zip(&row).enumerate() {
                    let scale = param.block_scales[(r * param.cols + i) / BLOCK];
                    if scale > 0.0 {
                        let (trit, edge) = (f32::from(trit(*latent)), 0.5 - margin);
                        let low = if trit < 0.0 { -1.5 } else { trit - edge };
                        let high = if trit > 0.0 { 1.5 } else { trit + edge };
                        *latent = (w / scale).clamp(low, high);
                    }
                }
                if (r + 1).is_multiple_of(param.matrix_rows) {
                    drop_pages(teacher, tensor, first + r + 1 - param.matrix_rows, param.matrix_rows);
                }
            }
        }
        Ok(())
    }

    fn tensor(&self, name: &str) -> Result<&'a LogicalTensor> {
        let missing = || TrainError::Missing { tensor: name.to_owned() };
        Ok(self.files.catalog.find(name).ok_or_else(missing)?)
    }

    fn whole(&self, tensor: &LogicalTensor) -> Result<Vec<f32>> {
        let mut values = vec![0.0; tensor.elements()];
        self.files.catalog.read_rows(tensor, 0..tensor.rows(), &mut values)?;
        // Trained numbers are not read again.
        self.files.catalog.release(tensor);
        Ok(values)
    }

    /// Whether the model has a tensor.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.files.catalog.find(name).is_some()
    }

    /// Whether a tensor is trained in any way, so that the gradient of its weights is wanted.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        [Kind::Weights, Kind::LogScales, Kind::Latents].iter().any(|&kind| self.params.find(name, kind).is_some())
    }

    /// The weights of matrix `outer` of a stack, or of a matrix or a vector with `outer` = 0.
    ///
    /// # Errors
    /// A tensor that is missing or cannot be read.
    pub fn matrix(&self, name: &str, outer: usize) -> Result<Vec<f32>> {
        let tensor = self.tensor(name)?;
        self.rows(tensor, outer * tensor.matrix_rows(), tensor.matrix_rows())
    }

    /// Row `row` of a matrix.
    ///
    /// # Errors
    /// A tensor that is missing or cannot be read, a row that it does not have.
    pub fn row(&self, name: &str, row: usize) -> Result<Vec<f32>> {
        self.rows(self.tensor(name)?, row, 1)
    }

    /// The vector called `name`, if the model has it.
    ///
    /// # Errors
    /// A tensor that cannot be read.
    pub fn optional_vector(&self, name: &str) -> Result<Option<Vec<f32>>> {
        self.has(name).then(|| self.matrix(name, 0)).transpose()
    }

    /// `n` rows of a tensor from `first` on.
    fn rows(&self, tensor: &LogicalTensor, first: usize, n: usize) -> Result<Vec<f32>> {
        let (cols, in_file) = (tensor.cols(), first);
        let first = if self.wants(&tensor.name) { first - self.first_row(tensor) } else { first };
        if let Some(index) = self.params.find(&tensor.name, Kind::Weights) {
            return Ok(self.params.list()[index].values[first * cols..(first + n) * cols].to_vec());
        }
        let scales = self.params.find(&tensor.name, Kind::LogScales);
        let mut values = vec![0.0; n * cols];
        if let Some(index) = self.params.find(&tensor.name, Kind::Latents) {
            let latents = &self.params.list()[index].values[first * cols..(first + n) * cols];
            for (b, (block, latents)) in values.chunks_exact_mut(BLOCK).zip(latents.chunks_exact(BLOCK)).enumerate() {
                let scale = self.latent_scale(index, scales, first * cols / BLOCK + b);
                block.iter_mut().zip(latents).for_each(|(w, &u)| *w = scale * self.rounded(u));
            }
            return Ok(values);
        }
        self.files.catalog.read_rows(tensor, in_file..in_file + n, &mut values)?;
        if self.drops_pages {
            drop_pages(self.files, tensor, in_file, n);
        }
        if let Some(scales) = scales {
            for (b, block) in values.chunks_exact_mut(BLOCK).enumerate() {
                let factor = math::exp(self.params.list()[scales].values[first * cols / BLOCK + b]);
                block.iter_mut().for_each(|w| *w *= factor);
            }
        }
        Ok(values)
    }

    /// The scale of block `number` of the latents `index`, whose scales are trained as `scales`.
    fn latent_scale(&self, index: usize, scales: Option<usize>, number: usize) -> f32 {
        let list = self.params.list();
        list[index].block_scales[number] * scales.map_or(1.0, |scales| math::exp(list[scales].values[number]))
    }

    /// The number that a latent weight stands for, in units of its scale.
    fn rounded(&self, latent: f32) -> f32 {
        let clamped = latent.clamp(-1.0, 1.0);
        let hard = f32::from(trit(latent));
        if self.hardness >= 1.0 { hard } else { self.hardness * hard + (1.0 - self.hardness) * clamped }
    }

    /// The trits of each matrix of latents that are others than in the file.
    pub(super) fn changed_matrices(&self) -> Result<Vec<ChangedMatrix<'_>>> {
        let mut matrices = Vec::new();
        for param in self.params.list().iter().filter(|param| param.kind == Kind::Latents) {
            let tensor = self.tensor(&param.name)?;
            let (mut stored, first) = (vec![0.0; param.values.len()], self.first_row(tensor));
            self.files.catalog.read_rows(tensor, first..first + param.rows, &mut stored)?;
            drop_matrices(self.files, tensor, first, param.rows);
            let numbers = (param.matrix_rows * param.cols).max(1);
            for (number, (latents, stored)) in param.values.chunks(numbers).zip(stored.chunks(numbers)).enumerate() {
                let of_file = stored.iter().map(|&w| i8::from(w > 0.0) - i8::from(w < 0.0));
                let changed = latents.iter().zip(of_file).filter(|(latent, stored)| trit(**latent) != *stored).count();
                let (changed, trits) = (changed as u64, stored.len() as u64);
                let number = self.first_matrix + number;
                matrices.push(ChangedMatrix { tensor: &param.name, number, changed, trits });
            }
        }
        Ok(matrices)
    }

    /// The gradients of the registry's entries for the gradient `d_weights` of the matrix `outer` of a tensor, whose weights
    /// are `weights`.
    #[must_use]
    pub fn gradients(&self, name: &str, outer: usize, weights: &[f32], d_weights: Vec<f32>) -> Vec<PartGradient> {
        let first = (outer - self.first_matrix.min(outer)) * weights.len();
        let mut parts = Vec::new();
        if let Some(param) = self.params.find(name, Kind::LogScales) {
            let along = |(w, d): (&[f32], &[f32])| w.iter().zip(d).map(|(w, d)| w * d).sum();
            let values = weights.chunks_exact(BLOCK).zip(d_weights.chunks_exact(BLOCK)).map(along).collect();
            parts.push(PartGradient { param, first: first / BLOCK, values });
        }
        if let Some(param) = self.params.find(name, Kind::Latents) {
            let mut values = d_weights;
            let scales = self.params.find(name, Kind::LogScales);
            for (b, block) in values.chunks_exact_mut(BLOCK).enumerate() {
                let scale = self.latent_scale(param, scales, first / BLOCK + b);
                block.iter_mut().for_each(|d| *d *= scale);
            }
            parts.push(PartGradient { param, first, values });
        } else if let Some(param) = self.params.find(name, Kind::Weights) {
            parts.push(PartGradient { param, first, values: d_weights });
        }
        parts
    }
}

/// Gives back the pages of `n` rows of a tensor from `first` on.
fn drop_pages(files: &ModelFiles, tensor: &LogicalTensor, first: usize, n: usize) {
    let matrix_rows = tensor.matrix_rows().max(1);
    match files.catalog.matrix_span(tensor, first / matrix_rows).filter(|_| n == matrix_rows) {
        Some((index, bytes)) => files.catalog.source().release_range(index, bytes),
        None => files.catalog.release(tensor),
    }
}

/// Gives back the pages of whole matrices, `n` rows from `first` on.
fn drop_matrices(files: &ModelFiles, tensor: &LogicalTensor, first: usize, n: usize) {
    let matrix_rows = tensor.matrix_rows().max(1);
    (first..first + n).step_by(matrix_rows).for_each(|first| drop_pages(files, tensor, first, matrix_rows));
}

/// The trit that a latent weight is rounded to.
#[must_use]
pub fn trit(latent: f32) -> i8 {
    i8::from(latent > 0.5) - i8::from(latent < -0.5)
}
