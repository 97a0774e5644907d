//! One attention layer of either kind, behind one `forward`.

use tl_kernels::{Linear, Pool};

use crate::checks;
use crate::error::Error;
use crate::gqa::{GqaAttention, GqaScratch};
use crate::inner::InnerProjection;
use crate::kv_cache::{CacheError, CacheShape, CacheType, CompressedMlaCache, check_shape};
use crate::mla::{MlaAttention, MlaScratch};
use crate::project::Projector;
use crate::segments::Sequences;

/// The attention of one layer.
#[derive(Debug)]
pub enum Attention {
    /// Multi-head latent attention: GLM-4.7-Flash, DeepSeek-V2.
    Mla(MlaAttention),
    /// Grouped-query attention: GLM-4.5 and others of its family.
    Gqa(GqaAttention),
}

/// Buffers of [`Attention::forward`], reused by every layer and step.
///
/// They grow to the largest batch seen; once they have grown, a forward pass allocates nothing.
#[derive(Debug, Default)]
pub struct AttentionScratch {
    mla: MlaScratch,
    gqa: GqaScratch,
}

impl AttentionScratch {
    /// Empty buffers; the first forward pass sizes them.
    #[must_use]
    pub fn new() -> AttentionScratch {
        AttentionScratch::default()
    }
}

impl Attention {
    /// Width of the residual stream.
    #[must_use]
    pub fn hidden(&self) -> usize {
        match self {
            Attention::Mla(mla) => mla.config().hidden,
            Attention::Gqa(gqa) => gqa.config().hidden,
        }
    }

    /// All matrices, so that the caller can pack their weights in another layout.
    pub fn linears_mut(&mut self) -> Vec<&mut Linear> {
        match self {
            Attention::Mla(mla) => mla.linears_mut(),
            Attention::Gqa(gqa) => gqa.linears_mut(),
        }
    }

    /// The shape of the layer's cache: the values stored per position.
    #[must_use]
    pub fn cache_shape(&self) -> CacheShape {
        match self {
            Attention::Mla(mla) => mla.cache_shape(),
            Attention::Gqa(gqa) => gqa.cache_shape(),
        }
    }

    /// A cache for this layer alone with room for `n_ctx` positions.
    ///
    /// # Errors
    /// As [`CompressedMlaCache::new`].
    pub fn new_cache(&self, n_ctx: usize, ty: CacheType) -> Result<CompressedMlaCache, CacheError> {
        CompressedMlaCache::new([self.cache_shape()], n_ctx, ty)
    }

    /// Length of a projection's input; `None` for a projection that the attention does not have.
    #[must_use]
    pub fn input_width(&self, projection: InnerProjection) -> Option<usize> {
        match self {
            Attention::Mla(mla) => mla.input_width(projection),
            Attention::Gqa(gqa) => gqa.input_width(projection),
        }
    }

    /// Writes the input `[input_width]` that token `t` of the last forward pass with `scratch` gave to a projection. For
    /// matrices that read F32 activations.
    ///
    /// # Panics
    /// When the attention has no such projection, the pass no such token, or `out` another length.
    pub fn write_input(&self, projection: InnerProjection, scratch: &AttentionScratch, t: usize, out: &mut [f32]) {
        match self {
            Attention::Mla(mla) => mla.write_input(projection, &scratch.mla, t, out),
            Attention::Gqa(gqa) => gqa.write_input(projection, &scratch.gqa, t, out),
        }
    }

    /// Attends from each token of `x` to all positions of its own sequence up to its own, and appends the tokens to the
    /// caches of their sequences.
    ///
    /// `x` `[n, hidden]` is already normed; `out` `[n, hidden]` is overwritten (the caller adds the residual). The bits
    /// of a token's row depend neither on the tokens that share the call nor on the pool.
    ///
    /// # Errors
    /// [`Error::BufferLength`], [`CacheError::Full`] or [`CacheError::Mismatch`]; no cache has changed then.
    ///
    /// # Panics
    /// When a segment names a cache that does not exist, or does not begin at the end of its cache.
    pub fn forward(
        &self,
        pool: &Pool,
        x: &[f32],
        sequences: &mut Sequences<'_>,
        scratch: &mut AttentionScratch,
        out: &mut [f32],
    ) -> Result<(), Error> {
        self.forward_with(Projector::new(pool, None), x, sequences, scratch, out)
    }

    /// As [`Attention::forward`], with the additions of an adapter.
    ///
    /// # Errors
    /// As [`Attention::forward`].
    ///
    /// # Panics
    /// When an addition has another shape than its projection.
    pub fn forward_with(
        &self,
        projector: Projector<'_>,
        x: &[f32],
        sequences: &mut Sequences<'_>,
        scratch: &mut AttentionScratch,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let n = checks::tokens(x, out, self.hidden())?;
        self.check(n, sequences)?;
        if n == 0 {
            return Ok(());
        }
        match self {
            Attention::Mla(mla) => mla.forward(projector, x, sequences, &mut scratch.mla, out)?,
            Attention::Gqa(gqa) => gqa.forward(projector, x, sequences, &mut scratch.gqa, out)?,
        }
        Ok(())
    }

    /// Refuses sequences that do not have `n` rows, that lack room, or whose caches are not for this layer.
    fn check(&self, n: usize, sequences: &Sequences<'_>) -> Result<(), Error> {
        let Sequences { segments, caches, layer } = sequences;
        if segments.n_rows() != n {
            let expected = segments.n_rows() * self.hidden();
            return Err(Error::BufferLength { name: "x", expected, got: n * self.hidden() });
        }
        for segment in segments.list().iter().filter(|segment| segment.n > 0) {
            let cache = &caches[segment.cache];
            check_shape(self.cache_shape(), cache.layout().shape(*layer)?)?;
            if cache.cache_type() != caches[0].cache_type() {
                let [expected, got] = [&caches[0], cache].map(|cache| format!("type {}", cache.cache_type()));
                return Err(CacheError::Mismatch { expected, got }.into());
            }
            cache.check_room(segment.n)?;
            assert_eq!(segment.first_position, cache.layer_len(*layer), "a segment continues its sequence");
        }
        Ok(())
    }
}
