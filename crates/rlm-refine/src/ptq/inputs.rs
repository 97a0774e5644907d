//! The inputs of matrices that read the same: their moments, and what was made of them for one matrix and serves the next.

use std::cell::RefCell;
use std::rc::Rc;

use tl_kernels::Pool;

use super::moments::Moments;
use super::quadratic::Quadratic;
use super::row_matrix::RowMatrix;
use super::steps::Steps;
use crate::error::Result;

/// Added to the Hessian's diagonal, as a share of its mean, with the teacher's weight as the target: inputs without
/// information leave the weight as it is.
const RIDGE: f64 = 1e-4;

/// The moments of the tokens that fit matrices, and of those held out.
#[derive(Debug)]
pub(super) struct InputMoments {
    fit: Moments,
    pub(super) held_out: HeldOut,
    /// The shaped Hessians by their shrinkage and the length of their blocks.
    quadratics: RefCell<Vec<(f64, usize, Rc<Quadratic>)>>,
}

/// The moments of the held-out tokens as rows of a student and of its teacher are multiplied with them.
#[derive(Debug)]
pub(super) struct HeldOut {
    /// How many tokens these are.
    pub(super) tokens: usize,
    /// H, the sum over the student's inputs.
    pub(super) student: RowMatrix,
    /// C, the products of the student's inputs and the teacher's.
    pub(super) cross: RowMatrix,
    /// F, the sum over the teacher's inputs.
    pub(super) teacher: RowMatrix,
}

impl InputMoments {
    /// The inputs with the moments of the tokens that fit matrices and of those held out; the latter hold F.
    pub(super) fn new([fit, held_out]: [Moments; 2]) -> Result<Self> {
        let Moments { n, tokens, student, cross, teacher } = held_out;
        let matrix = |sums: Vec<f64>| RowMatrix::new(n, n, sums.iter().map(|&sum| sum as f32));
        let teacher = teacher.unwrap_or_else(|| vec![0.0; n * n]);
        let held_out = HeldOut { tokens, student: matrix(student)?, cross: matrix(cross)?, teacher: matrix(teacher)? };
        Ok(Self { fit, held_out, quadratics: RefCell::new(Vec::new()) })
    }

    /// Tokens that fit matrices.
    pub(super) fn fit_tokens(&self) -> usize {
        self.fit.tokens
    }

    /// Whether the tokens that fit have any input.
    pub(super) fn have_mass(&self) -> bool {
        self.fit.mean_diagonal() > 0.0
    }

    /// The Hessian with a shrinkage, in blocks, factored the first time it is asked for.
    pub(super) fn quadratic(&self, pool: &Pool, steps: &Steps, shrinkage: f64, block: usize) -> Result<Rc<Quadratic>> {
        let mut quadratics = self.quadratics.borrow_mut();
        if let Some((.., found)) = quadratics.iter().find(|(of, length, _)| (*of, *length) == (shrinkage, block)) {
            return Ok(Rc::clone(found));
        }
        let hessian: Vec<f64> = self.shaped(shrinkage, 0.0).collect();
        let made = Rc::new(Quadratic::new(pool, &hessian, self.fit.n, block, steps)?);
        quadratics.push((shrinkage, block, Rc::clone(&made)));
        Ok(made)
    }

    /// The matrix that turns rows of the teacher into targets.
    pub(super) fn target(&self, shrinkage: f64, mix: f64) -> Result<RowMatrix> {
        RowMatrix::new(self.fit.n, self.fit.n, self.shaped(shrinkage, mix).map(|value| value as f32))
    }

    /// `(1 - l) S + l diag(S)` and a ridge, with `S = (1 - m) H + m C` over the tokens that fit, the shrinkage l and the mix m.
    fn shaped(&self, shrinkage: f64, mix: f64) -> impl Iterator<Item = f64> {
        let Moments { n, student, cross, .. } = &self.fit;
        let ridge = RIDGE * self.fit.mean_diagonal();
        let sums = student.iter().zip(cross).map(move |(h, c)| (1.0 - mix) * h + mix * c);
        sums.enumerate().map(move |(i, sum)| if i % (n + 1) == 0 { sum + ridge } else { (1.0 - shrinkage) * sum })
    }
}
