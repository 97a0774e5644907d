//! The Hessian that all rows of a matrix share, in the forms that the search for a row reads.

use tl_kernels::Pool;
use tl_kernels::dense::axpy_f32;

use super::factor::Factor;
use super::row_matrix::{RowMatrix, Scratch};
use super::steps::{Step, Steps};
use crate::error::Result;

/// The forms of one Hessian `[n, n]`, cut into blocks of columns.
#[derive(Debug)]
pub(super) struct Quadratic {
    pub(super) n: usize,
    /// Columns of a block.
    pub(super) block: usize,
    /// The columns of each block, `[n, block]`: row i holds what column i of H has in the rows of the block, too.
    blocks: Vec<Vec<f32>>,
    /// The same for products.
    products: Vec<RowMatrix>,
    /// The diagonal of H, by which least squares weighs columns, `[n]`.
    pub(super) diagonal: Vec<f32>,
    /// `None` for a singular Hessian.
    pub(super) factor: Option<Factor>,
}

impl Quadratic {
    /// The forms of `hessian` `[n, n]`, with `n` a multiple of `block`.
    pub(super) fn new(pool: &Pool, hessian: &[f64], n: usize, block: usize, steps: &Steps) -> Result<Self> {
        let diagonal: Vec<f64> = (0..n).map(|i| hessian[i * n + i]).collect();
        let mut order: Vec<usize> = (0..n).collect();
        if steps.has(Step::ActivationOrder) {
            order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]).then(a.cmp(&b)));
        }
        let factor = Factor::new(pool, hessian, order);
        let (mut blocks, mut products) = (Vec::new(), Vec::new());
        for start in (0..n).step_by(block) {
            let columns = hessian.chunks_exact(n).flat_map(|row| &row[start..start + block]);
            let columns: Vec<f32> = columns.map(|&h| h as f32).collect();
            products.push(RowMatrix::new(n, block, columns.iter().copied())?);
            blocks.push(columns);
        }
        let diagonal = diagonal.iter().map(|&h| h as f32).collect();
        Ok(Self { n, block, blocks, products, diagonal, factor })
    }

    /// The diagonal block `b` of H, `[block, block]`.
    pub(super) fn diagonal_block(&self, b: usize) -> &[f32] {
        &self.blocks[b][b * self.block * self.block..][..self.block * self.block]
    }

    /// Adds `change` times column `i` of H to `product` `[n]`.
    pub(super) fn add_column(&self, product: &mut [f32], i: usize, change: i8) {
        if change != 0 {
            for (part, columns) in product.chunks_exact_mut(self.block).zip(&self.blocks) {
                axpy_f32(f32::from(change), &columns[i * self.block..][..self.block], part);
            }
        }
    }

    /// The products of H with the codes of some rows, `[rows, n]`, where `codes(row)` are those of its block `b`, `[block]`,
    /// and the row has no others.
    pub(super) fn multiply<'a, 'b>(
        &self,
        scratch: &'a mut Scratch,
        b: usize,
        rows: usize,
        codes: impl Fn(usize) -> &'b [i8],
    ) -> &'a [f32] {
        self.products[b].multiply_here(scratch, rows, |row, x| {
            x.iter_mut().zip(codes(row)).for_each(|(x, &code)| *x = f32::from(code));
        })
    }
}
