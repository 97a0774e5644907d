//! Where the data of a tensor lie in the files of a source.

use std::ops::Range;

/// The bytes of a tensor in one of several files.
#[derive(Clone, Debug)]
pub(crate) struct FileRange {
    /// Index of the file in the source.
    pub(crate) file: usize,
    /// The bytes of that file.
    pub(crate) bytes: Range<usize>,
}

impl FileRange {
    /// The bytes of the file that are bytes `range` of the tensor, cut at the end of its data.
    pub(crate) fn part(&self, range: &Range<usize>) -> Range<usize> {
        let len = self.bytes.len();
        self.bytes.start + range.start.min(len)..self.bytes.start + range.end.min(len)
    }
}
