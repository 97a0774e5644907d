//! From opened files to a model ready to run.
//!
//! ```text
//! Catalog ──WeightReader──► layers ──WeightStorage──► mapped, within a memory for experts, or packed ──► CraftsmanModel
//! ```
//!
//! **Invariant:** weights are packed here, before the model exists: a model never changes its layout.

use std::path::Path;
use std::sync::Arc;

use gguf_bitnet::{Catalog, GgufFile, Weightless};
use ternary_core::ActMode;
use tl_kernels::{KernelSelector, Pool, SelectorOptions};

use crate::error::Result;
use crate::forward::ends::ModelEnds;
use crate::forward::layer::DecoderLayer;
use crate::forward::model::{CraftsmanModel, ModelWeights, Products};
use crate::forward::mtp::MtpBlock;
use crate::load::files::ModelFiles;
use crate::load::weights::WeightReader;
use crate::models::config::ModelConfig;
use crate::models::tensors::expected_tensors;
use crate::storage::expert_memory::{ExpertMemory, ExpertMemoryOptions};
use crate::storage::packing::Packer;
use crate::storage::weight_storage::{StorageReport, WeightStorage};

/// How a model is loaded and run.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Activations of ternary, Q8_0 and Q6_K matrices; [`ActMode::F32`] for reference runs. `None` for those that the model
    /// was trained with ([`ModelConfig::trained_act`]), and INT8 by block where its files do not tell of any.
    pub act_mode: Option<ActMode>,
    /// Whether trits with one scale and activations rounded per token multiply in floating point, in the order in which the
    /// model was trained: 4 bytes per weight, slow, and equal to the original in all but the last bits. For measurements.
    pub float_products: bool,
    /// The threads that compute.
    pub pool: Arc<Pool>,
    /// How kernels are chosen.
    pub kernels: SelectorOptions,
    /// Where weights lie in memory.
    pub storage: WeightStorage,
    /// Whether a model may be loaded although weights are missing: matrices of zeros, or a file whose end was never
    /// written. [`Weightless::find`] lists them.
    pub allow_zero: bool,
}

impl Default for LoadOptions {
    /// The model's own activations or INT8 by block, one thread, the default kernels, weights in the mapped file, none of them missing.
    fn default() -> LoadOptions {
        LoadOptions {
            act_mode: None,
            float_products: false,
            pool: Arc::new(Pool::serial()),
            kernels: SelectorOptions::default(),
            storage: WeightStorage::default(),
            allow_zero: false,
        }
    }
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
        CraftsmanModel::from_files_with_progress(files, options, &mut |_, _| {})
    }

    /// As [`CraftsmanModel::from_files`]; `progress` gets the bytes written and their total while a file of tiles is made.
    ///
    /// # Errors
    /// As [`CraftsmanModel::from_catalog`].
    pub fn from_files_with_progress(
        files: &ModelFiles,
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<CraftsmanModel> {
        let model = load_model(files.config.clone(), &files.catalog, files.gguf(), options, progress)
            .map_err(|error| error.in_model(files.path()))?;
        tracing::info!(
            name: "ModelLoaded",
            path = %files.path().display(),
            arch = model.config().arch.hf_name(),
            layers = model.config().n_layers,
            vocab = model.config().vocab,
            threads = model.pool().threads(),
            "ModelLoaded"
        );
        Ok(model)
    }

    /// Loads the model that `config` describes from tensors under canonical names.
    ///
    /// # Errors
    /// The first tensor that is missing, unexpected (leaving out a bias would change the results), of another shape,
    /// without weights (unless [`LoadOptions::allow_zero`]), damaged or not finite; no memory for packed weights.
    pub fn from_catalog(config: ModelConfig, catalog: &Catalog, options: &LoadOptions) -> Result<CraftsmanModel> {
        load_model(config, catalog, None, options, &mut |_, _| {})
    }
}

fn load_model(
    config: ModelConfig,
    catalog: &Catalog,
    file: Option<&GgufFile>,
    options: &LoadOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<CraftsmanModel> {
    config.validate()?;
    gguf_bitnet::validate(catalog, &expected_tensors(&config)).ensure_exact()?;
    if !options.allow_zero {
        Weightless::find(catalog)?.refuse(catalog.source().path())?;
    }
    let kernels = KernelSelector::new(options.kernels.clone());
    let act_mode = options.act_mode.or(config.trained_act).unwrap_or_default();
    let reader = WeightReader::new(catalog, act_mode, &kernels).with_float_products(options.float_products);
    let layers = (0..config.n_layers).map(|l| DecoderLayer::read(reader, &config, l));
    let products = Products { activations: act_mode, float: options.float_products };
    let mut weights = ModelWeights {
        products,
        ends: ModelEnds::read(reader, &config)?,
        layers: layers.collect::<Result<_>>()?,
        mtp: config.reads_mtp.then(|| MtpBlock::read(reader, &config)).transpose()?,
    };
    let storage = match &options.storage {
        WeightStorage::File => StorageReport::File,
        WeightStorage::Experts(experts) => bound_experts(&mut weights.layers, &config, catalog, experts),
        WeightStorage::Tiles(tiles) => {
            let growth_bytes = tiles.growth_bytes;
            let mut packer = Packer { layers: &mut weights.layers, catalog, pool: &options.pool, growth_bytes };
            let (packed, cache) = match &tiles.cache {
                None => (packer.pack()?, None),
                Some(path) => packer.pack_cached(path, file, progress).map(|(packed, cache)| (packed, Some(cache)))?,
            };
            StorageReport::Tiles { packed, cache }
        }
    };
    Ok(CraftsmanModel::new(config, weights, options.pool.clone(), kernels.choices(), storage))
}

/// Keeps the routed experts of `layers` within their memory, unless all fit.
fn bound_experts(
    layers: &mut [DecoderLayer],
    config: &ModelConfig,
    catalog: &Catalog,
    options: &ExpertMemoryOptions,
) -> StorageReport {
    let Some(memory) = ExpertMemory::of_model(config, catalog, options) else { return StorageReport::File };
    let memory = Arc::new(memory);
    layers.iter_mut().for_each(|layer| layer.set_residency_hook(&memory.hook()));
    StorageReport::Experts(memory)
}
