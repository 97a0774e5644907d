//! The state that all requests share: settings, metrics, and the model once it is loaded.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use moe_runtime::{Scheduler, SlotStatus};
use tokio::sync::Semaphore;

use super::divergence::Outlines;
use super::engine::Engine;
use super::failure::Failure;
use super::ignored::Ignored;
use super::metrics::Metrics;
use super::settings::Settings;

/// Large bodies that are read at the same time: JSON of many small values takes about 60 times its bytes.
const LARGE_BODIES: usize = 2;

pub(crate) struct App {
    pub(crate) settings: Settings,
    pub(crate) metrics: Arc<Metrics>,
    /// One permit for each large body that may be read at the same time.
    pub(crate) large_bodies: Arc<Semaphore>,
    pub(crate) outlines: Outlines,
    pub(crate) ignored: Ignored,
    /// The slots behind the last step, where `/slots` exists.
    slots: Mutex<Vec<SlotStatus>>,
    engine: OnceLock<Arc<Engine>>,
    is_draining: AtomicBool,
}

impl App {
    pub(crate) fn new(settings: Settings) -> App {
        let metrics = Arc::new(Metrics::new(settings.vllm_names));
        let large_bodies = Arc::new(Semaphore::new(LARGE_BODIES));
        App {
            settings,
            metrics,
            large_bodies,
            outlines: Outlines::default(),
            ignored: Ignored::default(),
            slots: Mutex::default(),
            engine: OnceLock::new(),
            is_draining: AtomicBool::new(false),
        }
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
        // The engine's thread is the only caller, and calls once.
        let _ = self.engine.set(engine);
    }

    /// Takes the state of the scheduler between steps.
    pub(crate) fn observe(&self, scheduler: &Scheduler) {
        self.metrics.idle(scheduler);
        if self.settings.debug_endpoints {
            *self.slots.lock().unwrap_or_else(PoisonError::into_inner) = scheduler.slots().collect();
        }
    }

    /// The slots behind the last step.
    pub(crate) fn slots(&self) -> Vec<SlotStatus> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Refuses new requests from now on; those that wait or run are finished.
    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
        if let Ok(engine) = self.engine() {
            engine.close();
        }
    }

    /// Whether the server ends, so that it takes no new requests.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }
}
