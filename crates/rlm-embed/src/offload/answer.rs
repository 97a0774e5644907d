//! The answers to the requests, computed without allocation: firmware runs this, and the host when no device answers.
//!
//! **Invariant:** an answer depends on the request alone, so a device and its replacement cannot differ.

use super::codec::CodecError;
use super::message::{MAX_SCHEDULE, Request};
use crate::fnv::fnv1a;

/// Writes the body of the answer to `out` and returns its length.
///
/// ```
/// use rlm_embed::offload::{answer::answer, message::Request};
/// let priorities = [0.5f32, 2.0, -1.0].map(f32::to_le_bytes);
/// let mut out = [0; 6];
/// assert_eq!(answer(&Request::ScheduleReorder(&priorities), &mut out), Ok(6));
/// assert_eq!(out, [1, 0, 0, 0, 2, 0]);
/// ```
///
/// # Errors
/// [`CodecError::TooLong`] when `out` is too short, or for a schedule of more than [`MAX_SCHEDULE`] chunks.
pub fn answer(request: &Request<'_>, out: &mut [u8]) -> Result<usize, CodecError> {
    let n = request.answer_bytes();
    let out = out.get_mut(..n).ok_or(CodecError::TooLong)?;
    match request {
        Request::ComputeHash(bytes) => out.copy_from_slice(&fnv1a(bytes.iter().copied()).to_le_bytes()),
        Request::WatchdogPing(nonce) => out.copy_from_slice(&nonce.to_le_bytes()),
        Request::FilterNeighbors { threshold, scores } => {
            for (kept, score) in out.iter_mut().zip(*scores) {
                *kept = u8::from(f32::from_le_bytes(*score) >= *threshold);
            }
        }
        Request::GateCheck { confidence, least_confidence, contradictions, most_contradictions } => {
            let passes = confidence >= least_confidence && contradictions <= most_contradictions;
            out.fill(u8::from(passes));
        }
        Request::ScheduleReorder(priorities) if priorities.len() > MAX_SCHEDULE => return Err(CodecError::TooLong),
        Request::ScheduleReorder(priorities) => {
            let places = out.as_chunks_mut::<2>().0;
            for (i, place) in places.iter_mut().enumerate() {
                *place = (i as u16).to_le_bytes();
            }
            let priority = |place: &[u8; 2]| f32::from_le_bytes(priorities[usize::from(u16::from_le_bytes(*place))]);
            let place = |bytes: &[u8; 2]| u16::from_le_bytes(*bytes);
            places.sort_unstable_by(|a, b| priority(b).total_cmp(&priority(a)).then(place(a).cmp(&place(b))));
        }
    }
    Ok(n)
}
