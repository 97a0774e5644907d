//! Vectors of texts.

use std::ops::ControlFlow;
use std::time::Duration;

use moe_runtime::{Interrupt, Job, JobEvent, JobQueue, Work};
use tokio::sync::oneshot;

use super::order::Caller;
use crate::http::app::App;
use crate::http::engine::Engine;
use crate::http::failure::Failure;

/// Raises an interrupt when it is dropped.
struct Guard(Interrupt);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.raise();
    }
}

/// The queue that texts go through.
#[derive(Clone, Copy)]
pub(crate) struct Way<'a> {
    pub(crate) queue: &'a JobQueue,
    /// Texts of a request that are in the queue at the same time, so that a long list does not fill it.
    pub(crate) at_once: usize,
}

/// The vector of each text, by the thread behind the queue, within the time of a request. Dropping the future cancels what is left.
///
/// # Errors
/// The first text that does not fit, a queue that takes no more, and a request that is ended before its last vector.
pub(crate) async fn vectors(
    app: &App,
    engine: &Engine,
    way: Way<'_>,
    texts: Vec<Vec<u32>>,
    caller: &Caller,
) -> Result<Vec<Vec<f32>>, Failure> {
    let all = all(engine, way, texts, caller);
    tokio::time::timeout(app.settings.request_time, all).await.unwrap_or_else(|_| Err(Failure::cancelled()))
}

async fn all(engine: &Engine, way: Way<'_>, texts: Vec<Vec<u32>>, caller: &Caller) -> Result<Vec<Vec<f32>>, Failure> {
    let interrupt = Interrupt::new();
    let _guard = Guard(interrupt.clone());
    let mut results = Vec::with_capacity(texts.len());
    for texts in texts.chunks(way.at_once) {
        let submit = |text: &Vec<u32>| submit((way.queue, engine.now()), text.clone(), caller, &interrupt);
        let waiting: Vec<_> = texts.iter().map(submit).collect::<Result<_, _>>()?;
        for receiver in waiting {
            let lost = |_| Failure::broken("the engine lost this request: the output of the server has the reason");
            let ended = receiver.await.map_err(lost)?;
            results.push(ended?);
        }
    }
    Ok(results)
}

type Vector = Result<Vec<f32>, Failure>;

fn submit(
    (queue, now): (&JobQueue, Duration),
    prompt: Vec<u32>,
    caller: &Caller,
    interrupt: &Interrupt,
) -> Result<oneshot::Receiver<Vector>, Failure> {
    let (to, from) = oneshot::channel();
    let mut to = Some(to);
    let on_event = move |event: JobEvent<'_>| {
        let result = match event {
            JobEvent::Embedding(vector) => Ok(vector.to_vec()),
            JobEvent::Failed(error) => Err(Failure::from(error)),
            JobEvent::Ended(_) => Err(Failure::cancelled()),
            _ => return ControlFlow::Continue(()),
        };
        // The end follows a vector too; then the sender is gone already.
        let _ = to.take().map(|to| to.send(result));
        ControlFlow::Continue(())
    };
    let job = Job {
        prompt,
        work: Work::Embed,
        priority: caller.priority,
        affinity: caller.affinity.clone(),
        account: caller.account.clone(),
        interrupt: interrupt.clone(),
        on_event: Box::new(on_event),
    };
    queue.submit(job, now)?;
    Ok(from)
}
