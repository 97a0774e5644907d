//! Small tasks of the appliance on coprocessors behind a byte stream.
//!
//! ```text
//! codec.rs       frames: COBS, CRC-32, version, sequence number        no_std, no allocation
//! message.rs     the five requests and their answers                   no_std, no allocation
//! answer.rs      the answers in software: what firmware computes, too  no_std, no allocation
//! null.rs        NullStm32: the software answers as a device
//! client.rs      requests with deadlines, retries and the software as replacement
//! simulator.rs   a coprocessor with faults on a virtual clock
//! ```

pub mod answer;
pub mod codec;
pub mod message;

#[cfg(feature = "std")]
mod client;
#[cfg(feature = "std")]
mod null;
#[cfg(feature = "std")]
mod simulator;

#[cfg(feature = "std")]
pub use client::{Coprocessor, Link, OffloadCounts, OffloadPolicy, Reply};
#[cfg(feature = "std")]
pub use null::NullStm32;
#[cfg(feature = "std")]
pub use simulator::{Faults, SimulatedStm32};
