//! Vectors of texts.

use std::ops::ControlFlow;
use std::sync::Arc;

use moe_runtime::{Interrupt, Job, JobEvent, Work};
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

/// The mean of the final hidden states of each text, `[texts][hidden]`, within the time of a request. Dropping the future
/// cancels what is left.
///
/// # Errors
/// The first text that does not fit, a queue that takes no more, and a request that is ended before its last vector.
pub(crate) async fn vectors(
    app: &App,
    engine: &Arc<Engine>,
    texts: Vec<Vec<u32>>,
    caller: &Caller,
) -> Result<Vec<Vec<f32>>, Failure> {
    let all = all(engine, texts, caller);
    tokio::time::timeout(app.settings.request_time, all).await.unwrap_or_else(|_| Err(Failure::cancelled()))
}

async fn all(engine: &Arc<Engine>, texts: Vec<Vec<u32>>, caller: &Caller) -> Result<Vec<Vec<f32>>, Failure> {
    let interrupt = Interrupt::new();
    let _guard = Guard(interrupt.clone());
    let mut results = Vec::with_capacity(texts.len());
    // As many at once as there are slots: a long list does not fill the queue.
    for texts in texts.chunks(engine.slots) {
        let waiting: Vec<_> =
            texts.iter().map(|text| submit(engine, text.clone(), caller, &interrupt)).collect::<Result<_, _>>()?;
        for receiver in waiting {
            let ended = receiver.await.map_err(|_| Failure::broken("the engine stopped: restart the server"))?;
            results.push(ended?);
        }
    }
    Ok(results)
}

type Vector = Result<Vec<f32>, Failure>;

fn submit(
    engine: &Arc<Engine>,
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
    engine.queue.submit(job, engine.now())?;
    Ok(from)
}
