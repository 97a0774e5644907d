//! A device between its line and [`answer`]: bytes come in, codes of answers go out. Firmware runs this.
//!
//! **Invariant:** no allocation; a request that a buffer does not hold has no answer, so that the host answers it in software when
//! its deadline is over.

use super::answer::answer;
use super::codec::{Collector, decode, encode};
use super::message::{ANSWER, Request};

/// A device with three buffers: the code of a request, the body of its answer and the code of that.
///
/// ```
/// use rlm_embed::offload::codec::{coded_bytes, decode, encode};
/// use rlm_embed::offload::device::Device;
/// use rlm_embed::offload::message::Request;
/// let ping = Request::WatchdogPing(7);
/// let (mut body, mut code) = ([0; 8], [0; coded_bytes(8)]);
/// let n = ping.write(&mut body)?;
/// let n = encode(ping.kind(), 1, &body[..n], &mut code)?;
/// let mut device = Device::new([0; 256], [0; 256], [0; 256]);
/// let mut answers = 0;
/// for &byte in &code[..n] {
///     if let Some(code) = device.push(byte) {
///         // The 0 at the end belongs to the line, not to the code.
///         let mut code = code[..code.len() - 1].to_vec();
///         assert_eq!(decode(&mut code)?.body, 7u64.to_le_bytes());
///         answers += 1;
///     }
/// }
/// assert_eq!(answers, 1);
/// # Ok::<(), rlm_embed::offload::codec::CodecError>(())
/// ```
#[derive(Debug)]
pub struct Device<B> {
    collector: Collector<B>,
    body: B,
    code: B,
}

impl<B: AsMut<[u8]>> Device<B> {
    /// A device that has no request. The buffers limit the lengths of requests and answers.
    pub const fn new(request: B, body: B, code: B) -> Self {
        Device { collector: Collector::new(request), body, code }
    }

    /// Takes the next byte of the line; gives the code of the answer, the 0 at its end included, when the byte ends a request.
    pub fn push(&mut self, byte: u8) -> Option<&[u8]> {
        let frame = decode(self.collector.push(byte)?).ok()?;
        let request = Request::parse(frame.kind, frame.body).ok()?;
        let (body, code) = (self.body.as_mut(), self.code.as_mut());
        let n = answer(&request, body).ok()?;
        let n = encode(frame.kind | ANSWER, frame.sequence, &body[..n], code).ok()?;
        Some(&code[..n])
    }
}
