//! One sequence of tokens over a model: answers, single steps, saved sequences.

use std::sync::{Arc, Mutex};

use moe_runtime::{CraftsmanBackend, Error, InferenceBackend, Interrupt};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::ask::{PyAsk, count};
use crate::errors::{closed, failed, locked, usage};
use crate::loaded::Loaded;
use crate::options::Sampling;
use crate::seat::Seat;
use crate::stream::NativeStream;
use crate::worker::{run, run_or_leave};

/// A sequence over a loaded model; see `Session` in Python.
#[pyclass(frozen, module = "craftsman_ultra._native")]
pub(crate) struct NativeSession {
    loaded: Arc<Loaded>,
    seat: Arc<Seat>,
    /// The logits after the last appended token.
    logits: Arc<Mutex<Vec<f32>>>,
}

impl NativeSession {
    pub(crate) fn new(loaded: Arc<Loaded>, backend: CraftsmanBackend) -> NativeSession {
        NativeSession { loaded, seat: Arc::new(Seat::new(backend)), logits: Arc::default() }
    }

    /// Lends the logits after the last appended token.
    pub(crate) fn with_logits<T>(&self, work: impl FnOnce(&[f32]) -> PyResult<T>) -> PyResult<T> {
        self.seat.check_open()?;
        match &**locked(&self.logits) {
            [] => Err(usage("there are no logits; append tokens first")),
            logits => work(logits),
        }
    }

    /// Runs `work` with the backend. A signal ends it where it looks at its interrupt.
    fn with<T: Send + 'static>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut CraftsmanBackend, &Loaded, &Interrupt) -> Result<T, Error> + Send + 'static,
    ) -> PyResult<T> {
        let interrupt = Interrupt::new();
        let mut taken = self.seat.take(py, &interrupt)?;
        let (loaded, own) = (self.loaded.clone(), interrupt.clone());
        let work = move || taken.backend.as_mut().map(|backend| work(backend, &loaded, &own));
        run(py, &interrupt, work)?.ok_or_else(|| closed("session"))?.map_err(failed)
    }

    /// As [`NativeSession::with`], for work that looks at no interrupt: a signal leaves it to end by itself, and the next
    /// call waits for that.
    fn with_left<T: Send + 'static>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut CraftsmanBackend, &Loaded) -> Result<T, Error> + Send + 'static,
    ) -> PyResult<T> {
        let interrupt = Interrupt::new();
        let mut taken = self.seat.take(py, &interrupt)?;
        let loaded = self.loaded.clone();
        let work = move || taken.backend.as_mut().map(|backend| work(backend, &loaded));
        let made = run_or_leave(py, work).inspect_err(|_| interrupt.raise())?;
        made.ok_or_else(|| closed("session"))?.map_err(failed)
    }
}

#[pymethods]
impl NativeSession {
    /// Takes the backend and answers on a thread of its own.
    fn start(&self, py: Python<'_>, ask: PyAsk, sampling: Sampling) -> PyResult<NativeStream> {
        let interrupt = Interrupt::new();
        let ask = ask.read()?;
        let taken = self.seat.take(py, &interrupt)?;
        locked(&self.logits).clear();
        Ok(NativeStream::start((taken, self.loaded.clone()), ask, sampling, interrupt))
    }

    /// Appends tokens and keeps the logits that follow the last one.
    fn append(&self, py: Python<'_>, tokens: Vec<u32>) -> PyResult<()> {
        let logits = self.logits.clone();
        locked(&logits).clear();
        let is_whole = self.with(py, move |backend, _, interrupt| {
            let Some(row) = backend.append(&tokens, interrupt)? else { return Ok(false) };
            locked(&logits).extend_from_slice(row);
            Ok(true)
        })?;
        // A signal has become its exception by now, so another thread has closed the session.
        if is_whole { Ok(()) } else { Err(closed("session")) }
    }

    /// The logits after the last appended token, as floats of 32 bits.
    fn logits<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.with_logits(|logits| {
            PyBytes::new_with(py, 4 * logits.len(), |bytes| {
                for (bytes, logit) in bytes.chunks_exact_mut(4).zip(logits) {
                    bytes.copy_from_slice(&logit.to_ne_bytes());
                }
                Ok(())
            })
        })
    }

    fn tokens(&self) -> PyResult<Vec<u32>> {
        self.seat.look(|backend| backend.tokens().to_vec())
    }

    fn truncate(&self, len: usize) -> PyResult<()> {
        locked(&self.logits).clear();
        self.seat.look(|backend| backend.truncate(len))
    }

    #[getter]
    fn n_ctx(&self) -> PyResult<usize> {
        self.seat.look(|backend| backend.n_ctx())
    }

    fn count_tokens(&self, py: Python<'_>, ask: PyAsk) -> PyResult<usize> {
        let ask = ask.read()?;
        self.seat.check_open()?;
        py.detach(|| count(&self.loaded, &ask)).map_err(failed)
    }

    /// The mean of the final hidden states of a text.
    fn embed(&self, py: Python<'_>, text: String) -> PyResult<Vec<f32>> {
        locked(&self.logits).clear();
        self.with_left(py, move |backend, _| backend.embed(&text))
    }

    /// The sequence as bytes.
    fn save<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.with_left(py, |backend, loaded| Ok(backend.save(&loaded.identity(&mut |_, _| {})?)))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Replaces the sequence by a saved one.
    fn load(&self, py: Python<'_>, saved: Vec<u8>) -> PyResult<()> {
        locked(&self.logits).clear();
        self.with_left(py, move |backend, loaded| backend.load_saved(&saved, &loaded.identity(&mut |_, _| {})?))
    }

    /// Ends what runs, and gives the memory of the sequence back.
    fn close(&self) {
        self.seat.close();
        locked(&self.logits).clear();
    }
}
