//! The rows of a step: the tokens of one or more sequences.
//!
//! **Invariant:** the bits of a row depend on its own sequence alone. Rows share the reading of weights, and nothing else.

use mla_attention::{CompressedMlaCache, Segments};

use crate::sessions::interrupt::Interrupt;

/// The rows of a step by sequence. Reused from step to step.
#[derive(Debug, Default)]
pub(crate) struct StepRows {
    /// The token of each row.
    pub(crate) tokens: Vec<u32>,
    pub(crate) segments: Segments,
    /// Ends the computation of a segment between two layers; one per segment.
    pub(crate) interrupts: Vec<Interrupt>,
}

impl StepRows {
    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.segments.clear();
        self.interrupts.clear();
    }

    /// Takes the rows of interrupted segments out of the residual stream `x` `[n, width]` and of their caches.
    pub(crate) fn drop_interrupted(&mut self, x: &mut Vec<f32>, width: usize, caches: &mut [CompressedMlaCache]) {
        for (index, interrupt) in self.interrupts.iter().enumerate() {
            let segment = self.segments.list()[index];
            if segment.n > 0 && interrupt.is_raised() {
                x.drain(segment.first_row * width..(segment.first_row + segment.n) * width);
                self.segments.remove_rows(index);
                caches[segment.cache].truncate(segment.first_position);
            }
        }
    }

    /// Cuts all sequences back to their lengths before the step.
    pub(crate) fn take_back(&self, caches: &mut [CompressedMlaCache]) {
        for segment in self.segments.list() {
            caches[segment.cache].truncate(segment.first_position);
        }
    }
}
