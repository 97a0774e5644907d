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

/// Encodes `rows`, which `read` decodes to F32 (`[n, cols]`), into `out`, and returns the error this causes.
///
/// # Errors
/// The first error of `read` by row, or a row that the type cannot store.
pub(crate) fn encode_rows(
    pool: &Pool,
    encoding: Encoding,
    rows: Range<usize>,
    read: &ReadRows<'_>,
    out: &mut Vec<u8>,
) -> Result<ErrorSums> {
    let Encoding { ty, cols, .. } = encoding;
    let row_bytes = ty.row_bytes(cols)?;
    let rows_per_task = (TASK_WEIGHTS / cols.max(1)).max(1);
    let n_tasks = rows.len().div_ceil(rows_per_task);
    out.clear();
    out.resize(rows.len() * row_bytes, 0);
    let results: Mutex<Vec<Option<Result<ErrorSums>>>> = Mutex::new((0..n_tasks).map(|_| None).collect());
    pool.chunks_mut(out, rows_per_task * row_bytes, |task, bytes| {
        let start = rows.start + task * rows_per_task;
        let result = encode_task(encoding, start..start + bytes.len() / row_bytes, read, bytes);
        results.lock().expect("no task panics while it holds the lock")[task] = Some(result);
    });
    let mut sums = ErrorSums::default();
    for result in results.into_inner().expect("no task panics while it holds the lock").into_iter().flatten() {
        sums.merge(&result?);
    }
    Ok(sums)
}

fn encode_task(encoding: Encoding, rows: Range<usize>, read: &ReadRows<'_>, bytes: &mut [u8]) -> Result<ErrorSums> {
    let Encoding { ty, rounding, cols } = encoding;
    let mut weights = vec![0.0; rows.len() * cols];
    read(rows, &mut weights)?;
    let mut packed = Vec::with_capacity(bytes.len());
    for row in weights.chunks_exact(cols) {
        encode_row(ty, rounding, row, None, &mut packed)?;
    }
    bytes.copy_from_slice(&packed);
    let mut values = vec![0.0; weights.len()];
    dequantize(ty, bytes, &mut values)?;
    let mut sums = ErrorSums::default();
    sums.add(&weights, &values);
    Ok(sums)
}
