//! The choice of single tokens, for callers that run the loop themselves.

use std::sync::Mutex;

use moe_runtime::Sampler;
use pyo3::prelude::*;

use crate::errors::{failed, locked};
use crate::options::Sampling;
use crate::session::NativeSession;

/// Chooses tokens by one set of settings; its random numbers go on from call to call.
#[pyclass(frozen, module = "craftsman_ultra._native")]
pub(crate) struct NativeSampler(Mutex<Sampler>);

#[pymethods]
impl NativeSampler {
    #[new]
    fn new(sampling: Sampling) -> PyResult<NativeSampler> {
        let sampler = Sampler::new(sampling.config(moe_runtime::SamplerConfig::default())).map_err(failed)?;
        Ok(NativeSampler(Mutex::new(sampler.with_logit_bias(sampling.logit_bias()).map_err(failed)?)))
    }

    /// The next token after those that a session appended last.
    fn sample(&self, session: &NativeSession) -> PyResult<u32> {
        session.with_logits(|logits| locked(&self.0).sample(logits).map_err(failed))
    }
}
