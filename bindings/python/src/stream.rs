//! An answer on its way: made on a thread of its own, read part by part.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use moe_runtime::{Error, Interrupt, OutputEvent, PartedAnswer, ToolCall};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::ask::{Ask, answer};
use crate::errors::{closed, failed, locked, usage};
use crate::loaded::Loaded;
use crate::options::Sampling;
use crate::seat::Taken;
use crate::worker::{TICK, panicked};

enum Message {
    Part(OutputEvent),
    End(Box<Result<PartedAnswer, Error>>),
}

/// An answer that is being made; see `TextStream` in Python. Dropping it ends the answer.
#[pyclass(frozen, module = "craftsman_ultra._native")]
pub(crate) struct NativeStream {
    messages: Mutex<Receiver<Message>>,
    interrupt: Interrupt,
    answer: Mutex<Option<PartedAnswer>>,
    /// Whether the last part was read.
    ended: Mutex<bool>,
}

impl NativeStream {
    /// Begins the answer of a taken session.
    pub(crate) fn start(
        (mut taken, loaded): (Taken, Arc<Loaded>),
        ask: Ask,
        sampling: Sampling,
        interrupt: Interrupt,
    ) -> NativeStream {
        let (sender, messages) = channel();
        let own = interrupt.clone();
        thread::spawn(move || {
            let Some(backend) = taken.backend.as_mut() else { return };
            let made = answer(backend, &loaded, (&ask, &sampling), &own, &mut |part| pass_on(&sender, part));
            // The session is free before the reader learns of the end.
            drop(taken);
            // Without a reader the answer is dropped.
            drop(sender.send(Message::End(Box::new(made))));
        });
        NativeStream { messages: Mutex::new(messages), interrupt, answer: Mutex::default(), ended: Mutex::new(false) }
    }
}

/// Hands a part to the reader; without a reader the answer ends.
fn pass_on(sender: &Sender<Message>, part: &OutputEvent) -> ControlFlow<()> {
    match sender.send(Message::Part(part.clone())) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}

impl Drop for NativeStream {
    fn drop(&mut self) {
        self.interrupt.raise();
    }
}

#[pymethods]
impl NativeStream {
    /// The next part as its kind and text, or as the kind `call` with the name and the arguments of a tool; `None` at the
    /// end.
    fn next(&self, py: Python<'_>) -> PyResult<Option<(&'static str, String, String)>> {
        loop {
            if *locked(&self.ended) {
                return Ok(None);
            }
            match py.detach(|| locked(&self.messages).recv_timeout(TICK)) {
                Ok(Message::Part(OutputEvent::Reasoning(text))) => {
                    return Ok(Some(("reasoning", text, String::new())));
                }
                Ok(Message::Part(OutputEvent::Content(text))) => return Ok(Some(("content", text, String::new()))),
                Ok(Message::Part(OutputEvent::Call(ToolCall { name, arguments, .. }))) => {
                    return Ok(Some(("call", name, arguments)));
                }
                Ok(Message::End(made)) => {
                    *locked(&self.ended) = true;
                    *locked(&self.answer) = Some(made.map_err(failed)?);
                    return Ok(None);
                }
                Err(RecvTimeoutError::Timeout) => py.check_signals()?,
                Err(RecvTimeoutError::Disconnected) => {
                    *locked(&self.ended) = true;
                    return Err(panicked());
                }
            }
        }
    }

    /// The whole answer, behind the last part.
    fn answer<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let answer = locked(&self.answer);
        let Some(answer) = &*answer else {
            return Err(match *locked(&self.ended) {
                true => closed("stream"),
                false => usage("the answer has not ended; read the stream to its end first"),
            });
        };
        let (output, statistics) = (&answer.output, &answer.generation.statistics);
        let calls: Vec<(&str, &str)> = output.calls.iter().map(|c| (&*c.name, &*c.arguments)).collect();
        let facts = PyDict::new(py);
        facts.set_item("reasoning", &output.reasoning)?;
        facts.set_item("content", &output.content)?;
        facts.set_item("calls", calls)?;
        facts.set_item("tokens", &answer.generation.tokens)?;
        facts.set_item("reason", answer.generation.reason.name())?;
        facts.set_item("stopped_by", answer.stopped_by)?;
        facts.set_item("prompt_tokens", answer.prompt_tokens)?;
        facts.set_item("computed_tokens", statistics.prompt_tokens)?;
        facts.set_item("prefill_s", statistics.prefill.as_secs_f64())?;
        facts.set_item("decode_s", statistics.decode.as_secs_f64())?;
        Ok(facts)
    }

    /// Ends the answer and waits until its session is free again, which takes two layers of a forward pass at most.
    fn close(&self, py: Python<'_>) {
        self.interrupt.raise();
        py.detach(|| {
            let messages = locked(&self.messages);
            let is_read = *locked(&self.ended);
            // The sender is dropped behind the last message.
            for message in messages.iter().filter(|_| !is_read) {
                if let Message::End(made) = message {
                    *locked(&self.answer) = made.ok();
                }
            }
            *locked(&self.ended) = true;
        });
    }
}
