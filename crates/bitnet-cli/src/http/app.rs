//! The state that all requests share.

use std::sync::{Arc, OnceLock};

use super::engine::Engine;
use super::failure::Failure;
use super::metrics::Metrics;
use super::settings::Settings;

/// The settings, the metrics, and the model once it is loaded.
pub(crate) struct App {
    pub(crate) settings: Settings,
    pub(crate) metrics: Metrics,
    engine: OnceLock<Arc<Engine>>,
}

impl App {
    pub(crate) fn new(settings: Settings) -> App {
        let metrics = Metrics::new(settings.vllm_names);
        App { settings, metrics, engine: OnceLock::new() }
    }

    /// The model.
    ///
    /// # Errors
    /// [`Failure::loading`] before [`App::ready`].
    pub(crate) fn engine(&self) -> Result<&Arc<Engine>, Failure> {
        self.engine.get().ok_or_else(Failure::loading)
    }

    /// Takes requests for this model from now on.
    pub(crate) fn ready(&self, engine: Arc<Engine>) {
        // A second model has no caller.
        let _ = self.engine.set(engine);
    }
}
