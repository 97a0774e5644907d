//! The rows of a batch by sequence.
//!
//! ```text
//! rows       0  1  2  3  4  5  6  7
//! segments   a  b  b  b  b  b  c  d      a decoded token, a chunk of a prompt, two more tokens
//! ```
//!
//! **Invariant**: segments cover the rows in order and without a gap, and no two of them are of one sequence.

use crate::kv_cache::CompressedMlaCache;

/// The neighbouring rows of one sequence within a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The sequence: an index into the caches of the batch.
    pub cache: usize,
    /// Position of the first row in its sequence: the length of the sequence before the batch.
    pub first_position: usize,
    /// The first row in the batch.
    pub first_row: usize,
    /// How many rows of the batch belong to the sequence.
    pub n: usize,
}

/// The segments of a batch.
#[derive(Clone, Debug, Default)]
pub struct Segments {
    list: Vec<Segment>,
    /// The segment of each row.
    of_row: Vec<u32>,
}

impl Segments {
    /// One segment of `n` rows that continue `cache`, the only sequence of its batch.
    #[must_use]
    pub fn one(cache: &CompressedMlaCache, n: usize) -> Segments {
        let mut segments = Segments::default();
        segments.push(0, cache.len(), n);
        segments
    }

    /// Begins a new batch, without segments.
    pub fn clear(&mut self) {
        self.list.clear();
        self.of_row.clear();
    }

    /// Appends `n` rows of the sequence `cache`, which holds `first_position` positions.
    ///
    /// # Panics
    /// When there are 2^32 segments.
    pub fn push(&mut self, cache: usize, first_position: usize, n: usize) {
        let index = u32::try_from(self.list.len()).expect("a batch has fewer segments than tokens");
        self.list.push(Segment { cache, first_position, first_row: self.of_row.len(), n });
        self.of_row.resize(self.of_row.len() + n, index);
    }

    /// Takes the rows of segment `index` out of the batch; the segment stays, with no rows.
    ///
    /// # Panics
    /// When there is no such segment.
    pub fn remove_rows(&mut self, index: usize) {
        let Segment { first_row, n, .. } = self.list[index];
        self.of_row.drain(first_row..first_row + n);
        self.list[index].n = 0;
        for later in &mut self.list[index + 1..] {
            later.first_row -= n;
        }
    }

    /// The segments in the order of their rows.
    #[must_use]
    pub fn list(&self) -> &[Segment] {
        &self.list
    }

    /// Number of rows of all segments.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.of_row.len()
    }

    /// Position of the batch's first row in its sequence; 0 for a batch without rows.
    #[must_use]
    pub fn first_position(&self) -> usize {
        if self.of_row.is_empty() { 0 } else { self.position(0) }
    }

    /// The segment of `row`.
    pub(crate) fn of_row(&self, row: usize) -> &Segment {
        &self.list[self.of_row[row] as usize]
    }

    /// The position of `row` in its sequence.
    pub(crate) fn position(&self, row: usize) -> usize {
        let segment = self.of_row(row);
        segment.first_position + row - segment.first_row
    }
}

/// The sequences of a batch at one layer.
#[derive(Debug)]
pub struct Sequences<'a> {
    /// The rows of each sequence.
    pub segments: &'a Segments,
    /// The cache of each sequence.
    pub caches: &'a mut [CompressedMlaCache],
    /// The layer within the caches.
    pub layer: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_move_up_when_a_segment_leaves() {
        let mut segments = Segments::default();
        for (cache, first_position, n) in [(2, 10, 1), (0, 0, 4), (1, 7, 2)] {
            segments.push(cache, first_position, n);
        }
        let positions =
            |s: &Segments| (0..s.n_rows()).map(|row| (s.of_row(row).cache, s.position(row))).collect::<Vec<_>>();
        assert_eq!(positions(&segments), [(2, 10), (0, 0), (0, 1), (0, 2), (0, 3), (1, 7), (1, 8)]);
        segments.remove_rows(1);
        assert_eq!(positions(&segments), [(2, 10), (1, 7), (1, 8)]);
        assert_eq!((segments.list()[2].first_row, segments.first_position()), (1, 10));
        segments.remove_rows(0);
        segments.remove_rows(2);
        assert_eq!((segments.n_rows(), segments.list().len(), segments.first_position()), (0, 3, 0));
    }
}
