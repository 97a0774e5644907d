//! The device that is none: the answers in software, at once.

use std::time::Duration;

use super::answer::answer;
use super::client::Link;
use super::codec::{Collector, MAX_BODY_BYTES, coded_bytes, decode, encode};
use super::message::{ANSWER, Request};

/// A coprocessor in software, for machines without one and as the measure of all others.
#[derive(Debug, Default)]
pub struct NullStm32 {
    /// Bytes of answers that were not read yet.
    answers: Vec<u8>,
    /// Bytes of a request that has not ended.
    pending: Vec<u8>,
}

impl NullStm32 {
    /// A device that has no request.
    #[must_use]
    pub fn new() -> NullStm32 {
        NullStm32::default()
    }

    /// Answers every whole request in `bytes`, which follow the bytes of earlier calls.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.pending.extend_from_slice(bytes);
        let end = self.pending.iter().rposition(|&byte| byte == 0).map_or(0, |last| last + 1);
        let whole: Vec<u8> = self.pending.drain(..end).collect();
        // A code without an end is dropped once it is longer than any frame.
        if self.pending.len() > coded_bytes(MAX_BODY_BYTES) {
            self.pending.clear();
        }
        let mut buffer = vec![0; coded_bytes(MAX_BODY_BYTES)];
        let mut collector = Collector::new(&mut buffer);
        let mut answers = Vec::new();
        for byte in whole {
            let Some(code) = collector.push(byte) else { continue };
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
