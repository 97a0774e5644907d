//! One forward pass over the next tokens of several sequences.
//!
//! ```text
//! sequence 0   its next token            ─┐                       ┌─►  logits of that token
//! sequence 3   64 tokens of its prompt   ─┼─►  one forward pass  ─┼─►  nothing
//! sequence 1   a draft of 4 tokens       ─┘                       └─►  logits of all 4
//! ```
//!
//! Weights are read once for all rows, those of an expert once for all rows that chose it; attention reads the cache of
//! each row's own sequence. Reading weights takes most of the time of a decoded token, so several sequences in one step
//! take less time than one after the other.
//!
//! **Invariant:** the logits of a sequence have the same bits whatever other sequences are in the step, and so do the
//! positions that its cache gets.
//!
//! **Invariant:** after an error, and for an interrupted segment, a cache holds exactly the positions it held before.

use std::ops::Range;
use std::sync::Arc;

use mla_attention::{CompressedMlaCache, Segment};

use crate::adapters::set::AdapterSet;
use crate::error::{Error, Result};
use crate::forward::model::{CraftsmanModel, ForwardScratch};
use crate::forward::rows::StepRows;
use crate::forward::taps::Taps;
use crate::sessions::error::SessionError;
use crate::sessions::interrupt::Interrupt;

/// The rows of a segment whose logits are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Logits {
    /// No row: a chunk of a prompt that more tokens follow.
    #[default]
    None,
    /// The last row: the next token is chosen by it.
    Last,
    /// Every row: a draft is verified by them.
    All,
}

/// The next tokens of one sequence.
#[derive(Clone, Debug)]
pub struct StepSegment<'a> {
    /// The sequence: an index into the caches of the step.
    pub cache: usize,
    /// The tokens that follow those in the cache, at least one.
    pub tokens: &'a [u32],
    /// The rows whose logits are computed.
    pub logits: Logits,
    /// Takes the segment out of the step when it is raised; it is looked at between layers.
    pub interrupt: &'a Interrupt,
}

/// One forward pass over several sequences, with its buffers. They grow to the largest step; then a step allocates nothing.
///
/// ```
/// use std::sync::Arc;
/// use mla_attention::CacheType;
/// use moe_runtime::{CraftsmanModel, Interrupt, LoadOptions, Logits, Step, StepSegment};
///
/// let model = CraftsmanModel::load(&fixtures::path("goldens/glm-tiny"), &LoadOptions::default())?;
/// let mut step = Step::new(Arc::new(model));
/// let mut caches = vec![step.new_cache(64, CacheType::F16)?, step.new_cache(64, CacheType::F16)?];
/// let never = Interrupt::default();
/// for (cache, tokens) in [[1, 2, 3], [4, 5, 6]].iter().enumerate() {
///     step.add(&caches, &StepSegment { cache, tokens, logits: Logits::Last, interrupt: &never })?;
/// }
/// step.run(&mut caches, &mut ())?;
/// assert_eq!((caches[1].len(), step.logits(1).len()), (3, step.model().config().vocab));
/// # Ok::<(), moe_runtime::Error>(())
/// ```
#[derive(Debug)]
pub struct Step {
    model: Arc<CraftsmanModel>,
    rows: StepRows,
    /// The rows whose logits each segment asked for.
    wanted: Vec<Logits>,
    /// The place of each segment's logits among all that were computed.
    places: Vec<Range<usize>>,
    /// The rows of the batch whose logits are computed.
    logit_rows: Vec<usize>,
    scratch: ForwardScratch,
    /// Whether the segments have been computed, so that the next one begins a new step.
    is_done: bool,
}

impl Step {
    /// A step without segments.
    #[must_use]
    pub fn new(model: Arc<CraftsmanModel>) -> Step {
        Step {
            model,
            rows: StepRows::default(),
            wanted: Vec::new(),
            places: Vec::new(),
            logit_rows: Vec::new(),
            scratch: ForwardScratch::default(),
            is_done: false,
        }
    }

    /// The model that computes.
    #[must_use]
    pub fn model(&self) -> &Arc<CraftsmanModel> {
        &self.model
    }

    /// Computes the next steps with these adapters, all sequences of a step alike.
    pub fn set_adapters(&mut self, adapters: Option<Arc<AdapterSet>>) {
        self.scratch.adapters = adapters;
    }

    /// The cache of an empty sequence with room for `n_ctx` tokens.
    ///
    /// # Errors
    /// [`SessionError::ContextTooLong`] beyond the model's own limit, and memory that cannot be had.
    pub fn new_cache(&self, n_ctx: usize, ty: mla_attention::CacheType) -> Result<CompressedMlaCache> {
        let made_for = self.model.config().n_ctx;
        if n_ctx > made_for {
            return Err(Error::Session(SessionError::ContextTooLong { asked: n_ctx, made_for }));
        }
        Ok(CompressedMlaCache::new(self.model.cache_shapes(), n_ctx, ty)?)
    }

    /// Begins a new step, without segments.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.wanted.clear();
        self.places.clear();
        self.logit_rows.clear();
        self.is_done = false;
    }

    /// Adds a segment and returns its number; the first one after [`Step::run`] begins a new step. `caches` are those that
    /// the step will run with.
    ///
    /// # Errors
    /// [`SessionError::NoTokens`], [`SessionError::Token`], [`SessionError::ContextFull`] with both numbers,
    /// [`SessionError::Segment`] for a sequence that does not exist or is part of the step already. The step is then as
    /// before, and may run without this segment.
    pub fn add(&mut self, caches: &[CompressedMlaCache], segment: &StepSegment<'_>) -> Result<usize> {
        if self.is_done {
            self.clear();
        }
        let StepSegment { cache: index, tokens, logits, interrupt } = *segment;
        let is_part = self.rows.segments.list().iter().any(|other| other.cache == index);
        let Some(cache) = caches.get(index).filter(|_| !is_part) else {
            return Err(Error::Session(SessionError::Segment { index, sequences: caches.len() }));
        };
        check_tokens(tokens, self.model.config().vocab)?;
        let (have, need) = (cache.n_ctx(), cache.len().saturating_add(tokens.len()));
        if need > have {
            return Err(Error::Session(SessionError::ContextFull { have, need }));
        }
        self.rows.tokens.extend_from_slice(tokens);
        self.rows.segments.push(index, cache.len(), tokens.len());
        self.rows.interrupts.push(interrupt.clone());
        self.wanted.push(logits);
        Ok(self.wanted.len() - 1)
    }

    /// Computes all segments: their tokens are then part of their caches, and the logits that were asked for are there.
    /// Taps see the rows of all segments in order, and the position of the first one.
    ///
    /// # Errors
    /// The failure of a layer. All caches are then as before the step.
    ///
    /// # Panics
    /// When `caches` are not those that the segments were added for.
    pub fn run<T: Taps>(&mut self, caches: &mut [CompressedMlaCache], taps: &mut T) -> Result<()> {
        self.is_done = true;
        self.places.clear();
        self.logit_rows.clear();
        if let Err(error) = self.model.forward(&mut self.rows, caches, &mut self.scratch, taps) {
            self.rows.take_back(caches);
            return Err(error);
        }
        for (segment, logits) in self.rows.segments.list().iter().zip(&self.wanted) {
            let n = match logits {
                Logits::None => 0,
                Logits::Last => segment.n.min(1),
                Logits::All => segment.n,
            };
            let (end, first) = (segment.first_row + segment.n, self.logit_rows.len());
            self.logit_rows.extend(end - n..end);
            self.places.push(first..self.logit_rows.len());
        }
        if !self.logit_rows.is_empty() {
            self.model.compute_logits(&self.logit_rows, &mut self.scratch);
        }
        Ok(())
    }

    /// How many segments were added, interrupted ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.wanted.len()
    }

    /// Whether there is no segment.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Number of rows of all segments.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.rows.segments.n_rows()
    }

    /// The logits of segment `index` after [`Step::run`], `[rows, vocab]`: of the rows that it asked for, none for an
    /// interrupted one.
    ///
    /// # Panics
    /// When there is no such segment, or the step was not run.
    #[must_use]
    pub fn logits(&self, index: usize) -> &[f32] {
        let (place, vocab) = (&self.places[index], self.model.config().vocab);
        if place.is_empty() { &[] } else { &self.scratch.logits()[place.start * vocab..place.end * vocab] }
    }

    /// The final hidden states of segment `index` after [`Step::run`], `[rows, hidden]`; none for an interrupted one.
    ///
    /// # Panics
    /// When there is no such segment, or the step was not run.
    #[must_use]
    pub fn hidden(&self, index: usize) -> &[f32] {
        let (segment, width) = (self.segment(index), self.model.config().hidden);
        &self.scratch.hidden()[segment.first_row * width..][..segment.n * width]
    }

    /// The first `rows` rows of [`Step::hidden`].
    ///
    /// # Panics
    /// As [`Step::hidden`], and when the segment has fewer rows.
    pub(crate) fn hidden_rows(&self, index: usize, rows: usize) -> &[f32] {
        &self.hidden(index)[..rows * self.model.config().hidden]
    }

    /// Whether segment `index` was interrupted: nothing of it is part of its cache.
    ///
    /// # Panics
    /// When there is no such segment.
    #[must_use]
    pub fn is_interrupted(&self, index: usize) -> bool {
        self.segment(index).n == 0
    }

    fn segment(&self, index: usize) -> &Segment {
        &self.rows.segments.list()[index]
    }

    /// Computes the logits of `rows` of the last batch, which has one segment, `[rows, vocab]`.
    pub(crate) fn logits_of(&mut self, rows: Range<usize>) -> &[f32] {
        self.logit_rows.clear();
        self.logit_rows.extend(rows);
        self.model.compute_logits(&self.logit_rows, &mut self.scratch);
        self.scratch.logits()
    }
}

/// Refuses a list of no tokens, and tokens outside of the vocabulary.
pub(crate) fn check_tokens(tokens: &[u32], vocab: usize) -> Result<()> {
    if tokens.is_empty() {
        return Err(Error::Session(SessionError::NoTokens));
    }
    match tokens.iter().find(|&&t| usize::try_from(t).is_ok_and(|t| t >= vocab)) {
        Some(&token) => Err(Error::Session(SessionError::Token { token, vocab })),
        None => Ok(()),
    }
}
