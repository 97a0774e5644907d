//! Small tasks of the appliance on coprocessors behind a byte stream.
//!
//! ```text
//! codec.rs       frames: COBS, CRC-32, version, sequence number        no_std, no allocation
//! message.rs     the five requests and their answers                   no_std, no allocation
//! answer.rs      the answers in software: what firmware computes, too  no_std, no allocation
//! device.rs      bytes of a line to codes of answers, in three buffers   no_std, no allocation
//! null.rs        NullStm32: the software answers as a device
//! client.rs      requests with deadlines, retries and the software as replacement
//! stream.rs      a link over a serial line, a pipe or a socket
//! simulator.rs   a coprocessor with faults, on a virtual clock or on that of its line
//! trial.rs       requests of all kinds, to try a device with
//! ```

pub mod answer;
pub mod codec;
pub mod device;
pub mod message;

#[cfg(feature = "std")]
mod client;
#[cfg(feature = "std")]
mod null;
#[cfg(feature = "std")]
mod simulator;
#[cfg(feature = "std")]
mod stream;
#[cfg(feature = "std")]
mod trial;

#[cfg(feature = "std")]
pub use client::{Coprocessor, Link, OffloadCounts, OffloadPolicy, Reply};
#[cfg(feature = "std")]
pub use null::NullStm32;
#[cfg(feature = "std")]
pub use simulator::{Faults, FaultyStm32, SimulatedStm32};
#[cfg(feature = "std")]
pub use stream::StreamLink;
#[cfg(feature = "std")]
pub use trial::Trial;
