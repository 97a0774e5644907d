//! One ternary matrix: the moments of its inputs, the settings that held-out tokens choose, and its rows.
//!
//! ```text
//! H' = (1 - l) H + l diag(H) + ridge      C' the same of C      l: shrinkage
//! minimise   q H' q' - 2 c q'    with   c = ((1 - m) H' + m C') w'      m: target mix
//! ```
//!
//! **Invariant:** with the step `acceptance` a row never ends worse than least squares on the held-out tokens.

use ternary_core::BLOCK;
use tl_kernels::Pool;

use super::inputs::InputMoments;
use super::report::MatrixReport;
use super::rows::{RowSolver, TernaryRow};
use super::search::Effort;
use super::steps::{Search, Step};
use crate::error::Result;
use crate::policy::{MatrixSettings, ScaleGrid, TernaryScalePolicy};

/// Fewest held-out tokens that can judge a row; with fewer, every row is that of least squares.
const MIN_HELD_OUT: usize = 8;
/// Fewest held-out tokens that can choose settings; with fewer, they follow from the number of tokens.
const MIN_CHOOSING: usize = 64;
/// Rows that settings are tried on.
const TRIAL_ROWS: usize = 32;
/// Rows that are solved for together at most, so that the forms of the Hessian are read once for all of them.
pub(super) const ROWS_PER_TASK: usize = 32;
/// A setting replaces the one before it when it lowers the held-out error by more than this share.
const MARGIN: f64 = 0.002;

/// One matrix of a layer.
#[derive(Debug)]
pub(super) struct Matrix {
    /// The teacher's weights, `[rows, cols]`.
    pub(super) teacher: Vec<f32>,
    /// The values that the type gives without calibration, `[rows, cols]`.
    pub(super) plain: Vec<f32>,
    /// Length of a row.
    pub(super) cols: usize,
    /// Weights that share a scale, where the matrix is ternary; others stay as they are.
    pub(super) block: Option<usize>,
    /// The settings that an earlier run chose.
    pub(super) known: Option<MatrixSettings>,
}

impl Matrix {
    /// The values of the matrix: of `rows` where they were solved for, else the plain ones.
    pub(super) fn values(&self, rows: &[Option<TernaryRow>]) -> Vec<f32> {
        let mut values = self.plain.clone();
        for (out, row) in values.chunks_exact_mut(self.cols).zip(rows) {
            if let Some(row) = row {
                row.write_values(out);
            }
        }
        values
    }
}

/// A ternary matrix with the moments of its inputs.
pub(super) struct Problem<'a> {
    pool: &'a Pool,
    search: &'a Search,
    matrix: &'a Matrix,
    /// Weights that share a scale.
    block: usize,
    inputs: &'a InputMoments,
    /// `C w'` of every row on the held-out tokens, `[rows, cols]`.
    wanted: Vec<f32>,
}

/// Sums over the held-out tokens: of a row, or of many.
#[derive(Clone, Copy, Default)]
struct Errors {
    /// `q H q'`: the squared length of the student's outputs.
    own: f64,
    /// `q C w'`: the product of the student's and the teacher's outputs.
    shared: f64,
}

impl Errors {
    /// The squared error without the squared length of the teacher's outputs, which no row can change.
    fn error(self) -> f64 {
        self.own - 2.0 * self.shared
    }

    fn sum(errors: &[Errors]) -> Errors {
        errors.iter().fold(Errors::default(), |a, b| Errors { own: a.own + b.own, shared: a.shared + b.shared })
    }
}

impl<'a> Problem<'a> {
    /// The problem of `matrix`, whose blocks have `block` weights and which reads `inputs`.
    pub(super) fn new(
        pool: &'a Pool,
        search: &'a Search,
        (matrix, block): (&'a Matrix, usize),
        inputs: &'a InputMoments,
    ) -> Self {
        let wanted = inputs.held_out.cross.multiply(pool, &matrix.teacher);
        Self { pool, search, matrix, block, inputs, wanted }
    }

    /// The rows of the matrix, `None` for one that stays that of least squares, and what they achieve.
    pub(super) fn solve(&self) -> Result<(Vec<Option<TernaryRow>>, MatrixReport)> {
        let numbers: Vec<usize> = (0..self.matrix.teacher.len() / self.matrix.cols).collect();
        let mut rows: Vec<Option<TernaryRow>> = vec![None; numbers.len()];
        let solvable = self.inputs.have_mass() && self.inputs.held_out.tokens >= MIN_HELD_OUT;
        let settings = if solvable { self.settings()? } else { None };
        if solvable {
            let settings = settings.unwrap_or_else(|| self.default_settings());
            rows = self.rows(&settings, &numbers, self.search.effort)?;
        }
        let before = self.errors(&numbers, &self.matrix.plain);
        let mut after = self.errors(&numbers, &self.matrix.values(&rows));
        if self.search.steps.has(Step::Acceptance) {
            for ((row, after), before) in rows.iter_mut().zip(&mut after).zip(&before) {
                let better = after.error() < before.error(); // false for NaN
                if !better {
                    *row = None;
                    *after = *before;
                }
            }
        }
        let energy = self.energy(&numbers);
        let share =
            |errors: &[Errors]| (energy > 0.0).then(|| ((Errors::sum(errors).error() + energy) / energy).max(0.0));
        let Errors { own, shared } = Errors::sum(&after);
        let length = (own * energy).sqrt();
        let output_cosine = (length > 0.0).then(|| shared / length);
        let report = MatrixReport {
            error_before: share(&before),
            error_after: share(&after),
            rows: rows.len(),
            rows_calibrated: rows.iter().flatten().count(),
            policy: TernaryScalePolicy::of(&self.matrix.values(&rows), self.block, output_cosine, settings),
            known: settings.is_some() && self.matrix.known.is_some(),
        };
        Ok((rows, report))
    }

    /// The settings that held-out tokens choose, or that an earlier run chose; `None` where neither says any.
    fn settings(&self) -> Result<Option<MatrixSettings>> {
        if !self.search.steps.has(Step::ChosenSettings) || self.inputs.held_out.tokens < MIN_CHOOSING {
            return Ok(None);
        }
        match self.matrix.known {
            Some(known) => Ok(Some(known)),
            None => self.choose().map(Some),
        }
    }

    /// The settings without a choice.
    fn default_settings(&self) -> MatrixSettings {
        let tokens_per_input = self.inputs.fit_tokens() as f64 / self.matrix.cols as f64;
        let shrinkage = (0.5 / (tokens_per_input / 2.0).sqrt()).clamp(0.05, 0.8);
        MatrixSettings { shrinkage, target_mix: 1.0, scale_grid: ScaleGrid::Five }
    }

    /// Tries one setting after the other on some rows, with the others as chosen so far.
    fn choose(&self) -> Result<MatrixSettings> {
        let n_rows = self.matrix.teacher.len() / self.matrix.cols;
        let step = n_rows.div_ceil(TRIAL_ROWS).max(1);
        let numbers: Vec<usize> = (0..n_rows).step_by(step).collect();
        let first = MatrixSettings { scale_grid: ScaleGrid::One, ..self.default_settings() };
        let mut best = (first, self.trial(&first, &numbers)?);
        let energy = self.energy(&numbers);
        let mut attempt = |change: &dyn Fn(&mut MatrixSettings)| -> Result<bool> {
            let mut settings = best.0;
            change(&mut settings);
            let error = self.trial(&settings, &numbers)?;
            let better = error + energy < (best.1 + energy) * (1.0 - MARGIN);
            if better {
                best = (settings, error);
            }
            Ok(better)
        };
        if self.search.steps.has(Step::StudentInputs) {
            attempt(&|settings| settings.target_mix = 0.5)?;
        }
        if self.search.steps.has(Step::Shrinkage) {
            // The error has one valley, so less is not tried where more is better.
            if !attempt(&|settings| settings.shrinkage = (3.0 * first.shrinkage).min(0.9))? {
                attempt(&|settings| settings.shrinkage = first.shrinkage / 3.0)?;
            }
        }
        if self.search.steps.has(Step::Starts) {
            attempt(&|settings| settings.scale_grid = ScaleGrid::Five)?;
        }
        Ok(best.0)
    }

    /// The held-out error of some rows with `settings`, after a short search.
    fn trial(&self, settings: &MatrixSettings, numbers: &[usize]) -> Result<f64> {
        let effort = Effort { sweeps: self.search.effort.sweeps.min(1), kicks: 0 };
        let rows = self.rows(settings, numbers, effort)?;
        let cols = self.matrix.cols;
        let mut values = Vec::with_capacity(numbers.len() * cols);
        for (&r, row) in numbers.iter().zip(&rows) {
            let at = values.len();
            values.extend_from_slice(&self.matrix.plain[r * cols..][..cols]);
            if let Some(row) = row {
                row.write_values(&mut values[at..]);
            }
        }
        Ok(Errors::sum(&self.errors(numbers, &values)).error())
    }

    /// The rows with these numbers, solved with `settings`.
    fn rows(&self, settings: &MatrixSettings, numbers: &[usize], effort: Effort) -> Result<Vec<Option<TernaryRow>>> {
        match self.block {
            64 => self.rows_of_blocks::<64>(settings, numbers, effort),
            BLOCK => self.rows_of_blocks::<BLOCK>(settings, numbers, effort),
            block => unreachable!("no ternary type has blocks of {block} weights"),
        }
    }

    fn rows_of_blocks<const B: usize>(
        &self,
        settings: &MatrixSettings,
        numbers: &[usize],
        effort: Effort,
    ) -> Result<Vec<Option<TernaryRow>>> {
        let (n, steps) = (self.matrix.cols, &self.search.steps);
        let shrinkage = if steps.has(Step::Shrinkage) { settings.shrinkage } else { 0.0 };
        let mix = if steps.has(Step::StudentInputs) { settings.target_mix } else { 0.0 };
        let teacher = self.teacher_rows(numbers);
        let targets = self.inputs.target(shrinkage, mix)?.multiply(self.pool, &teacher);
        let quadratic = self.inputs.quadratic(self.pool, steps, shrinkage, B)?;
        let solver = RowSolver::<B>::new(&quadratic, steps, effort, settings.scale_grid);
        let mut rows: Vec<Option<TernaryRow>> = vec![None; numbers.len()];
        // Some tasks for each thread, because rows differ in the time they take.
        let rows_per_task = numbers.len().div_ceil(4 * self.pool.threads()).clamp(1, ROWS_PER_TASK);
        self.pool.chunks_mut(&mut rows, rows_per_task, |task, out| {
            let (first, count) = (task * rows_per_task, out.len());
            let seed = |&number: &usize| self.search.seed.wrapping_mul(1 << 20).wrapping_add(number as u64);
            let seeds: Vec<u64> = numbers[first..][..count].iter().map(seed).collect();
            let range = first * n..(first + count) * n;
            out.clone_from_slice(&solver.solve(&targets[range.clone()], &teacher[range], &seeds));
        });
        Ok(rows)
    }

    /// The sums of rows with values `[numbers, cols]` on the held-out tokens.
    fn errors(&self, numbers: &[usize], values: &[f32]) -> Vec<Errors> {
        let n = self.matrix.cols;
        let own = self.inputs.held_out.student.multiply(self.pool, values);
        let rows = numbers.iter().zip(values.chunks_exact(n).zip(own.chunks_exact(n)));
        rows.map(|(&r, (q, own))| {
            let wanted = &self.wanted[r * n..][..n];
            q.iter().zip(own.iter().zip(wanted)).fold(Errors::default(), |sum, (&q, (&h, &c))| Errors {
                own: sum.own + f64::from(q) * f64::from(h),
                shared: sum.shared + f64::from(q) * f64::from(c),
            })
        })
        .collect()
    }

    /// `sum w F w'` of these rows: the weighted squared length of the teacher's outputs.
    fn energy(&self, numbers: &[usize]) -> f64 {
        let weights = self.teacher_rows(numbers);
        let outputs = self.inputs.held_out.teacher.multiply(self.pool, &weights);
        weights.iter().zip(&outputs).map(|(&w, &y)| f64::from(w) * f64::from(y)).sum()
    }

    /// The teacher's rows with these numbers, one behind the other.
    fn teacher_rows(&self, numbers: &[usize]) -> Vec<f32> {
        let n = self.matrix.cols;
        numbers.iter().flat_map(|&r| &self.matrix.teacher[r * n..][..n]).copied().collect()
    }
}
