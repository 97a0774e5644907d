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

/// How far an answer was read.
///
/// **Invariant:** one reader at a time takes a message, and the end that it brings is kept before the next one looks.
struct Reading {
    messages: Receiver<Message>,
    /// The whole answer; `None` before its end, and for one that failed.
    answer: Option<PartedAnswer>,
    /// Whether the last message was taken.
    ended: bool,
}

/// The result of one look for a message.
enum Found {
    Part(OutputEvent),
    /// No part within a tick.
    Nothing,
    End(Result<(), Error>),
    Panicked,
}

impl Reading {
    /// Waits for the next message, one tick at most.
    fn next(&mut self) -> Found {
        if self.ended {
            return Found::End(Ok(()));
        }
        match self.messages.recv_timeout(TICK) {
            Ok(Message::Part(part)) => Found::Part(part),
            Ok(Message::End(made)) => {
                self.ended = true;
                Found::End(made.map(|answer| self.answer = Some(answer)))
            }
            Err(RecvTimeoutError::Timeout) => Found::Nothing,
            Err(RecvTimeoutError::Disconnected) => {
                self.ended = true;
                Found::Panicked
            }
        }
    }
}

/// An answer that is being made; see `TextStream` in Python. Dropping it ends the answer.
#[pyclass(frozen, module = "craftsman_ultra._native")]
pub(crate) struct NativeStream {
    reading: Mutex<Reading>,
    interrupt: Interrupt,
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
        NativeStream { reading: Mutex::new(Reading { messages, answer: None, ended: false }), interrupt }
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
            return match py.detach(|| locked(&self.reading).next()) {
                Found::Part(OutputEvent::Reasoning(text)) => Ok(Some(("reasoning", text, String::new()))),
                Found::Part(OutputEvent::Content(text)) => Ok(Some(("content", text, String::new()))),
                Found::Part(OutputEvent::Call(ToolCall { name, arguments, .. })) => Ok(Some(("call", name, arguments))),
                Found::End(made) => made.map(|()| None).map_err(failed),
                Found::Panicked => Err(panicked()),
                Found::Nothing => {
                    py.check_signals()?;
                    continue;
                }
            };
        }
    }

    /// The whole answer, behind the last part.
    fn answer<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        // Another thread may wait for a part with the lock.
        let (answer, ended) = py.detach(|| {
            let reading = locked(&self.reading);
            (reading.answer.clone(), reading.ended)
        });
        let Some(answer) = &answer else {
            return Err(match ended {
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
        facts.set_item("reason", answer.reason_name())?;
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
            let mut reading = locked(&self.reading);
            // The end is the last message. Its failure is that of an answer which the caller gives up.
            while !reading.ended {
                let _ = reading.next();
            }
        });
    }
}
