//! A coprocessor with faults on a virtual clock: nothing waits, and the same seed gives the same faults.

use std::collections::VecDeque;
use std::time::Duration;

use moe_runtime::SplitMix64;

use super::client::Link;
use super::null::NullStm32;

/// Faults in tenths of a percent of the frames in either direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The frame arrives later than a deadline.
    pub delay: u64,
    /// The frame is lost.
    pub drop: u64,
    /// The frame arrives twice.
    pub duplicate: u64,
    /// A byte of the frame is another one.
    pub corrupt: u64,
    /// The frame arrives behind the answer to the request that is sent next.
    pub reorder: u64,
    /// The device stops answering until twelve frames were sent to it in vain.
    pub hang: u64,
    /// The device forgets what it has received and sends garbage.
    pub reset: u64,
}

/// The answers of a device in software behind a link with faults.
#[derive(Debug)]
pub struct SimulatedStm32 {
    device: NullStm32,
    faults: Faults,
    random: SplitMix64,
    now: Duration,
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
const HANG_FRAMES: u32 = 12;

impl SimulatedStm32 {
    /// A device with these faults.
    #[must_use]
    pub fn new(faults: Faults, seed: u64) -> SimulatedStm32 {
        let (device, random) = (NullStm32::new(), SplitMix64::new(seed));
        SimulatedStm32 { device, faults, random, now: Duration::ZERO, on_the_way: VecDeque::new(), hanging: 0 }
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

    /// Sends a frame on its way to the host.
    fn dispatch(&mut self, frame: Vec<u8>) {
        if self.happens(self.faults.drop) {
            return;
        }
        let frame = self.corrupted(frame);
        let arrival = self.now + if self.happens(self.faults.delay) { DELAYED } else { TRANSFER };
        if self.happens(self.faults.duplicate) {
            self.on_the_way.push_back((arrival + TRANSFER, frame.clone()));
        }
        let arrival = arrival + if self.happens(self.faults.reorder) { REORDERED } else { Duration::ZERO };
        self.on_the_way.push_back((arrival, frame));
        self.on_the_way.make_contiguous().sort_by_key(|(arrival, _)| *arrival);
    }
}

impl Link for SimulatedStm32 {
    fn now(&self) -> Duration {
        self.now
    }

    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.hanging > 0 {
            self.hanging -= 1;
            return Ok(());
        }
        if self.happens(self.faults.hang) {
            self.hanging = HANG_FRAMES;
            return Ok(());
        }
        if self.happens(self.faults.reset) {
            self.device = NullStm32::new();
            self.on_the_way.clear();
            self.on_the_way.push_back((self.now + TRANSFER, b"boot \x00\x05junk".to_vec()));
            return Ok(());
        }
        if self.happens(self.faults.drop) {
            return Ok(());
        }
        let request = self.corrupted(bytes.to_vec());
        for answer in self.device.feed(&request) {
            self.dispatch(answer);
        }
        Ok(())
    }

    fn receive(&mut self, until: Duration) -> std::io::Result<Vec<u8>> {
        match self.on_the_way.front() {
            Some((arrival, _)) if *arrival <= until => {
                self.now = self.now.max(*arrival);
                Ok(self.on_the_way.pop_front().map(|(_, bytes)| bytes).unwrap_or_default())
            }
            _ => {
                self.now = self.now.max(until);
                Ok(Vec::new())
            }
        }
    }
}
