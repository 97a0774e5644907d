//! The gated feed-forward network: `down(silu(gate(x)) * up(x))`.
//!
//! Source: "GLU variants improve transformer" (arXiv 2002.05202), SwiGLU.

use tl_kernels::{ActivationBuffer, Linear, Pool, math};

use crate::error::{Error, Result};

/// Values per task of the elementwise part.
const ELEMENTS_PER_TASK: usize = 4096;

/// Three matrices that make one dense feed-forward part, one routed expert or the shared expert.
#[derive(Debug, Clone)]
pub struct SwiGlu {
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// Buffers of [`SwiGlu::forward`], reused from call to call.
#[derive(Debug, Default)]
pub struct FfnScratch {
    /// `[n, ff]`.
    gate: Vec<f32>,
    /// `[n, ff]`.
    up: Vec<f32>,
    hidden: ActivationBuffer,
}

impl SwiGlu {
    /// A network of `gate` and `up` `[ff, hidden]` and `down` `[hidden, ff]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the matrices do not fit each other.
    pub fn new(gate: Linear, up: Linear, down: Linear) -> Result<SwiGlu> {
        let (ff, hidden) = (gate.rows(), gate.cols());
        for (name, linear, rows, cols) in [("up", &up, ff, hidden), ("down", &down, hidden, ff)] {
            if (linear.rows(), linear.cols()) != (rows, cols) {
                return Err(Error::Shape {
                    tensor: format!("feed-forward {name}"),
                    expected: vec![rows, cols],
                    got: vec![linear.rows(), linear.cols()],
                });
            }
        }
        Ok(SwiGlu { gate, up, down })
    }

    /// `[ff, hidden]`.
    #[must_use]
    pub fn gate(&self) -> &Linear {
        &self.gate
    }

    /// `[ff, hidden]`.
    #[must_use]
    pub fn up(&self) -> &Linear {
        &self.up
    }

    /// `[hidden, ff]`.
    #[must_use]
    pub fn down(&self) -> &Linear {
        &self.down
    }

    /// Reads all ternary codes and scales.
    ///
    /// # Errors
    /// The first damaged matrix as a file names it (`gate`, `up`, `down`), and its defect.
    pub(crate) fn validate(&self) -> std::result::Result<(), (&'static str, tl_kernels::Error)> {
        for (name, linear) in [("gate", &self.gate), ("up", &self.up), ("down", &self.down)] {
            linear.validate().map_err(|source| (name, source))?;
        }
        Ok(())
    }

    /// Writes the output of all rows of `x` `[n, hidden]` to `y` `[n, hidden]`; `on_hidden` sees what `down` reads.
    ///
    /// # Panics
    /// When `x` or `y` has another width.
    pub fn forward(
        &self,
        pool: &Pool,
        x: &mut ActivationBuffer,
        scratch: &mut FfnScratch,
        y: &mut [f32],
        on_hidden: impl FnOnce(&ActivationBuffer),
    ) {
        let (n, ff) = (x.n(), self.gate.rows());
        x.quantize(self.gate.act_mode());
        x.quantize(self.up.act_mode());
        scratch.gate.resize(n * ff, 0.0);
        scratch.up.resize(n * ff, 0.0);
        self.gate.forward(pool, x, &mut scratch.gate);
        self.up.forward(pool, x, &mut scratch.up);
        let up = &scratch.up;
        pool.chunks_mut(&mut scratch.gate, ELEMENTS_PER_TASK, |i, gate| {
            math::swiglu(gate, &up[i * ELEMENTS_PER_TASK..][..gate.len()]);
        });
        scratch.hidden.set(&scratch.gate, n, ff);
        on_hidden(&scratch.hidden);
        scratch.hidden.quantize(self.down.act_mode());
        self.down.forward(pool, &scratch.hidden, y);
    }
}
