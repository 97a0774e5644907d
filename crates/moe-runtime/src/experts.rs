//! The experts of one layer and the order in which their outputs are added.
//!
//! A batch is sorted by expert, so that an expert's weights are read once for all tokens that chose it. For each token,
//! outputs are added in ascending expert id, `y = fma(weight, output, y)` from 0, and the shared expert comes last.
//!
//! **Invariant:** experts are views of the file's stacked tensors (or of one tensor per expert); nothing is copied.
//!
//! **Invariant:** an expert's codes and scales are checked once, before its first use; a damaged one is never computed
//! with.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tl_kernels::{ActivationBuffer, Pool, dense};

use crate::error::{Error, Result};
use crate::ffn::{FfnScratch, SwiGlu};
use crate::router::RoutingDecision;
use crate::taps::{At, ExpertId, Taps};

/// Called before a batch's experts are read: the layer and the ascending ids of the experts that will be.
pub type ResidencyHook = Arc<dyn Fn(usize, &[u32]) + Send + Sync>;

/// All experts of one layer.
#[derive(Clone)]
pub struct ExpertBank {
    routed: Vec<SwiGlu>,
    shared: Option<SwiGlu>,
    residency: Option<ResidencyHook>,
    /// Which routed experts have been found sound, by id.
    sound: Arc<[AtomicBool]>,
}

impl fmt::Debug for ExpertBank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExpertBank")
            .field("routed", &self.routed.len())
            .field("shared", &self.shared.is_some())
            .field("residency", &self.residency.is_some())
            .finish()
    }
}

/// Buffers of [`ExpertBank::forward`], reused from batch to batch.
#[derive(Debug, Default)]
pub struct ExpertScratch {
    /// Where each expert's tokens start in `tokens`; `[n_experts + 1]`.
    starts: Vec<u32>,
    /// Tokens and weights sorted by expert, tokens ascending within; `[n * top_k]`.
    tokens: Vec<u32>,
    weights: Vec<f32>,
    /// Ascending ids of the experts that have tokens.
    active: Vec<u32>,
    all: Vec<u32>,
    rows: ActivationBuffer,
    ffn: FfnScratch,
    /// `[n, hidden]`.
    out: Vec<f32>,
}

impl ExpertBank {
    /// A bank of routed experts and perhaps a shared one.
    #[must_use]
    pub fn new(routed: Vec<SwiGlu>, shared: Option<SwiGlu>) -> ExpertBank {
        let sound = routed.iter().map(|_| AtomicBool::new(false)).collect();
        ExpertBank { routed, shared, residency: None, sound }
    }

    /// The routed experts by id.
    #[must_use]
    pub fn routed(&self) -> &[SwiGlu] {
        &self.routed
    }

    /// The shared expert.
    #[must_use]
    pub fn shared(&self) -> Option<&SwiGlu> {
        self.shared.as_ref()
    }

    /// Lets `hook` know before experts are read.
    pub fn set_residency(&mut self, hook: Option<ResidencyHook>) {
        self.residency = hook;
    }

    /// Writes the weighted sum of each token's experts plus the shared expert to `y` `[n, hidden]`.
    ///
    /// # Errors
    /// [`Error::Routing`] when `decision` names an expert that does not exist or covers another number of tokens,
    /// [`Error::Weight`] for an expert with damaged codes or scales.
    ///
    /// # Panics
    /// When `y` is not `[n, hidden]`.
    #[expect(clippy::too_many_arguments, reason = "batch, buffers and observers belong to different owners")]
    pub fn forward<T: Taps>(
        &self,
        pool: &Pool,
        at: At,
        x: &mut ActivationBuffer,
        decision: &RoutingDecision,
        scratch: &mut ExpertScratch,
        y: &mut [f32],
        taps: &mut T,
    ) -> Result<()> {
        let (n, hidden) = (x.n(), x.cols());
        assert_eq!(y.len(), n * hidden, "the output must be [n, hidden]");
        scratch.sort(decision, n, self.routed.len())?;
        if let Some(hook) = &self.residency {
            hook(at.layer, &scratch.active);
        }
        self.ensure_sound(pool, at.layer, &scratch.active)?;
        y.fill(0.0);
        for i in 0..scratch.active.len() {
            let ExpertScratch { starts, tokens, weights, active, rows, ffn, out, .. } = scratch;
            let e = active[i] as usize;
            let span = starts[e] as usize..starts[e + 1] as usize;
            let (tokens, weights) = (&tokens[span.clone()], &weights[span]);
            let id = ExpertId::Routed(e);
            out.resize(tokens.len() * hidden, 0.0);
            // All tokens in their order, each once: the batch itself, whose quantised form is shared.
            let rows = if tokens.len() == n && tokens.iter().zip(0u32..).all(|(&t, i)| t == i) {
                &mut *x
            } else {
                rows.fill(tokens.len(), hidden, |i, row| row.copy_from_slice(x.row(tokens[i] as usize)));
                rows
            };
            taps.expert_in(at, id, tokens, rows);
            self.routed[e].forward(pool, rows, ffn, out, |h| taps.expert_hidden(at, id, tokens, h));
            taps.expert_out(at, id, tokens, out);
            for ((&t, &weight), out) in tokens.iter().zip(weights).zip(out.chunks_exact(hidden)) {
                dense::axpy_f32(weight, out, &mut y[t as usize * hidden..][..hidden]);
            }
        }
        if let Some(shared) = &self.shared {
            let ExpertScratch { all, ffn, out, .. } = scratch;
            all.clear();
            all.extend(0..u32::try_from(n).unwrap_or(u32::MAX));
            out.resize(n * hidden, 0.0);
            taps.expert_in(at, ExpertId::Shared, all, x);
            shared.forward(pool, x, ffn, out, |h| taps.expert_hidden(at, ExpertId::Shared, all, h));
            taps.expert_out(at, ExpertId::Shared, all, out);
            for (y, out) in y.iter_mut().zip(out) {
                *y += *out;
            }
        }
        Ok(())
    }
}

impl ExpertBank {
    /// Checks those of `experts` that were never used before.
    fn ensure_sound(&self, pool: &Pool, layer: usize, experts: &[u32]) -> Result<()> {
        let known = |e: u32| self.sound[e as usize].load(Ordering::Relaxed);
        if experts.iter().all(|&e| known(e)) {
            return Ok(());
        }
        let first_defect: Mutex<Option<(u32, &str, tl_kernels::Error)>> = Mutex::new(None);
        pool.run(experts.len(), &|i| {
            let e = experts[i];
            if known(e) {
                return;
            }
            match self.routed[e as usize].validate() {
                Ok(()) => self.sound[e as usize].store(true, Ordering::Relaxed),
                Err((name, source)) => {
                    // The lowest id is named, whichever thread came first.
                    let mut first = first_defect.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    if first.as_ref().is_none_or(|(id, ..)| e < *id) {
                        *first = Some((e, name, source));
                    }
                }
            }
        });
        match first_defect.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            None => Ok(()),
            Some((e, name, source)) => {
                Err(Error::Weight { tensor: format!("blk.{layer}.ffn_{name}_exps.weight[{e}]"), source })
            }
        }
    }
}

impl ExpertScratch {
    /// Sorts a decision by expert, in two passes over it.
    fn sort(&mut self, decision: &RoutingDecision, n: usize, n_experts: usize) -> Result<()> {
        let slots = n * decision.top_k;
        if decision.ids.len() != slots || decision.weights.len() != slots {
            return Err(Error::Routing { what: "the number of tokens", got: decision.n(), limit: n });
        }
        self.starts.clear();
        self.starts.resize(n_experts + 1, 0);
        for &id in &decision.ids {
            match self.starts.get_mut((id as usize).saturating_add(1)) {
                Some(count) => *count += 1,
                None => return Err(Error::Routing { what: "an expert", got: id as usize, limit: n_experts }),
            }
        }
        self.active.clear();
        self.active.extend((0u32..).zip(&self.starts[1..]).filter(|(_, count)| **count > 0).map(|(e, _)| e));
        for e in 0..n_experts {
            self.starts[e + 1] += self.starts[e];
        }
        self.tokens.resize(slots, 0);
        self.weights.resize(slots, 0.0);
        for t in (0..n).rev() {
            for (id, weight) in decision.token(t) {
                // Filled from the back: afterwards `starts[e + 1]` has become the start of expert e.
                let slot = &mut self.starts[id as usize + 1];
                *slot -= 1;
                self.tokens[*slot as usize] = u32::try_from(t).unwrap_or(u32::MAX);
                self.weights[*slot as usize] = weight;
            }
        }
        self.starts.rotate_left(1);
        if let Some(end) = self.starts.last_mut() {
            *end = u32::try_from(slots).unwrap_or(u32::MAX);
        }
        Ok(())
    }
}
