//! The tensors of one layer of the student, in memory, as the loader of a model reads them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gguf_bitnet::{Catalog, SourceError, TensorInfo, TensorSource};
use moe_runtime::forward::DecoderLayer;
use moe_runtime::models::{ModelConfig, mapper};
use ternary_core::{ActMode, Bytes};

use crate::error::Result;

/// Named tensors with their stored bytes.
pub(crate) struct LayerTensors {
    infos: Vec<TensorInfo>,
    bytes: Vec<Bytes>,
    path: PathBuf,
}

impl LayerTensors {
    /// Tensors under the names of a GGUF; `path` is what messages call them by.
    pub(crate) fn new(tensors: impl IntoIterator<Item = (TensorInfo, Vec<u8>)>, path: &Path) -> Self {
        let (infos, bytes) = tensors.into_iter().map(|(info, bytes)| (info, Bytes::from(bytes))).unzip();
        Self { infos, bytes, path: path.to_owned() }
    }

    /// The tensors as the loader of the model finds them.
    pub(crate) fn catalog(self, config: &ModelConfig) -> Result<Catalog> {
        Ok(mapper(config).map(Arc::new(self))?)
    }

    /// Loads layer `index` of the model from these tensors.
    pub(super) fn load(self, config: &ModelConfig, index: usize) -> Result<DecoderLayer> {
        Ok(DecoderLayer::load(&self.catalog(config)?, config, index, ActMode::F32)?)
    }
}

impl TensorSource for LayerTensors {
    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        self.infos.iter().position(|info| info.name == name)
    }

    fn bytes(&self, index: usize) -> gguf_bitnet::Result<Bytes> {
        self.bytes.get(index).cloned().ok_or(SourceError::NoTensor { index, n_tensors: self.infos.len() }.into())
    }

    fn release(&self, _index: usize) {}

    fn prefetch(&self, _index: usize) {}

    fn path(&self) -> &Path {
        &self.path
    }
}
