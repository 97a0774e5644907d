//! Requests to a coprocessor: deadlines, retries, and the software in its place when it does not answer.
//!
//! **Invariant:** every request has an answer when its deadline is over on the clock of its link; in real time the system may wake
//! the process later. A frame with a wrong checksum, of another request, repeated, late or without the form of an answer is
//! dropped, so the answer is that of [`answer`] as far as the device computes it rightly. A device that missed several deadlines is
//! left alone and asked again after a while.

use std::time::Duration;

use super::answer::answer;
use super::codec::{CodecError, Collector, MAX_BODY_BYTES, coded_bytes, decode, encode};
use super::message::{ANSWER, Request};

/// A byte stream to a device, with the clock that its deadlines are measured on.
pub trait Link {
    /// The time since some fixed moment. It never goes back.
    fn now(&self) -> Duration;

    /// Hands bytes to the stream. It does not wait for the device: a stream that is full may drop them.
    ///
    /// # Errors
    /// A stream that is closed.
    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()>;

    /// The bytes that have arrived, in any number, as soon as there are some. No bytes mean that none arrive before `until`: the
    /// call has then waited until this time, or the link knows that nothing is on its way.
    ///
    /// # Errors
    /// A stream that is closed.
    fn receive(&mut self, until: Duration) -> std::io::Result<Vec<u8>>;
}

impl<L: Link + ?Sized> Link for Box<L> {
    fn now(&self) -> Duration {
        (**self).now()
    }

    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        (**self).send(bytes)
    }

    fn receive(&mut self, until: Duration) -> std::io::Result<Vec<u8>> {
        (**self).receive(until)
    }
}

/// When a device is asked again, and when it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffloadPolicy {
    /// Time in which a request must have its answer.
    pub deadline: Duration,
    /// Times that a request is sent within its deadline.
    pub attempts: u32,
    /// Missed deadlines in a row after which the device is left alone ...
    pub give_up_after: u32,
    /// ... for this many requests.
    pub rest_requests: u32,
}

impl Default for OffloadPolicy {
    fn default() -> Self {
        OffloadPolicy { deadline: Duration::from_millis(20), attempts: 3, give_up_after: 3, rest_requests: 100 }
    }
}

/// How often the device answered, and how often the software did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct OffloadCounts {
    pub requests: u64,
    pub by_device: u64,
    pub by_software: u64,
    /// Requests that were sent again.
    pub retries: u64,
    /// Frames that answered nothing that was asked, or had no form of an answer.
    pub stray_frames: u64,
    /// Codes that were no frame. A code longer than any frame is dropped without being counted.
    pub bad_frames: u64,
}

/// An answer and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The body of the answer.
    pub body: Vec<u8>,
    /// Whether the device gave it.
    pub by_device: bool,
}

/// A device behind a link.
#[derive(Debug)]
pub struct Coprocessor<L> {
    link: L,
    policy: OffloadPolicy,
    counts: OffloadCounts,
    sequence: u32,
    missed: u32,
    /// Requests that the device is still left alone for.
    resting: u32,
    collector: Collector<Box<[u8]>>,
}

impl<L: Link> Coprocessor<L> {
    /// A device that was not asked yet. `sequence` is the number before that of the first request: where a line outlives its host, a
    /// number that the host before did not use keeps a late answer to that host from being taken for one to this.
    #[must_use]
    pub fn new(link: L, policy: OffloadPolicy, sequence: u32) -> Coprocessor<L> {
        let counts = OffloadCounts::default();
        let collector = Collector::new(vec![0; coded_bytes(MAX_BODY_BYTES)].into_boxed_slice());
        Coprocessor { link, policy, counts, sequence, missed: 0, resting: 0, collector }
    }

    /// The counts of all requests so far.
    #[must_use]
    pub fn counts(&self) -> OffloadCounts {
        self.counts
    }

    /// The link to the device.
    #[must_use]
    pub fn link(&self) -> &L {
        &self.link
    }

    /// The answer to a request, at the latest when its deadline is over.
    ///
    /// # Errors
    /// [`CodecError::TooLong`] for a request that no frame holds, or for a schedule of too many chunks.
    pub fn ask(&mut self, request: &Request<'_>) -> Result<Reply, CodecError> {
        self.counts.requests += 1;
        self.sequence = self.sequence.wrapping_add(1);
        let mut body = vec![0; MAX_BODY_BYTES];
        let n = request.write(&mut body)?;
        let mut code = vec![0; coded_bytes(n)];
        let coded = encode(request.kind(), self.sequence, &body[..n], &mut code)?;
        code.truncate(coded);
        match self.ask_device(request, &code) {
            Some(body) => {
                self.counts.by_device += 1;
                Ok(Reply { body, by_device: true })
            }
            None => {
                self.counts.by_software += 1;
                let mut body = vec![0; request.answer_bytes()];
                answer(request, &mut body)?;
                Ok(Reply { body, by_device: false })
            }
        }
    }

    /// Sends the code of a request until it is answered; `None` when the deadline is over or the device is left alone.
    fn ask_device(&mut self, request: &Request<'_>, code: &[u8]) -> Option<Vec<u8>> {
        if self.resting > 0 {
            self.resting -= 1;
            return None;
        }
        let start = self.link.now();
        for attempt in 1..=self.policy.attempts {
            self.counts.retries += u64::from(attempt > 1);
            let until = start + self.policy.deadline * attempt / self.policy.attempts;
            if self.link.send(code).is_err() {
                break;
            }
            while let Ok(bytes) = self.link.receive(until) {
                if let Some(body) = self.take(request, &bytes) {
                    self.missed = 0;
                    return Some(body);
                }
                // Garbage without an end must not hold the request beyond its time.
                if bytes.is_empty() || self.link.now() >= until {
                    break;
                }
            }
        }
        self.missed += 1;
        if self.missed >= self.policy.give_up_after {
            (self.missed, self.resting) = (0, self.policy.rest_requests);
        }
        None
    }

    /// Reads frames out of `bytes`; the body of the one that answers the request.
    fn take(&mut self, request: &Request<'_>, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut found = None;
        for &byte in bytes {
            let Some(code) = self.collector.push(byte) else { continue };
            match decode(code) {
                Ok(frame) if frame.sequence == self.sequence && frame.kind == request.kind() | ANSWER => {
                    match has_form_of_answer(request, frame.body) && found.is_none() {
                        true => found = Some(frame.body.to_vec()),
                        false => self.counts.stray_frames += 1,
                    }
                }
                Ok(_) => self.counts.stray_frames += 1,
                Err(_) => self.counts.bad_frames += 1,
            }
        }
        found
    }
}

/// Whether a body can be an answer to a request: it has the right length, a schedule names each place once, and a filter or a gate
/// says 0 or 1. A host that takes the places of a schedule as they come would lose chunks, or index beyond its batch.
fn has_form_of_answer(request: &Request<'_>, body: &[u8]) -> bool {
    body.len() == request.answer_bytes()
        && match request {
            Request::ComputeHash(_) | Request::WatchdogPing(_) => true,
            Request::FilterNeighbors { .. } | Request::GateCheck { .. } => body.iter().all(|byte| *byte <= 1),
            Request::ScheduleReorder(priorities) => {
                let mut is_new = vec![true; priorities.len()];
                let mut places = body.as_chunks::<2>().0.iter().map(|place| usize::from(u16::from_le_bytes(*place)));
                places.all(|place| is_new.get_mut(place).is_some_and(std::mem::take))
            }
        }
}
