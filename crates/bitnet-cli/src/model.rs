//! What the verbs that run a model share: where it is, how it is loaded, on how many threads.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use anyhow::{Error, Result, anyhow};
use clap::{Args, ValueEnum};
use mla_attention::{CacheError, CacheType};
use moe_runtime::models::ModelConfig;
use moe_runtime::storage::{CachePolicy, ExpertMemoryOptions};
use moe_runtime::{ChatTemplate, CraftsmanModel, LoadOptions, ModelFiles, Tokenizer};
use tl_kernels::{ActMode, HardwareCaps, KernelKind, KernelSelected, Pool, SelectorOptions, TrialCache};

use crate::{output, size};

/// Activations of ternary, Q8_0 and Q6_K layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Act {
    /// Not quantised: for reference runs.
    F32,
    /// INT8, one scale per token and 256 values.
    A8Block,
    /// INT8, one scale per token.
    A8Token,
}

impl From<Act> for ActMode {
    fn from(act: Act) -> Self {
        match act {
            Act::F32 => ActMode::F32,
            Act::A8Block => ActMode::A8Block,
            Act::A8Token => ActMode::A8Token,
        }
    }
}

/// Numbers in the key/value cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kv {
    /// Half precision.
    F16,
    /// Single precision: for reference runs.
    F32,
    /// INT8 latents with F16 rotary keys, for models with latent attention: little more than half the memory of f16.
    I8,
}

impl Kv {
    /// The type of a model's cache.
    ///
    /// # Errors
    /// For a type that the model has no cache of.
    pub(crate) fn cache_type(self, config: &ModelConfig) -> Result<CacheType> {
        let (ty, shape) = (CacheType::from(self), config.cache_shape());
        if shape.bytes_per_token(ty) == 0 {
            return Err(CacheError::Type { ty, shape: shape.to_string() }.into());
        }
        Ok(ty)
    }
}

impl From<Kv> for CacheType {
    fn from(kv: Kv) -> Self {
        match kv {
            Kv::F16 => CacheType::F16,
            Kv::F32 => CacheType::F32,
            Kv::I8 => CacheType::I8,
        }
    }
}

/// Number of threads.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Threads {
    /// Threads (default: as many as there are physical cores)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

impl Threads {
    /// Starts the threads.
    pub(crate) fn pool(self) -> Result<Arc<Pool>> {
        let threads = self.threads.map_or_else(|| HardwareCaps::detect().default_threads(), usize::from);
        Ok(Arc::new(Pool::new(threads)?))
    }
}

/// The path of a model: a directory, a GGUF, or a name in the local Hugging Face cache.
pub(crate) fn locate(spec: &str) -> Result<PathBuf> {
    let cache = std::env::var_os("HF_HOME").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME").or_else(|| std::env::var_os("USERPROFILE"))?;
        Some(PathBuf::from(home).join(".cache").join("huggingface"))
    });
    Ok(gguf_bitnet::resolve_model(spec, cache.as_deref())?)
}

/// Memory for experts, when the file is larger than it should take.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Experts {
    /// Memory that routed experts may take, for example 4GB; others are read from the file again when needed
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    expert_memory: Option<u64>,
    /// Which expert makes room
    #[arg(long, value_enum, default_value = "lru", requires = "expert_memory")]
    expert_policy: Policy,
    /// Experts of the next layer to load ahead, by prediction
    #[arg(long, value_name = "N", default_value_t = 0, requires = "expert_memory")]
    expert_ahead: u8,
    /// Load ahead at random instead: what a prediction has to beat
    #[arg(long, hide = true, value_name = "SEED", requires = "expert_ahead")]
    expert_ahead_shuffled: Option<u64>,
}

impl Experts {
    /// Whether experts may be dropped from memory.
    pub(crate) fn are_bounded(self) -> bool {
        self.expert_memory.is_some()
    }

    /// Bytes that routed experts may take, where that was said.
    pub(crate) fn memory(self) -> Option<u64> {
        self.expert_memory
    }

    /// The memory for experts and its use, where experts are bounded.
    pub(crate) fn options(self) -> Option<ExpertMemoryOptions> {
        let policy = match self.expert_policy {
            Policy::Lru => CachePolicy::Lru,
            Policy::Lfu => CachePolicy::Lfu,
            Policy::Adaptive => CachePolicy::Adaptive,
        };
        let (ahead, shuffled) = (usize::from(self.expert_ahead), self.expert_ahead_shuffled);
        Some(ExpertMemoryOptions { bytes: self.expert_memory?, policy, ahead, shuffled })
    }
}

/// Which expert makes room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Policy {
    /// The least recently used
    Lru,
    /// The least frequently used
    Lfu,
    /// Whichever of the two has lately erred less
    Adaptive,
}

/// Opens a model without reading weights.
pub(crate) fn open(spec: &str) -> Result<ModelFiles> {
    Ok(ModelFiles::open(&locate(spec)?)?)
}

/// Loads an opened model.
pub(crate) fn load(files: &ModelFiles, act: Act, pool: Arc<Pool>) -> Result<Arc<CraftsmanModel>> {
    Ok(Arc::new(load_tested(files, &options(files, act, None, pool), &mut |_, _| {})?))
}

/// Loads an opened model, and warns of kernels that failed their self-test.
pub(crate) fn load_tested(
    files: &ModelFiles,
    options: &LoadOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<CraftsmanModel> {
    let model = CraftsmanModel::from_files_with_progress(files, options, progress)?;
    model.kernels().iter().filter_map(refusal).for_each(output::note);
    Ok(model)
}

/// How an opened model is loaded: kernels are chosen by a trial that is remembered in the user's cache directory.
pub(crate) fn options(files: &ModelFiles, act: Act, kernel: Option<KernelKind>, pool: Arc<Pool>) -> LoadOptions {
    let kernels = SelectorOptions { kernel, trial: true, cache: trial_cache(files) };
    LoadOptions { act_mode: act.into(), pool, kernels, ..LoadOptions::default() }
}

/// What a person should know about a kernel that failed its self-test.
pub(crate) fn refusal(choice: &KernelSelected) -> Option<String> {
    let reason = choice.refused.first()?;
    let KernelSelected { weights, kernel, isa, .. } = choice;
    Some(format!(
        "warning: a kernel failed its self-test ({reason}); {weights} runs on the {isa} {kernel} kernel instead. Results \
         are right, speed is lost: please report the output of `bitnet doctor --model FILE`"
    ))
}

/// The file that remembers the trials of this model, as it is now.
fn trial_cache(files: &ModelFiles) -> Option<TrialCache> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
    let path = files.path().canonicalize().ok()?;
    let facts = path.metadata().ok()?;
    let modified = facts.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos();
    let model = format!("{} {} {modified}", path.display(), facts.len());
    // One file per place, so that a model that is made again replaces its own answers.
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    let name = format!("{:016x}.txt", hasher.finish());
    Some(TrialCache { path: cache.join("bitnet").join("kernels").join(name), model })
}

/// Compiles a model's chat template, which may name its begin and end tokens.
pub(crate) fn chat_template(source: &str, tokenizer: &Tokenizer) -> Result<ChatTemplate> {
    let ids = tokenizer.special_ids();
    let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id)).unwrap_or_default();
    Ok(ChatTemplate::from_source(source)?.with_tokens(text(ids.bos), text(ids.eos)))
}

/// The reason behind logits that are no numbers: the tensor that made them so, where the file is to blame. Reads the
/// whole model.
pub(crate) fn blame(files: &ModelFiles) -> Option<Error> {
    let metadata = files.gguf().map(|file| file.metadata());
    let report = gguf_bitnet::verify_source(&**files.catalog.source(), metadata, &mut |_, _| {}).ok()?;
    let defect = report.defects.first()?;
    Some(anyhow!("{}: {defect}: make or download it again", files.path().display()))
}

/// Reads a text file, or standard input when the name is `-`.
pub(crate) fn read_text(path: &str) -> Result<String> {
    let (name, text) = match path {
        "-" => ("standard input", std::io::read_to_string(std::io::stdin())),
        path => (path, std::fs::read_to_string(path)),
    };
    text.map_err(|error| match error.kind() {
        ErrorKind::InvalidData => anyhow!("{name} is not UTF-8 text: convert it first"),
        _ => anyhow!("cannot read {name}: {error}"),
    })
}
