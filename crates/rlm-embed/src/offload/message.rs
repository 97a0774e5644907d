//! The requests to a coprocessor and their answers, as the bodies of frames.
//!
//! | kind | request | body | answer |
//! |---|---|---|---|
//! | 1 | compute a hash | any bytes | 64-bit FNV-1a, u64 |
//! | 2 | filter neighbours | threshold f32, n scores f32 | one byte per score: 1 keeps it |
//! | 3 | check a gate | confidence f32, least confidence f32, contradictions u32, most contradictions u32 | one byte: 1 lets the chunk in |
//! | 4 | ping of the watchdog | nonce u64 | the nonce |
//! | 5 | reorder a schedule | n <= 16,000 priorities f32 | n places u16, the highest priority first |
//!
//! An answer has the kind of its request plus 128. Numbers are little-endian.

use super::codec::CodecError;

/// Most priorities of a schedule.
pub const MAX_SCHEDULE: usize = 16_000;
/// An answer's kind is that of its request plus this.
pub const ANSWER: u8 = 128;

/// A request, over the bytes of its body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Request<'a> {
    /// Compute the hash of these bytes.
    ComputeHash(&'a [u8]),
    /// Keep the scores of at least the threshold; the scores are f32 in little-endian bytes.
    FilterNeighbors {
        /// Least score that is kept.
        threshold: f32,
        /// The scores, four bytes each.
        scores: &'a [[u8; 4]],
    },
    /// Decide whether a chunk may enter the store.
    GateCheck {
        /// Confidence of the chunk's vector.
        confidence: f32,
        /// Confidence that it needs.
        least_confidence: f32,
        /// Neighbours that contradict the chunk.
        contradictions: u32,
        /// Contradictions that it may have.
        most_contradictions: u32,
    },
    /// Show that the device is alive.
    WatchdogPing(u64),
    /// Sort at most [`MAX_SCHEDULE`] chunks by priority; the priorities are f32 in little-endian bytes.
    ScheduleReorder(&'a [[u8; 4]]),
}

impl<'a> Request<'a> {
    /// The kind of the frame.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            Request::ComputeHash(_) => 1,
            Request::FilterNeighbors { .. } => 2,
            Request::GateCheck { .. } => 3,
            Request::WatchdogPing(_) => 4,
            Request::ScheduleReorder(_) => 5,
        }
    }

    /// Number of bytes of the answer's body.
    #[must_use]
    pub fn answer_bytes(&self) -> usize {
        match self {
            Request::ComputeHash(_) | Request::WatchdogPing(_) => 8,
            Request::FilterNeighbors { scores, .. } => scores.len(),
            Request::GateCheck { .. } => 1,
            Request::ScheduleReorder(priorities) => 2 * priorities.len(),
        }
    }

    /// Writes the body to `out` and returns its length.
    ///
    /// # Errors
    /// [`CodecError::TooLong`].
    pub fn write(&self, out: &mut [u8]) -> Result<usize, CodecError> {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            let place = out.get_mut(at..at + bytes.len()).ok_or(CodecError::TooLong)?;
            place.copy_from_slice(bytes);
            at += bytes.len();
            Ok::<(), CodecError>(())
        };
        match self {
            Request::ComputeHash(bytes) => put(bytes)?,
            Request::FilterNeighbors { threshold, scores } => {
                put(&threshold.to_le_bytes())?;
                put(scores.as_flattened())?;
            }
            Request::GateCheck { confidence, least_confidence, contradictions, most_contradictions } => {
                put(&confidence.to_le_bytes())?;
                put(&least_confidence.to_le_bytes())?;
                put(&contradictions.to_le_bytes())?;
                put(&most_contradictions.to_le_bytes())?;
            }
            Request::WatchdogPing(nonce) => put(&nonce.to_le_bytes())?,
            Request::ScheduleReorder(priorities) if priorities.len() > MAX_SCHEDULE => return Err(CodecError::TooLong),
            Request::ScheduleReorder(priorities) => put(priorities.as_flattened())?,
        }
        Ok(at)
    }

    /// The request in a frame.
    ///
    /// # Errors
    /// [`CodecError::Message`].
    pub fn parse(kind: u8, body: &'a [u8]) -> Result<Request<'a>, CodecError> {
        let numbers = |bytes: &'a [u8]| match bytes.as_chunks::<4>() {
            (numbers, []) => Ok(numbers),
            _ => Err(CodecError::Message),
        };
        Ok(match kind {
            1 => Request::ComputeHash(body),
            2 => {
                let (threshold, scores) = body.split_first_chunk::<4>().ok_or(CodecError::Message)?;
                Request::FilterNeighbors { threshold: f32::from_le_bytes(*threshold), scores: numbers(scores)? }
            }
            3 => match numbers(body)? {
                &[confidence, least_confidence, contradictions, most_contradictions] => Request::GateCheck {
                    confidence: f32::from_le_bytes(confidence),
                    least_confidence: f32::from_le_bytes(least_confidence),
                    contradictions: u32::from_le_bytes(contradictions),
                    most_contradictions: u32::from_le_bytes(most_contradictions),
                },
                _ => return Err(CodecError::Message),
            },
            4 => Request::WatchdogPing(u64::from_le_bytes(body.try_into().map_err(|_| CodecError::Message)?)),
            5 => match numbers(body)? {
                priorities if priorities.len() <= MAX_SCHEDULE => Request::ScheduleReorder(priorities),
                _ => return Err(CodecError::Message),
            },
            _ => return Err(CodecError::Message),
        })
    }
}
