//! A coprocessor with faults. The time is that of its caller: a virtual clock, on which nothing waits, or the clock of a real line.
//! The same seed gives the same faults.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::Duration;

use moe_runtime::SplitMix64;

use super::client::Link;
use super::codec::{MAX_BODY_BYTES, coded_bytes};
use super::null::NullStm32;

/// Faults in tenths of a percent of the requests, of the answers, or of both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Answers that arrive later than a deadline.
    pub delay: u64,
    /// Requests and answers that are lost.
    pub drop: u64,
    /// Answers that arrive twice.
    pub duplicate: u64,
    /// Requests and answers of which a bit is another one.
    pub corrupt: u64,
    /// Answers that arrive behind the one to the request that is sent next.
    pub reorder: u64,
    /// Requests that the device ignores together with the twelve behind them.
    pub hang: u64,
    /// Requests at which the device forgets the answers on their way and sends garbage.
    pub reset: u64,
}

impl Faults {
    /// The device that has no fault.
    pub const NONE: Faults = Faults { delay: 0, drop: 0, duplicate: 0, corrupt: 0, reorder: 0, hang: 0, reset: 0 };

    /// Each fault alone, and all together.
    pub const EACH: [Faults; 8] = [
        Faults { delay: 200, ..Faults::NONE },
        Faults { drop: 200, ..Faults::NONE },
        Faults { duplicate: 300, ..Faults::NONE },
        Faults { corrupt: 300, ..Faults::NONE },
        Faults { reorder: 300, ..Faults::NONE },
        Faults { hang: 1, ..Faults::NONE },
        Faults { reset: 100, ..Faults::NONE },
        Faults { delay: 50, drop: 50, duplicate: 50, corrupt: 50, reorder: 50, hang: 1, reset: 20 },
    ];
}

/// The answers of a device in software, with faults.
#[derive(Debug)]
pub struct FaultyStm32 {
    device: NullStm32,
    faults: Faults,
    random: SplitMix64,
    /// Bytes of a request whose end has not arrived.
    unread: Vec<u8>,
    /// Bytes on their way to the host, by the time of their arrival.
    on_the_way: VecDeque<(Duration, Vec<u8>)>,
    /// Frames that are still ignored.
    hanging: u32,
}

/// Time that a frame takes without a fault.
const TRANSFER: Duration = Duration::from_micros(200);
/// Time by which a reordered frame is late: longer than a request waits before it is sent again, shorter than its deadline.
const REORDERED: Duration = Duration::from_millis(8);
/// Time that a delayed frame takes.
const DELAYED: Duration = Duration::from_millis(45);
/// Requests that are ignored behind the one at which the device hangs.
const HANG_FRAMES: u32 = 12;
/// Time that [`FaultyStm32::serve`] waits at once while nothing is on its way.
const IDLE: Duration = Duration::from_secs(1);

impl FaultyStm32 {
    /// A device with these faults.
    #[must_use]
    pub fn new(faults: Faults, seed: u64) -> FaultyStm32 {
        let (device, random) = (NullStm32::new(), SplitMix64::new(seed));
        FaultyStm32 { device, faults, random, unread: Vec::new(), on_the_way: VecDeque::new(), hanging: 0 }
    }

    /// Takes bytes that reach the device at the time `now`.
    pub fn take(&mut self, now: Duration, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == 0) {
            self.unread.extend(part);
            if part.ends_with(&[0]) || self.unread.len() >= coded_bytes(MAX_BODY_BYTES) {
                let frame = std::mem::take(&mut self.unread);
                self.take_frame(now, frame);
            }
        }
    }

    /// When the next bytes reach the host.
    #[must_use]
    pub fn next_arrival(&self) -> Option<Duration> {
        self.on_the_way.front().map(|(arrival, _)| *arrival)
    }

    /// The bytes that have reached the host at the time `now` and were not given out before.
    pub fn arrived(&mut self, now: Duration) -> Vec<u8> {
        let n = self.on_the_way.partition_point(|(arrival, _)| *arrival <= now);
        self.on_the_way.drain(..n).flat_map(|(_, bytes)| bytes).collect()
    }

    /// Answers the host behind `link` until its stream ends.
    ///
    /// # Errors
    /// A stream that fails in another way.
    pub fn serve(&mut self, link: &mut impl Link) -> std::io::Result<()> {
        loop {
            match self.serve_once(link) {
                // A host that leaves closes the stream to it and that from it in any order.
                Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe) => return Ok(()),
                served => served?,
            }
        }
    }

    /// Takes the next bytes of the host, and sends the answers that have arrived.
    fn serve_once(&mut self, link: &mut impl Link) -> std::io::Result<()> {
        let until = self.next_arrival().unwrap_or_else(|| link.now() + IDLE);
        let bytes = link.receive(until)?;
        self.take(link.now(), &bytes);
        let answers = self.arrived(link.now());
        if answers.is_empty() { Ok(()) } else { link.send(&answers) }
    }

    fn happens(&mut self, per_mille: u64) -> bool {
        self.random.next_u64() % 1000 < per_mille
    }

    fn corrupted(&mut self, mut frame: Vec<u8>) -> Vec<u8> {
        if !frame.is_empty() && self.happens(self.faults.corrupt) {
            let at = self.random.next_u64() as usize % frame.len();
            frame[at] ^= 1 << (self.random.next_u64() % 8);
        }
        frame
    }

    fn take_frame(&mut self, now: Duration, frame: Vec<u8>) {
        if self.hanging > 0 {
            self.hanging -= 1;
        } else if self.happens(self.faults.hang) {
            self.hanging = HANG_FRAMES;
        } else if self.happens(self.faults.reset) {
            self.device = NullStm32::new();
            self.on_the_way.clear();
            self.on_the_way.push_back((now + TRANSFER, b"boot \x00\x05junk".to_vec()));
        } else if !self.happens(self.faults.drop) {
            let request = self.corrupted(frame);
            for answer in self.device.feed(&request) {
                self.dispatch(now, answer);
            }
        }
    }

    /// Sends a frame on its way to the host.
    fn dispatch(&mut self, now: Duration, frame: Vec<u8>) {
        if self.happens(self.faults.drop) {
            return;
        }
        let frame = self.corrupted(frame);
        let arrival = now + if self.happens(self.faults.delay) { DELAYED } else { TRANSFER };
        if self.happens(self.faults.duplicate) {
            self.on_the_way.push_back((arrival + TRANSFER, frame.clone()));
        }
        let arrival = arrival + if self.happens(self.faults.reorder) { REORDERED } else { Duration::ZERO };
        self.on_the_way.push_back((arrival, frame));
        self.on_the_way.make_contiguous().sort_by_key(|(arrival, _)| *arrival);
    }
}

/// A device with faults behind a link on a virtual clock.
#[derive(Debug)]
pub struct SimulatedStm32 {
    device: FaultyStm32,
    now: Duration,
}

impl SimulatedStm32 {
    /// A device with these faults.
    #[must_use]
    pub fn new(faults: Faults, seed: u64) -> SimulatedStm32 {
        SimulatedStm32 { device: FaultyStm32::new(faults, seed), now: Duration::ZERO }
    }
}

impl Link for SimulatedStm32 {
    fn now(&self) -> Duration {
        self.now
    }

    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.device.take(self.now, bytes);
        Ok(())
    }

    fn receive(&mut self, until: Duration) -> std::io::Result<Vec<u8>> {
        let arrival = self.device.next_arrival().filter(|arrival| *arrival <= until);
        self.now = self.now.max(arrival.unwrap_or(until));
        Ok(self.device.arrived(self.now))
    }
}
