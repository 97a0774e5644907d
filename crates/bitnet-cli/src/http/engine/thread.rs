//! The thread that computes: it loads the model, then runs steps until the queue is closed and empty. Beside it the thread of the
//! encoder, where there is one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::Result;
use moe_runtime::Scheduler;

use super::Engine;
use super::encoder_thread::serve_texts;
use crate::http::app::App;

/// Loads the model: the parts that routes need, and the scheduler that computes.
pub(crate) type Start = Box<dyn FnOnce() -> Result<(Engine, Scheduler)> + Send>;

pub(crate) struct EngineThread {
    handle: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

impl EngineThread {
    /// Starts the thread; `failed` gets the error where the model cannot be loaded, and is dropped when the thread ends.
    pub(crate) fn spawn(
        app: Arc<App>,
        start: Start,
        failed: tokio::sync::oneshot::Sender<anyhow::Error>,
    ) -> Result<EngineThread> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let run = move || match start() {
            Ok((engine, scheduler)) => {
                let engine = Arc::new(engine);
                app.metrics.memory_plan.set(engine.planned_bytes.cast_signed());
                app.observe(&scheduler);
                app.ready(engine.clone());
                std::thread::scope(|scope| {
                    // The scope ends with the encoder's thread, which ends with its queue.
                    let _closing = Closing(&engine, &stopped);
                    if let Some(encoder) = &engine.encoder {
                        let (app, engine, stopped) = (&app, &engine, &stopped);
                        scope.spawn(move || serve_texts(encoder, app, engine, stopped));
                    }
                    compute(&app, &engine, scheduler, &stopped);
                });
                drop(failed);
            }
            Err(error) => {
                // The receiver is gone only where the server ends anyway.
                let _ = failed.send(error);
            }
        };
        let handle = std::thread::Builder::new().name("engine".to_owned()).spawn(run)?;
        Ok(EngineThread { handle, stop })
    }

    /// Ends all jobs behind the present step.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the thread has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

/// Closes the queues when it is dropped. A panic ends what waits in that of the encoder, too.
struct Closing<'a>(&'a Engine, &'a AtomicBool);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.1.store(true, Ordering::Relaxed);
        }
        self.0.close();
    }
}

fn compute(app: &App, engine: &Engine, mut scheduler: Scheduler, stop: &AtomicBool) {
    let queue = scheduler.queue().clone();
    while queue.wait() {
        loop {
            if stop.load(Ordering::Relaxed) {
                scheduler.end_all(engine.now());
            }
            let begun = Instant::now();
            let Some(report) = scheduler.advance(engine.now()) else { break };
            app.metrics.step(&report, begun.elapsed());
            app.observe(&scheduler);
        }
        app.observe(&scheduler);
    }
}
