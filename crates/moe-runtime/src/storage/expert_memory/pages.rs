//! Experts as pages of the mapped file.

use std::sync::Arc;

use gguf_bitnet::{Catalog, TensorSource};

use super::prefetch::{ExpertKey, Prefetcher};

/// Reads the pages of experts ahead, and gives them back to the system.
pub(super) struct FilePages {
    source: Arc<dyn TensorSource>,
    /// By layer: the three stacked tensors, each cut into its experts.
    layers: Vec<Vec<Stack>>,
}

/// Where the experts of one stacked tensor lie: expert e at `spans[e]` of the stored tensor.
struct Stack {
    spans: Vec<(usize, std::ops::Range<usize>)>,
}

impl FilePages {
    /// Finds the routed experts of layers `0..n_layers`.
    #[must_use]
    pub(super) fn new(catalog: &Catalog, n_layers: usize) -> FilePages {
        let stack = |layer: usize, name: &str| {
            let tensor = catalog.find(&format!("blk.{layer}.ffn_{name}_exps.weight"))?;
            let spans = (0..tensor.outer()).map(|expert| catalog.matrix_span(tensor, expert));
            spans.collect::<Option<Vec<_>>>().map(|spans| Stack { spans })
        };
        let layers = (0..n_layers)
            .map(|layer| ["gate", "up", "down"].iter().filter_map(|name| stack(layer, name)).collect())
            .collect();
        FilePages { source: catalog.source().clone(), layers }
    }

    /// Number of experts found.
    #[must_use]
    pub(super) fn n_experts(&self) -> usize {
        self.layers.iter().map(|stacks| stacks.first().map_or(0, |stack| stack.spans.len())).sum()
    }

    /// Bytes of the largest expert.
    #[must_use]
    pub(super) fn largest_bytes(&self) -> u64 {
        let of_layer = |stacks: &Vec<Stack>| {
            let bytes = |stack: &Stack| stack.spans.iter().map(|(_, span)| span.len() as u64).max().unwrap_or(0);
            stacks.iter().map(bytes).sum::<u64>()
        };
        self.layers.iter().map(of_layer).max().unwrap_or(0)
    }

    fn for_each(&self, key: ExpertKey, f: impl Fn(usize, std::ops::Range<usize>)) {
        for stack in self.layers.get(key.layer).into_iter().flatten() {
            if let Some((tensor, span)) = stack.spans.get(key.expert) {
                f(*tensor, span.clone());
            }
        }
    }
}

impl Prefetcher for FilePages {
    fn load(&self, expert: ExpertKey) {
        self.for_each(expert, |tensor, span| self.source.prefetch_range(tensor, span));
    }

    fn release(&self, expert: ExpertKey) {
        self.for_each(expert, |tensor, span| self.source.release_range(tensor, span));
    }
}

impl std::fmt::Debug for FilePages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilePages").field("layers", &self.layers.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::files::ModelFiles;

    /// In a file with stacked experts, and in a checkpoint with a tensor for each of them.
    #[test]
    fn the_pages_of_an_expert_are_those_of_its_matrices() {
        for (name, layer) in [("goldens/ternary-forward/model.gguf", 1), ("goldens/glm-tiny", 1)] {
            let files = ModelFiles::open(&fixtures::path(name)).expect("the model opens");
            let pages = FilePages::new(&files.catalog, files.config.n_layers);
            let n_experts = files.config.moe.as_ref().expect("experts").router.n_experts;
            assert_eq!(pages.n_experts() % n_experts, 0);
            let mut bytes = 0;
            for (name, stack) in ["gate", "up", "down"].iter().zip(&pages.layers[layer]) {
                let name = format!("blk.{layer}.ffn_{name}_exps.weight");
                let tensor = files.catalog.find(&name).expect("the experts exist");
                for (expert, (index, span)) in stack.spans.iter().enumerate() {
                    let matrix = files.catalog.matrix(tensor, expert).expect("the matrix exists");
                    let stored = files.catalog.source().bytes(*index).expect("the tensor exists");
                    assert_eq!(stored[span.clone()].as_ptr(), matrix.bytes.as_ptr(), "{name} [{expert}]");
                    assert_eq!(span.len(), matrix.bytes.len(), "{name} [{expert}]");
                }
                bytes += stack.spans[0].1.len() as u64;
            }
            assert!(bytes > 0 && pages.largest_bytes() == bytes);
            // Hints about experts that do not exist are ignored.
            pages.load(ExpertKey { layer: 99, expert: 0 });
            pages.release(ExpertKey { layer, expert: 99 });
        }
    }
}
