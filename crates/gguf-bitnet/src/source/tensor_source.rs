//! A file or a set of files that holds named tensors, in either container format.
//!
//! **Invariant:** a `TensorSource` has been validated as a whole before it exists: every tensor's
//! shape, type and span fit the file, so [`TensorSource::bytes`] never reaches outside of it.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use ternary_core::Bytes;

use super::scales::Scales;
use super::tensor_info::TensorInfo;
use super::zero_tail::ZeroTail;
use crate::error::Result;

/// Read access to named tensors. Implemented by `GgufFile` (one file or a split set) and
/// `SafetensorsDir` (a directory or a single file).
///
/// Views are zero-copy; their pages become resident when they are read and can be handed back
/// with [`TensorSource::release`].
pub trait TensorSource: Send + Sync {
    /// Every tensor, in file order.
    fn tensors(&self) -> &[TensorInfo];

    /// Position of the tensor with this exact name in [`TensorSource::tensors`].
    fn index_of(&self, name: &str) -> Option<usize>;

    /// The stored bytes of a tensor: a zero-copy view that keeps the map alive.
    ///
    /// # Errors
    /// When `index` is not one of [`TensorSource::tensors`].
    fn bytes(&self, index: usize) -> Result<Bytes>;

    /// Tells the operating system that the pages of a tensor are not needed for now. Views stay
    /// valid: touching them again reads the file again. A hint; out-of-range indices are ignored.
    fn release(&self, index: usize);

    /// Asks the operating system to read a tensor's pages ahead. A hint, like
    /// [`TensorSource::release`].
    fn prefetch(&self, index: usize);

    /// As [`TensorSource::release`], for the bytes `range` of a tensor, cut at the end of its data. Sources
    /// without pages do nothing.
    fn release_range(&self, _index: usize, _range: Range<usize>) {}

    /// As [`TensorSource::prefetch`], for the bytes `range` of a tensor, cut at the end of its data. Sources
    /// without pages do nothing.
    fn prefetch_range(&self, _index: usize, _range: Range<usize>) {}

    /// The scales that the weights of a tensor are multiplied by, where they lie in a tensor of their own.
    fn scales(&self, _index: usize) -> Option<Scales> {
        None
    }

    /// The scale of a tensor whose weights are stored as numbers, but that its model rounds to the nearest of -1, 0 and +1
    /// times this scale whenever it reads them.
    ///
    /// # Errors
    /// When the tensor cannot be read.
    fn trit_scale(&self, _index: usize) -> Result<Option<f32>> {
        Ok(None)
    }

    /// Whether a tensor belongs to the storage of another one, so that it is no tensor of the model: scales of its weights
    /// or of its input.
    fn is_auxiliary(&self, _index: usize) -> bool {
        false
    }

    /// The files of the source whose end was never written: zero bytes where weights should lie. Reads each file
    /// backwards, up to its last byte that is not zero.
    fn zero_tails(&self) -> Vec<ZeroTail> {
        Vec::new()
    }

    /// The file or directory that was opened.
    fn path(&self) -> &Path;
}

/// The part of `span` that `range` names, counted from the start of the span.
pub(crate) fn within(span: &Range<usize>, range: &Range<usize>) -> Range<usize> {
    let (start, end) = (range.start.min(span.len()), range.end.min(span.len()));
    span.start + start..span.start + end
}

impl fmt::Debug for dyn TensorSource + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} tensors)", self.path().display(), self.tensors().len())
    }
}
