//! The student with its trained values, as the runtime loads it: the file's tensors, the trained ones encoded again in memory.
//!
//! **Invariant:** the tensors have the bytes that the student's file would get if the run ended now.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use gguf_bitnet::{Scales, TensorInfo, TensorSource};
use moe_runtime::models::mapper;
use moe_runtime::{CraftsmanModel, LoadOptions};
use ternary_core::Bytes;
use tl_kernels::Pool;

use crate::error::Result;
use crate::train::{TrainModel, encode, places};

/// A file some of whose tensors have other bytes.
struct Overlay {
    file: Arc<dyn TensorSource>,
    replaced: HashMap<usize, Bytes>,
}

/// Loads the student as it is after its last step.
pub(super) fn load(model: &TrainModel<'_>, pool: &Pool, options: &LoadOptions) -> Result<Arc<CraftsmanModel>> {
    let files = model.files();
    let file = files.catalog.source().clone();
    let mut replaced = HashMap::new();
    for (index, place) in places(files, &model.weights)?.into_iter().enumerate() {
        if let Some(tensor) = place {
            let mut bytes = file.bytes(index)?.to_vec();
            encode(pool, &model.weights, tensor, file.tensors()[index].ty, 0..tensor.rows(), &mut bytes)?;
            replaced.insert(index, Bytes::from(bytes));
        }
    }
    let catalog = mapper(&files.config).map(Arc::new(Overlay { file, replaced }))?;
    Ok(Arc::new(CraftsmanModel::from_catalog(files.config.clone(), &catalog, options)?))
}

impl TensorSource for Overlay {
    fn tensors(&self) -> &[TensorInfo] {
        self.file.tensors()
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        self.file.index_of(name)
    }

    fn bytes(&self, index: usize) -> gguf_bitnet::Result<Bytes> {
        self.replaced.get(&index).map_or_else(|| self.file.bytes(index), |bytes| Ok(bytes.clone()))
    }

    fn release(&self, index: usize) {
        self.file.release(index);
    }

    fn prefetch(&self, index: usize) {
        self.file.prefetch(index);
    }

    fn release_range(&self, index: usize, range: Range<usize>) {
        self.file.release_range(index, range);
    }

    fn prefetch_range(&self, index: usize, range: Range<usize>) {
        self.file.prefetch_range(index, range);
    }

    fn scales(&self, index: usize) -> Option<Scales> {
        self.file.scales(index)
    }

    fn trit_scale(&self, index: usize) -> gguf_bitnet::Result<Option<f32>> {
        self.file.trit_scale(index)
    }

    fn path(&self) -> &Path {
        self.file.path()
    }
}
