//! A loaded model.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use mla_attention::CacheType;
use moe_runtime::{
    ChatTemplate, CraftsmanBackend, CraftsmanModel, Error, LoadOptions, MemoryPlan, ModelFiles, Session,
};
use pyo3::prelude::*;

use crate::ask::{Ask, PyAsk, rendered};
use crate::errors::{closed, failed, locked, usage};
use crate::loaded::Loaded;
use crate::options::{act, kv, locate, placement, pool};
use crate::session::NativeSession;
use crate::tokenizer::NativeTokenizer;
use crate::worker::{run_job, run_or_leave};

/// How a model is opened.
#[derive(Clone, Debug, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct OpenArgs {
    path: PathBuf,
    threads: Option<usize>,
    memory: Option<u64>,
    layout: String,
    act: Option<String>,
    n_ctx: Option<usize>,
    allow_zero: bool,
}

/// A loaded model; see `Model` in Python.
#[pyclass(frozen, module = "craftsman_ultra._native")]
pub(crate) struct NativeModel {
    path: PathBuf,
    loaded: Mutex<Option<Arc<Loaded>>>,
}

#[pymethods]
impl NativeModel {
    #[new]
    fn open(py: Python<'_>, args: OpenArgs) -> PyResult<NativeModel> {
        let path = locate(&args.path)?;
        let placement = placement(&args.layout)?;
        let act_mode = args.act.as_deref().map(act).transpose()?;
        let pool = pool(args.threads)?;
        let file = path.clone();
        let load = move || -> Result<Loaded, Error> {
            let files = ModelFiles::open(&file)?;
            let tokenizer = files.tokenizer()?;
            let n_ctx = args.n_ctx.unwrap_or_else(|| files.config.default_context());
            let plan = MemoryPlan::of_context(&files, n_ctx, CacheType::F16, Session::DEFAULT_CHUNK)?;
            args.memory.map_or(Ok(()), |allowed| plan.check(allowed))?;
            let options = LoadOptions {
                act_mode,
                pool,
                storage: placement.storage(&files, &plan, args.memory),
                allow_zero: args.allow_zero,
                ..LoadOptions::default()
            };
            let sampling = files.sampling()?;
            let template = ChatTemplate::of_model(&tokenizer)?;
            let model = Arc::new(CraftsmanModel::from_files(&files, &options)?);
            let tokenizer = Arc::new(tokenizer);
            Ok(Loaded { files, model, tokenizer, template, sampling, n_ctx, identity: Mutex::default() })
        };
        let loaded = run_or_leave(py, load)?.map_err(failed)?;
        Ok(NativeModel { path, loaded: Mutex::new(Some(Arc::new(loaded))) })
    }

    #[getter]
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    #[getter]
    fn closed(&self) -> bool {
        locked(&self.loaded).is_none()
    }

    /// The name of the architecture in `config.json`.
    #[getter]
    fn architecture(&self) -> PyResult<&'static str> {
        Ok(self.loaded()?.model.config().arch.hf_name())
    }

    /// Layers, hidden width and vocabulary.
    #[getter]
    fn shape(&self) -> PyResult<(usize, usize, usize)> {
        let loaded = self.loaded()?;
        let config = loaded.model.config();
        Ok((config.n_layers, config.hidden, config.vocab))
    }

    /// The context that a session gets by default, and the one that the model was made for.
    #[getter]
    fn contexts(&self) -> PyResult<(usize, usize)> {
        let loaded = self.loaded()?;
        Ok((loaded.n_ctx, loaded.model.config().n_ctx))
    }

    #[getter]
    fn threads(&self) -> PyResult<usize> {
        Ok(self.loaded()?.model.pool().threads())
    }

    fn tokenizer(&self) -> PyResult<NativeTokenizer> {
        Ok(NativeTokenizer(self.loaded()?.tokenizer.clone()))
    }

    /// The identity of the files in hexadecimal; reads them the first time.
    #[pyo3(signature = (on_progress = None))]
    fn identity(&self, py: Python<'_>, on_progress: Option<Py<PyAny>>) -> PyResult<String> {
        let loaded = self.loaded()?;
        let work = move |reporter: &crate::worker::Reporter| {
            loaded.identity(&mut |done, total| reporter.tell("identifying the model", done, total))
        };
        let identity = run_job(py, on_progress.as_ref(), work)?.map_err(failed)?;
        Ok(identity.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The text of the prompt of a conversation.
    fn render(&self, py: Python<'_>, ask: PyAsk) -> PyResult<String> {
        let loaded = self.loaded()?;
        match ask.read()? {
            Ask::Chat(request) => {
                let rendered = py.detach(|| rendered(&loaded, &request).map(|prompt| prompt.text().to_owned()));
                rendered.map_err(failed)
            }
            _ => Err(usage("only messages are rendered; give a list of messages")),
        }
    }

    fn session(&self, n_ctx: Option<usize>, kv_name: &str) -> PyResult<NativeSession> {
        let loaded = self.loaded()?;
        let session = Session::new(loaded.model.clone(), n_ctx.unwrap_or(loaded.n_ctx), kv(kv_name)?);
        let backend = CraftsmanBackend::new(session.map_err(failed)?, loaded.tokenizer.clone());
        Ok(NativeSession::new(loaded, backend))
    }

    /// Gives the memory back; sessions keep theirs until they are closed.
    fn close(&self) {
        drop(locked(&self.loaded).take());
    }
}

impl NativeModel {
    fn loaded(&self) -> PyResult<Arc<Loaded>> {
        locked(&self.loaded).clone().ok_or_else(|| closed("model"))
    }
}
