//! Products with a matrix of a layer, `y = x W'`, and with its bias and norm.

use tl_kernels::strided::{Mat, Out, multiply};

use super::addition::Addition;
use super::context::Context;
use crate::error::Result;
use crate::train::ops::norm::{NormGradients, rms_norm, rms_norm_backward};
use crate::train::params::PartGradient;

/// A matrix `[rows, cols]` with its place in the file.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    name: String,
    outer: usize,
    rows: usize,
    cols: usize,
    values: Vec<f32>,
    addition: Option<Addition>,
}

impl Linear {
    /// The matrix `part` of a layer, whose rows have `cols` values.
    pub(crate) fn read(context: Context<'_>, part: &str, outer: usize, cols: usize) -> Result<Self> {
        Self::named(context, context.name(part), outer, cols)
    }

    /// The matrix called `name`.
    pub(crate) fn named(context: Context<'_>, name: String, outer: usize, cols: usize) -> Result<Self> {
        let values = context.weights.matrix(&name, outer)?;
        let addition = Addition::read(context, &name, outer);
        Ok(Self { name, outer, rows: values.len() / cols.max(1), cols, values, addition })
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn mat(&self) -> Mat<'_> {
        Mat::new(&self.values, self.rows, self.cols)
    }

    /// `x W'` for `x` `[n, cols]`.
    pub(crate) fn forward(&self, context: Context<'_>, x: &[f32]) -> Vec<f32> {
        let n = x.len() / self.cols;
        let mut y = vec![0.0; n * self.rows];
        multiply(context.pool, Out::to(&mut y, self.rows), Mat::new(x, n, self.cols), self.mat().t());
        if let Some(addition) = &self.addition {
            addition.add(context, x, &mut y);
        }
        y
    }

    /// Adds `d_y W` to `d_x` and the gradients of the matrix and of its addition, where they are wanted, to `parts`.
    pub(crate) fn backward(
        &self,
        context: Context<'_>,
        [x, d_y]: [&[f32]; 2],
        d_x: &mut [f32],
        parts: &mut Vec<PartGradient>,
    ) {
        let n = d_y.len() / self.rows;
        multiply(context.pool, Out::onto(d_x, self.cols), Mat::new(d_y, n, self.rows), self.mat());
        if context.weights.wants(&self.name) {
            let mut d_weights = vec![0.0; self.values.len()];
            let d_y = Mat::new(d_y, n, self.rows).t();
            multiply(context.pool, Out::to(&mut d_weights, self.cols), d_y, Mat::new(x, n, self.cols));
            self.add_gradient(context, d_weights, parts);
        }
        if let Some(addition) = &self.addition {
            addition.backward(context, [x, d_y], d_x, parts);
        }
    }

    /// Adds a gradient of the matrix to `parts`.
    pub(crate) fn add_gradient(&self, context: Context<'_>, d_weights: Vec<f32>, parts: &mut Vec<PartGradient>) {
        parts.extend(context.weights.gradients(&self.name, self.outer, &self.values, d_weights));
    }

    /// Whether the gradient of the matrix or of its addition is wanted.
    pub(crate) fn is_wanted(&self, context: Context<'_>) -> bool {
        self.addition.is_some() || context.weights.wants(&self.name)
    }
}

/// The weight of a norm with its place in the file.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    name: String,
    weight: Vec<f32>,
    eps: f32,
}

impl Norm {
    pub(crate) fn read(context: Context<'_>, part: &str, eps: f32) -> Result<Self> {
        Self::named(context, context.name(part), eps)
    }

    pub(crate) fn named(context: Context<'_>, name: String, eps: f32) -> Result<Self> {
        Ok(Self { weight: context.weights.matrix(&name, 0)?, name, eps })
    }

    /// The norm `part` of a layer, where the model has it.
    pub(crate) fn optional(context: Context<'_>, part: &str, eps: f32) -> Result<Option<Self>> {
        context.weights.has(&context.name(part)).then(|| Self::read(context, part, eps)).transpose()
    }

    pub(crate) fn forward(&self, context: Context<'_>, x: &[f32]) -> Vec<f32> {
        rms_norm(context.pool, x, &self.weight, self.eps)
    }

    /// Adds the gradient of the input to `d_x` and that of the weight, where it is wanted, to `parts`.
    pub(crate) fn backward(
        &self,
        context: Context<'_>,
        [x, d_y]: [&[f32]; 2],
        d_x: &mut [f32],
        parts: &mut Vec<PartGradient>,
    ) {
        let mut d_weight = context.weights.wants(&self.name).then(|| vec![0.0; self.weight.len()]);
        let into = NormGradients { d_x, d_weight: d_weight.as_deref_mut() };
        rms_norm_backward(x, &self.weight, self.eps, d_y, into);
        if let Some(d_weight) = d_weight {
            parts.extend(context.weights.gradients(&self.name, 0, &self.weight, d_weight));
        }
    }
}

/// Adds the bias `part` of a layer, where the model has it, to every row of `y`.
pub(crate) fn add_bias(context: Context<'_>, part: &str, y: &mut [f32]) -> Result<()> {
    if let Some(bias) = context.weights.optional_vector(&context.name(part))? {
        for row in y.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(&bias).for_each(|(y, b)| *y += b);
        }
    }
    Ok(())
}

/// The gradient of the bias `part` of a layer for the gradient `d_y` of its rows.
pub(crate) fn bias_backward(
    context: Context<'_>,
    part: &str,
    d_y: &[f32],
    parts: &mut Vec<PartGradient>,
) -> Result<()> {
    let name = context.name(part);
    if context.weights.has(&name) && context.weights.wants(&name) {
        let bias = context.weights.matrix(&name, 0)?;
        let mut d_bias = vec![0.0; bias.len()];
        for row in d_y.chunks_exact(bias.len()) {
            d_bias.iter_mut().zip(row).for_each(|(sum, d)| *sum += d);
        }
        parts.extend(context.weights.gradients(&name, 0, &bias, d_bias));
    }
    Ok(())
}
