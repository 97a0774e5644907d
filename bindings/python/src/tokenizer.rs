//! The tokenizer of a model.

use std::sync::Arc;

use moe_runtime::{ControlTokens, Tokenizer};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::failed;

/// Text to tokens and back.
#[pyclass(frozen, module = "craftsman_ultra._native")]
pub(crate) struct NativeTokenizer(pub(crate) Arc<Tokenizer>);

#[pymethods]
impl NativeTokenizer {
    fn encode(&self, py: Python<'_>, text: &str, parse_special: bool) -> PyResult<Vec<u32>> {
        py.detach(|| self.0.encode(text, parse_special)).map_err(failed)
    }

    fn decode(&self, py: Python<'_>, tokens: Vec<u32>, show_special: bool) -> String {
        py.detach(|| self.0.decode(&tokens, if show_special { ControlTokens::Show } else { ControlTokens::Hide }))
    }

    /// The bytes of a token, shown or not.
    fn piece<'py>(&self, py: Python<'py>, token: u32) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.piece(token))
    }

    /// The tokens before raw text.
    fn raw_prefix(&self) -> Vec<u32> {
        self.0.raw_prefix()
    }

    fn token_to_id(&self, text: &str) -> Option<u32> {
        self.0.token_to_id(text)
    }

    fn token_text(&self, token: u32) -> Option<&str> {
        self.0.token_text(token)
    }

    #[getter]
    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }

    #[getter]
    fn stop_tokens(&self) -> Vec<u32> {
        self.0.stop_ids().to_vec()
    }

    #[getter]
    fn bos(&self) -> Option<u32> {
        self.0.special_ids().bos
    }

    #[getter]
    fn eos(&self) -> Option<u32> {
        self.0.special_ids().eos
    }

    #[getter]
    fn chat_template(&self) -> Option<&str> {
        self.0.chat_template()
    }
}
