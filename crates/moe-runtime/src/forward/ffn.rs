//! The gated feed-forward network: `down(norm(act(gate(x)) * up(x)))`, with SiLU or the squared ReLU as `act`, and without
//! the norm in most models.
//!
//! Sources: "GLU variants improve transformer" (arXiv 2002.05202), SwiGLU; `relu2` of Hugging Face transformers.

use tl_kernels::{ActivationBuffer, ColumnBlock, Grid, Linear, Pool, math};

use crate::adapters::layer::{AdaptedRows, FfnAdapter, RankRows};
use crate::error::{Error, Result};
use crate::load::error::LoadError;
use crate::models::config::Activation;
use crate::storage::tile_digests::TileDigests;

/// Three matrices that make one dense feed-forward part, one routed expert or the shared expert.
#[derive(Debug, Clone)]
pub struct SwiGlu {
    gate: Linear,
    up: Linear,
    down: Linear,
    activation: Activation,
    /// The norm of the product, before `down`.
    norm: Option<ProductNorm>,
    /// The digests of the matrices where they are mapped tiles.
    tile_digests: Option<TileDigests>,
}

/// The tokens that a network computes, with threads and additions.
#[derive(Debug)]
pub struct FfnBatch<'a> {
    /// The threads that compute.
    pub pool: &'a Pool,
    /// The input, `[n, hidden]`; the codes that the network reads are added to it.
    pub x: &'a mut ActivationBuffer,
    /// The additions to its matrices, which read the input in F32.
    pub adapter: Option<&'a FfnAdapter>,
}

/// The RMSNorm of a product of gate and up.
#[derive(Debug, Clone)]
struct ProductNorm {
    /// One factor per value of the product, `[ff]`.
    weight: Vec<f32>,
    eps: f32,
}

impl ProductNorm {
    /// Norms every row of `rows` `[n, ff]`; `before` is a buffer.
    fn apply(&self, rows: &mut [f32], before: &mut Vec<f32>) {
        for row in rows.chunks_exact_mut(self.weight.len()) {
            before.clear();
            before.extend_from_slice(row);
            math::rms_norm(before, &self.weight, self.eps, row);
        }
    }
}

/// Buffers of [`SwiGlu::forward`], reused from call to call.
#[derive(Debug, Default)]
pub struct FfnScratch {
    /// `[n, ff]`: `act(gate) * up`, or its norm.
    product: Vec<f32>,
    /// `[ff]`: a row of the product before its norm.
    before: Vec<f32>,
    hidden: ActivationBuffer,
    inner: InnerScratch,
}

/// Buffers of the first half of a network.
#[derive(Debug, Default)]
struct InnerScratch {
    workers: Workers,
    ranks: RankRows,
}

/// One buffer for each thread that works on a list.
#[derive(Debug, Default)]
pub(crate) struct Workers(Vec<Vec<f32>>);

impl Workers {
    /// One buffer of at least `len` values for each thread of `pool`.
    pub(crate) fn sized(&mut self, pool: &Pool, len: usize) -> &mut [Vec<f32>] {
        self.0.resize_with(pool.threads(), Vec::new);
        for buffer in &mut self.0 {
            if buffer.len() < len {
                buffer.resize(len, 0.0);
            }
        }
        &mut self.0
    }
}

impl SwiGlu {
    /// A network of `gate` and `up` `[ff, hidden]` and `down` `[hidden, ff]`.
    ///
    /// # Errors
    /// [`LoadError::Shape`] when the matrices do not fit each other.
    pub fn new(gate: Linear, up: Linear, down: Linear) -> Result<SwiGlu> {
        let network = SwiGlu { gate, up, down, activation: Activation::Silu, norm: None, tile_digests: None };
        network.check()?;
        Ok(network)
    }

    fn check(&self) -> Result<()> {
        let SwiGlu { gate, up, down, norm, .. } = self;
        let (ff, hidden) = (gate.rows(), gate.cols());
        let misfit = |part: &str, expected: Vec<usize>, got: Vec<usize>| {
            Err(Error::Load(LoadError::Shape { tensor: format!("feed-forward {part}"), expected, got }))
        };
        for (name, linear, rows, cols) in [("up", up, ff, hidden), ("down", down, hidden, ff)] {
            if (linear.rows(), linear.cols()) != (rows, cols) {
                return misfit(name, vec![rows, cols], vec![linear.rows(), linear.cols()]);
            }
        }
        match norm {
            Some(norm) if norm.weight.len() != ff => misfit("norm", vec![ff], vec![norm.weight.len()]),
            _ => Ok(()),
        }
    }

    /// The same network with another function on its gate.
    #[must_use]
    pub fn with_activation(self, activation: Activation) -> SwiGlu {
        SwiGlu { activation, ..self }
    }

    /// The same network with an RMSNorm of weight `[ff]` over the product of gate and up.
    ///
    /// # Errors
    /// [`LoadError::Shape`] when the weight does not fit the matrices.
    pub fn with_norm(self, weight: Vec<f32>, eps: f32) -> Result<SwiGlu> {
        let network = SwiGlu { norm: Some(ProductNorm { weight, eps }), ..self };
        network.check()?;
        Ok(network)
    }

    /// Whether the product of gate and up passes through a norm.
    #[must_use]
    pub fn has_norm(&self) -> bool {
        self.norm.is_some()
    }

    /// The same network with other gate and up matrices of the same shapes.
    ///
    /// # Errors
    /// As [`SwiGlu::new`].
    pub fn with_gate_and_up(&self, gate: Linear, up: Linear) -> Result<SwiGlu> {
        self.with_matrices(gate, up, self.down.clone())
    }

    /// The same network with other matrices, which fit each other and its norm.
    ///
    /// # Errors
    /// As [`SwiGlu::new`].
    pub fn with_matrices(&self, gate: Linear, up: Linear, down: Linear) -> Result<SwiGlu> {
        let network = SwiGlu { gate, up, down, tile_digests: None, ..self.clone() };
        network.check()?;
        Ok(network)
    }

    /// The gate matrix, `[ff, hidden]`.
    #[must_use]
    pub fn gate(&self) -> &Linear {
        &self.gate
    }

    /// The up matrix, `[ff, hidden]`.
    #[must_use]
    pub fn up(&self) -> &Linear {
        &self.up
    }

    /// The down matrix, `[hidden, ff]`.
    #[must_use]
    pub fn down(&self) -> &Linear {
        &self.down
    }

    /// Gate, up and down.
    pub(crate) fn linears_mut(&mut self) -> [&mut Linear; 3] {
        [&mut self.gate, &mut self.up, &mut self.down]
    }

    /// Sets the digests that the mapped tiles of the matrices must have; `None` for matrices in the layout of the file.
    pub(crate) fn set_tile_digests(&mut self, digests: Option<TileDigests>) {
        self.tile_digests = digests;
    }

    /// Reads all ternary codes and scales, or mapped tiles in their place. `tensor` gives the name of `gate`, `up` or
    /// `down` in the file.
    ///
    /// # Errors
    /// [`LoadError::Weight`] or [`StorageError::DamagedTiles`](crate::storage::StorageError::DamagedTiles) for the first damaged matrix.
    pub(crate) fn validate(&self, tensor: impl Fn(&str) -> String) -> Result<()> {
        for (i, (name, linear)) in
            [("gate", &self.gate), ("up", &self.up), ("down", &self.down)].into_iter().enumerate()
        {
            let checked = self.tile_digests.as_ref().and_then(|digests| digests.check(i, linear, || tensor(name)));
            checked.unwrap_or_else(|| {
                linear.validate().map_err(|source| Error::Load(LoadError::Weight { tensor: tensor(name), source }))
            })?;
        }
        Ok(())
    }

    /// Writes the output of all rows of the batch `[n, hidden]` to `y` `[n, hidden]`; `on_hidden` gets the
    /// input of `down`, `[n, ff]`.
    ///
    /// # Panics
    /// When the batch or `y` has another width.
    pub fn forward(
        &self,
        batch: FfnBatch<'_>,
        scratch: &mut FfnScratch,
        y: &mut [f32],
        on_hidden: impl FnOnce(&[f32]),
    ) {
        let FfnBatch { pool, adapter, .. } = batch;
        let (n, ff) = (batch.x.n(), self.gate.rows());
        let FfnScratch { product, before, hidden, inner } = scratch;
        product.resize(n * ff, 0.0);
        self.hidden(batch, inner, product);
        if let Some(norm) = &self.norm {
            norm.apply(product, before);
        }
        on_hidden(product);
        hidden.set_in(self.down.act_mode(), product, n, ff);
        self.down.forward(pool, hidden, y);
        if let Some(down) = adapter.and_then(|adapter| adapter.down.as_ref()) {
            pool.chunks_mut(y, down.outputs(), |t, y| down.add_row(&product[t * ff..][..ff], 0..y.len(), y));
        }
    }

    /// Writes the input of `down` for all rows of `x` `[n, hidden]` to `out` `[n, ff]`.
    ///
    /// # Panics
    /// When `x` or `out` has another width.
    pub fn hidden_rows(&self, pool: &Pool, x: &mut ActivationBuffer, out: &mut [f32]) {
        self.hidden(FfnBatch { pool, x, adapter: None }, &mut InnerScratch::default(), out);
        if let Some(norm) = &self.norm {
            norm.apply(out, &mut Vec::new());
        }
    }

    fn hidden(&self, batch: FfnBatch<'_>, scratch: &mut InnerScratch, out: &mut [f32]) {
        let FfnBatch { pool, x, adapter } = batch;
        let InnerScratch { workers, ranks } = scratch;
        let (n, ff) = (x.n(), self.gate.rows());
        x.quantize(self.gate.act_mode());
        x.quantize(self.up.act_mode());
        let (cuts, piece) = ([0, n], self.gate.rows_per_piece(ff, n, pool.threads()));
        let workers = workers.sized(pool, n * piece.min(ff));
        let (list, rows) = (Grid::new(out, ff, &cuts, piece), &*x);
        let additions = adapter.map(|adapter| {
            ranks.make(pool, [n, adapter.input_ranks()], |row, out| RankRows::of_input(adapter, rows.row(row), out));
            AdaptedRows { adapter, ranks, first: 0 }
        });
        pool.chunks_mut(workers, 1, |_, up| {
            while let Some((_, out)) = list.take() {
                self.hidden_block(rows, additions, out, &mut up[0]);
            }
        });
    }

    /// The columns `out.columns()` of `act(gate(x)) * up(x)`, computed on the calling thread: a piece of a work list.
    /// `up` has room for as many values as `out`.
    pub(crate) fn hidden_block(
        &self,
        x: &ActivationBuffer,
        additions: Option<AdaptedRows<'_>>,
        mut out: ColumnBlock<'_, f32>,
        up: &mut [f32],
    ) {
        let (n, columns) = (out.n_rows(), out.columns());
        let width = columns.len();
        let up = &mut up[..n * width];
        self.gate.forward_block(x, out.rows_mut(0..n));
        self.up.forward_block(x, ColumnBlock::whole(up, columns.clone()));
        if let Some(additions) = additions {
            additions.add_gate_and_up(&mut out, &mut ColumnBlock::whole(up, columns));
        }
        for (t, up) in up.chunks_exact(width).enumerate() {
            self.activation.gate(out.row_mut(t), up);
        }
    }
}
