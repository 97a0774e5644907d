//! A loaded model.

use std::sync::{Arc, Mutex};

use mla_attention::CacheType;
use moe_runtime::{
    ChatTemplate, ControlTokens, CraftsmanBackend, CraftsmanModel, LoadOptions, MemoryPlan, ModelFiles, Session,
};
use napi::bindgen_prelude::AsyncTask;
use napi::{Env, Result, Task};
use napi_derive::napi;

use crate::loaded::Loaded;
use crate::options::{NativeLoadOptions, failed, locked, usage};
use crate::sequence::NativeSequence;

/// The facts of a model.
#[napi(object)]
pub struct NativeFacts {
    /// The name of the architecture in `config.json`.
    pub architecture: String,
    /// Decoder layers, dense and sparse ones together.
    pub layers: u32,
    /// Width of the hidden states.
    pub hidden: u32,
    /// Number of logits of a position.
    pub vocabulary: u32,
    /// Tokens of the context that the model was made for.
    pub train_context_size: u32,
}

/// A model in memory, until it is disposed of.
#[napi]
pub struct NativeModel {
    loaded: Mutex<Option<Arc<Loaded>>>,
}

/// Loads a model on a thread of libuv.
pub struct LoadTask(NativeLoadOptions);

impl Task for LoadTask {
    type Output = Loaded;
    type JsValue = NativeModel;

    fn compute(&mut self) -> Result<Loaded> {
        let options = &self.0;
        let files = ModelFiles::open(&options.path()?).map_err(failed)?;
        let tokenizer = Arc::new(files.tokenizer().map_err(failed)?);
        let n_ctx = options.context_size.map_or(files.config.default_context(), |size| size as usize);
        let memory = options.memory()?;
        let plan = MemoryPlan::of_context(&files, n_ctx, CacheType::F16, Session::DEFAULT_CHUNK).map_err(failed)?;
        memory.map_or(Ok(()), |allowed| plan.check(allowed)).map_err(failed)?;
        let load = LoadOptions {
            pool: options.pool()?,
            storage: options.placement()?.storage(&files, &plan, memory),
            allow_zero: options.allow_zero.unwrap_or(false),
            ..LoadOptions::default()
        };
        let sampling = files.sampling().map_err(failed)?;
        let template = ChatTemplate::of_model(&tokenizer).map_err(failed)?;
        let model = Arc::new(CraftsmanModel::from_files(&files, &load).map_err(failed)?);
        Ok(Loaded { model, tokenizer, template, sampling, n_ctx })
    }

    fn resolve(&mut self, _env: Env, loaded: Loaded) -> Result<NativeModel> {
        Ok(NativeModel { loaded: Mutex::new(Some(Arc::new(loaded))) })
    }
}

/// Opens the files, checks them against the memory, and loads their weights.
#[napi]
pub fn load_native_model(options: NativeLoadOptions) -> AsyncTask<LoadTask> {
    AsyncTask::new(LoadTask(options))
}

#[napi]
impl NativeModel {
    /// The facts of the model.
    #[napi]
    pub fn facts(&self) -> Result<NativeFacts> {
        let loaded = self.loaded()?;
        let config = loaded.model.config();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(NativeFacts {
            architecture: config.arch.hf_name().to_owned(),
            layers: number(config.n_layers),
            hidden: number(config.hidden),
            vocabulary: number(config.vocab),
            train_context_size: number(config.n_ctx),
        })
    }

    /// The tokens of a text.
    #[napi]
    pub fn tokenize(&self, text: String, special: bool) -> Result<Vec<u32>> {
        self.loaded()?.tokenizer.encode(&text, special).map_err(failed)
    }

    /// The text of tokens.
    #[napi]
    pub fn detokenize(&self, tokens: Vec<u32>, special: bool) -> Result<String> {
        let shown = if special { ControlTokens::Show } else { ControlTokens::Hide };
        Ok(self.loaded()?.tokenizer.decode(&tokens, shown))
    }

    /// A new sequence with room for this many tokens.
    #[napi]
    pub fn sequence(&self, context_size: Option<u32>) -> Result<NativeSequence> {
        let loaded = self.loaded()?;
        let n_ctx = context_size.map_or(loaded.n_ctx, |size| size as usize);
        let session = Session::new(loaded.model.clone(), n_ctx, CacheType::F16).map_err(failed)?;
        let backend = CraftsmanBackend::new(session, loaded.tokenizer.clone());
        Ok(NativeSequence::new(loaded, backend))
    }

    /// Gives the memory back; sequences keep theirs until they are disposed of.
    #[napi]
    pub fn dispose(&self) {
        drop(locked(&self.loaded).take());
    }
}

impl NativeModel {
    fn loaded(&self) -> Result<Arc<Loaded>> {
        locked(&self.loaded).clone().ok_or_else(|| usage("the model is disposed of; load it again"))
    }
}
