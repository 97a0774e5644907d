//! A whole model: embedding, layers, final norm, head.
//!
//! **Invariant:** weights are immutable after loading; any number of sessions share one model.

use std::path::Path;
use std::sync::Arc;

use gguf_bitnet::Catalog;
use mla_attention::CacheShape;
use tl_kernels::{ActMode, KernelSelected, KernelSelector, Linear, Pool, SelectorOptions};

use crate::error::Result;
use crate::forward::layer::DecoderLayer;
use crate::load::files::ModelFiles;
use crate::load::weights::WeightReader;
use crate::models::config::ModelConfig;
use crate::models::tensors::expected_tensors;

/// How a model is loaded and run.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Activations of ternary, Q8_0 and Q6_K matrices; [`ActMode::F32`] for reference runs.
    pub act_mode: ActMode,
    /// Threads.
    pub pool: Arc<Pool>,
    /// How kernels are chosen.
    pub kernels: SelectorOptions,
}

impl Default for LoadOptions {
    /// INT8 activations by block, one thread, the default kernels.
    fn default() -> LoadOptions {
        LoadOptions {
            act_mode: ActMode::default(),
            pool: Arc::new(Pool::serial()),
            kernels: SelectorOptions::default(),
        }
    }
}

/// A model ready to run.
#[derive(Debug)]
pub struct CraftsmanModel {
    config: ModelConfig,
    /// `[vocab, hidden]`.
    embedding: Linear,
    layers: Vec<DecoderLayer>,
    /// `[hidden]`.
    final_norm: Vec<f32>,
    /// `[vocab, hidden]`; `None` when the embedding serves as the head.
    head: Option<Linear>,
    pool: Arc<Pool>,
    kernels: Vec<KernelSelected>,
}

impl CraftsmanModel {
    /// Loads a checkpoint directory or a GGUF. Weights stay mapped where a kernel reads their type as it is.
    ///
    /// ```
    /// use moe_runtime::{CraftsmanModel, LoadOptions};
    /// let model = CraftsmanModel::load(&fixtures::path("goldens/glm-tiny"), &LoadOptions::default())?;
    /// assert_eq!(model.layers().len(), 2);
    /// # Ok::<(), moe_runtime::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`ModelFiles::open`] and [`CraftsmanModel::from_catalog`].
    pub fn load(path: &Path, options: &LoadOptions) -> Result<CraftsmanModel> {
        CraftsmanModel::from_files(&ModelFiles::open(path)?, options)
    }

    /// As [`CraftsmanModel::load`], for files that are open already.
    ///
    /// # Errors
    /// As [`CraftsmanModel::from_catalog`].
    pub fn from_files(files: &ModelFiles, options: &LoadOptions) -> Result<CraftsmanModel> {
        let model = CraftsmanModel::from_catalog(files.config.clone(), &files.catalog, options)
            .map_err(|error| error.in_model(files.path()))?;
        tracing::info!(
            name: "ModelLoaded",
            path = %files.path().display(),
            arch = model.config.arch.hf_name(),
            layers = model.config.n_layers,
            vocab = model.config.vocab,
            threads = model.pool.threads(),
            "ModelLoaded"
        );
        Ok(model)
    }

    /// Loads the model that `config` describes from tensors under canonical names.
    ///
    /// # Errors
    /// The first tensor that is missing, unexpected (leaving out a bias would change the results), of another shape,
    /// damaged or not finite.
    pub fn from_catalog(config: ModelConfig, catalog: &Catalog, options: &LoadOptions) -> Result<CraftsmanModel> {
        config.validate()?;
        gguf_bitnet::validate(catalog, &expected_tensors(&config)).ensure_exact()?;
        let kernels = KernelSelector::new(options.kernels.clone());
        let reader = WeightReader::new(catalog, options.act_mode, &kernels);
        let (vocab, hidden) = (config.vocab, config.hidden);
        let layers = (0..config.n_layers).map(|l| DecoderLayer::read(reader, &config, l));
        Ok(CraftsmanModel {
            embedding: reader.matrix("token_embd.weight", vocab, hidden)?,
            layers: layers.collect::<Result<_>>()?,
            final_norm: reader.vector("output_norm.weight", hidden)?,
            head: reader.optional_matrix(config.head, "output.weight", vocab, hidden)?,
            pool: options.pool.clone(),
            kernels: kernels.choices(),
            config,
        })
    }

    /// What the model is.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The layers in order.
    #[must_use]
    pub fn layers(&self) -> &[DecoderLayer] {
        &self.layers
    }

    /// The layers, to attach residency hooks.
    pub fn layers_mut(&mut self) -> &mut [DecoderLayer] {
        &mut self.layers
    }

    /// The kernel of each type of weights, and what its self-test said.
    #[must_use]
    pub fn kernels(&self) -> &[KernelSelected] {
        &self.kernels
    }

    /// The threads it runs on.
    #[must_use]
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The embedding, `[vocab, hidden]`.
    #[must_use]
    pub fn embedding(&self) -> &Linear {
        &self.embedding
    }

    /// The weight of the final norm, `[hidden]`.
    #[must_use]
    pub fn final_norm(&self) -> &[f32] {
        &self.final_norm
    }

    /// The head, `[vocab, hidden]`; the embedding itself in tied models.
    #[must_use]
    pub fn head(&self) -> &Linear {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Whether the embedding serves as the head.
    #[must_use]
    pub fn head_is_tied(&self) -> bool {
        self.head.is_none()
    }

    /// What each layer stores per position.
    pub fn cache_shapes(&self) -> impl Iterator<Item = CacheShape> + '_ {
        self.layers.iter().map(DecoderLayer::cache_shape)
    }
}
