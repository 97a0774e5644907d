//! The device that is none: the answers in software, at once.

use std::time::Duration;

use super::client::Link;
use super::codec::{MAX_BODY_BYTES, coded_bytes};
use super::device::Device;

/// A coprocessor in software, for machines without one and as the measure of all others.
#[derive(Debug)]
pub struct NullStm32 {
    /// Bytes of answers that were not read yet.
    answers: Vec<u8>,
    device: Device<Box<[u8]>>,
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
        let buffer = || vec![0; coded_bytes(MAX_BODY_BYTES)].into_boxed_slice();
        NullStm32 { answers: Vec::new(), device: Device::new(buffer(), buffer(), buffer()) }
    }

    /// Answers every whole request in `bytes`, which follow the bytes of earlier calls; each answer is the code of a frame.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        bytes.iter().filter_map(|&byte| self.device.push(byte).map(<[u8]>::to_vec)).collect()
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
