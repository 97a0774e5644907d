//! Rows of weights to bytes of a file, in parallel, with the error this causes.
//!
//! **Invariant:** bytes and error sums do not depend on the number of threads: tasks are cut by rows alone and their
//! sums are added in the order of the rows.

use std::ops::Range;
use std::sync::Mutex;

use gguf_bitnet::{TensorType, dequantize, encode_row};
use ternary_core::{ErrorSums, Rounding};
use tl_kernels::Pool;

use crate::error::Result;

/// Weights that one thread takes at a time.
pub(crate) const TASK_WEIGHTS: usize = 1 << 16;

/// A function that decodes rows to F32 `[n, cols]`.
pub(crate) type ReadRows<'a> = dyn Fn(Range<usize>, &mut [f32]) -> Result<()> + Sync + 'a;

/// How rows are stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoding {
    /// The type on disk.
    pub(crate) ty: TensorType,
    /// The rounding of ternary types.
    pub(crate) rounding: Rounding,
    /// Length of a row.
    pub(crate) cols: usize,
}

/// Rows of a matrix, and the function that decodes them.
#[derive(Clone)]
pub(crate) struct Rows<'a> {
    pub(crate) numbers: Range<usize>,
    /// Decodes some of them.
    pub(crate) read: &'a ReadRows<'a>,
}

/// Encodes `rows` into `out`, and returns the error this causes.
///
/// # Errors
/// The first error of reading by row, or a row that the type cannot store.
pub(crate) fn encode_rows(pool: &Pool, encoding: Encoding, rows: Rows<'_>, out: &mut Vec<u8>) -> Result<ErrorSums> {
    let Encoding { ty, rounding, cols } = encoding;
    fill_rows(pool, encoding, rows, out, &|_, weights, bytes| {
        let mut packed = Vec::with_capacity(bytes.len());
        for row in weights.chunks_exact(cols) {
            encode_row(ty, rounding, row, None, &mut packed)?;
        }
        bytes.copy_from_slice(&packed);
        Ok(())
    })
}

/// Copies the bytes of `rows` from `made`, those of all rows, into `out`, and returns the error that they have.
///
/// # Errors
/// The first error of reading by row.
pub(crate) fn copy_rows(
    pool: &Pool,
    encoding: Encoding,
    rows: Rows<'_>,
    made: &[u8],
    out: &mut Vec<u8>,
) -> Result<ErrorSums> {
    let row_bytes = encoding.ty.row_bytes(encoding.cols)?;
    fill_rows(pool, encoding, rows, out, &|first, _, bytes| {
        bytes.copy_from_slice(&made[first * row_bytes..][..bytes.len()]);
        Ok(())
    })
}

/// Writes the bytes of the rows behind a row's number, whose weights are given.
type Fill<'a> = dyn Fn(usize, &[f32], &mut [u8]) -> Result<()> + Sync + 'a;

fn fill_rows(pool: &Pool, encoding: Encoding, rows: Rows<'_>, out: &mut Vec<u8>, fill: &Fill<'_>) -> Result<ErrorSums> {
    let Encoding { ty, cols, .. } = encoding;
    let Rows { numbers, read } = rows;
    let row_bytes = ty.row_bytes(cols)?;
    let rows_per_task = (TASK_WEIGHTS / cols.max(1)).max(1);
    let n_tasks = numbers.len().div_ceil(rows_per_task);
    out.clear();
    out.resize(numbers.len() * row_bytes, 0);
    let results: Mutex<Vec<Option<Result<ErrorSums>>>> = Mutex::new((0..n_tasks).map(|_| None).collect());
    pool.chunks_mut(out, rows_per_task * row_bytes, |task, bytes| {
        let first = numbers.start + task * rows_per_task;
        let n = bytes.len() / row_bytes;
        let mut task_sums = || {
            let mut weights = vec![0.0; n * cols];
            read(first..first + n, &mut weights)?;
            fill(first, &weights, bytes)?;
            let mut values = vec![0.0; weights.len()];
            dequantize(ty, bytes, &mut values)?;
            let mut sums = ErrorSums::default();
            sums.add(&weights, &values);
            Ok(sums)
        };
        let result = task_sums();
        results.lock().expect("no task panics while it holds the lock")[task] = Some(result);
    });
    let mut sums = ErrorSums::default();
    for result in results.into_inner().expect("no task panics while it holds the lock").into_iter().flatten() {
        sums.merge(&result?);
    }
    Ok(sums)
}
