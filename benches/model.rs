//! A model of full width and few layers, made once for all benchmarks of a run.
//!
//! Three layers (the dense one and two of 64 experts) with the types of `phase2`: 1.6 GB in a temporary directory.

use std::path::PathBuf;

use moe_runtime::{ModelFiles, SplitMix64};
use rlm_refine::synth::{self, Shape};
use rlm_refine::{Preset, Recipe};
use tempfile::TempDir;
use tl_kernels::Pool;

/// Layers of the model.
pub const LAYERS: usize = 3;

/// A model file that is deleted when this value is dropped.
#[derive(Debug)]
pub struct SyntheticModel {
    dir: TempDir,
}

impl SyntheticModel {
    /// Writes the file.
    ///
    /// # Panics
    /// If the temporary directory lacks the room.
    #[must_use]
    pub fn full_width() -> SyntheticModel {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let model = SyntheticModel { dir };
        let shape = Shape::open("glm-4.7-flash", Some(LAYERS)).expect("a known shape");
        let recipe = Recipe { preset: Preset::Phase2, ..Recipe::default() };
        let written = synth::SyntheticModel { shape, seed: 0, tokenizer: None }.write_gguf(
            &recipe,
            &Pool::serial(),
            &model.path(),
            false,
            &mut |_, _| {},
        );
        written.expect("room for 1.6 GB in the temporary directory");
        model
    }

    /// The path of the model file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("model.gguf")
    }

    /// Opens the model file.
    ///
    /// # Panics
    /// If the file cannot be opened although this program has written it.
    #[must_use]
    pub fn open(&self) -> ModelFiles {
        ModelFiles::open(&self.path()).expect("a file of our own")
    }
}

/// Random tokens, so that no model can predict them.
#[must_use]
pub fn tokens(n: usize, vocab: usize) -> Vec<u32> {
    let mut rng = SplitMix64::new(0);
    (0..n).map(|_| u32::try_from(rng.next_u64() % vocab as u64).unwrap_or(0)).collect()
}
