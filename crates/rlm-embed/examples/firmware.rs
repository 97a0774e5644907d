//! The device's side of the protocol as a static library for firmware in C or Rust: bytes of the line go in, answers come out.
//!
//! ```sh
//! cargo build --release --target thumbv7em-none-eabihf -p rlm-embed --no-default-features --example firmware
//! ```
//! `DEVICE` is all memory that it holds. A host's requests that are longer than `FRAME_BYTES` are answered by the host itself.

#![cfg_attr(target_os = "none", no_std)]
#![allow(unsafe_code, reason = "firmware has one static device, and exported names cannot be checked for uniqueness")]

use rlm_embed::offload::codec::coded_bytes;
use rlm_embed::offload::device::Device;

/// Most bytes of the body of a request or an answer.
const BODY_BYTES: usize = 4096;
/// Bytes of each of the three buffers.
const FRAME_BYTES: usize = coded_bytes(BODY_BYTES);

static mut DEVICE: Device<[u8; FRAME_BYTES]> = Device::new([0; FRAME_BYTES], [0; FRAME_BYTES], [0; FRAME_BYTES]);

/// Takes a byte of the line, and calls `send` with the bytes of the answer when it ends a request.
///
/// # Safety
/// Calls must not overlap: call it from one task, or from one interrupt.
// SAFETY: this name is exported once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn offload_push(byte: u8, send: extern "C" fn(*const u8, usize)) {
    let device = &raw mut DEVICE;
    // SAFETY: calls do not overlap, and `send` gets its bytes while nothing else uses the device.
    let device = unsafe { &mut *device };
    if let Some(answer) = device.push(byte) {
        send(answer.as_ptr(), answer.len());
    }
}

/// A fault of the code itself: the watchdog of the board restarts it.
#[cfg(target_os = "none")]
#[panic_handler]
fn stop(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
