//! The device that is none: the answers in software, at once.

use std::time::Duration;

use super::answer::answer;
use super::client::Link;
use super::codec::{Collector, MAX_BODY_BYTES, coded_bytes, decode, encode};
use super::message::{ANSWER, Request};

/// A coprocessor in software, for machines without one and as the measure of all others.
#[derive(Debug)]
pub struct NullStm32 {
    /// Bytes of answers that were not read yet.
    answers: Vec<u8>,
    collector: Collector<Box<[u8]>>,
}

impl Default for NullStm32 {
    fn default() -> Self {
        NullStm32::new()
    }
}

impl NullStm32 {
    /// A device that has no request.
    #[must_use]
    pub fn new() -> NullStm32 {
        let buffer = vec![0; coded_bytes(MAX_BODY_BYTES)].into_boxed_slice();
        NullStm32 { answers: Vec::new(), collector: Collector::new(buffer) }
    }

    /// Answers every whole request in `bytes`, which follow the bytes of earlier calls; each answer is the code of a frame.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        for &byte in bytes {
            let Some(code) = self.collector.push(byte) else { continue };
            let Ok(frame) = decode(code) else { continue };
            let Ok(request) = Request::parse(frame.kind, frame.body) else { continue };
            let mut body = vec![0; request.answer_bytes()];
            let mut out = vec![0; coded_bytes(body.len())];
            let coded = answer(&request, &mut body)
                .and_then(|n| encode(frame.kind | ANSWER, frame.sequence, &body[..n], &mut out));
            if let Ok(n) = coded {
                out.truncate(n);
                answers.push(out);
            }
        }
        answers
    }
}

impl Link for NullStm32 {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let answers = self.feed(bytes);
        self.answers.extend(answers.into_iter().flatten());
        Ok(())
    }

    fn receive(&mut self, _until: Duration) -> std::io::Result<Vec<u8>> {
        Ok(std::mem::take(&mut self.answers))
    }
}
