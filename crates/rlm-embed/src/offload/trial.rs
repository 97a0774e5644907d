//! Requests of all kinds by number, for the tests of a client and for `bitnet offload check`.

use super::message::Request;

/// The bodies of one request. The same number gives the same request.
///
/// ```
/// use rlm_embed::offload::{Trial, message::Request};
/// let kinds: Vec<u8> = (0..5).map(|i| Trial::new(i).request().kind()).collect();
/// assert_eq!(kinds, [1, 2, 3, 4, 5]);
/// ```
#[derive(Clone, Debug)]
pub struct Trial {
    number: u32,
    bytes: Vec<u8>,
    scores: Vec<[u8; 4]>,
}

impl Trial {
    /// The bodies of request `number`.
    #[must_use]
    pub fn new(number: u32) -> Trial {
        let score = |n: u32| (number.wrapping_mul(2_654_435_761).wrapping_add(n * 40_503) % 2001) as f32 / 1000.0 - 1.0;
        Trial {
            number,
            bytes: number.to_le_bytes().repeat(1 + number as usize % 60),
            scores: (0..number % 50).map(|n| score(n).to_le_bytes()).collect(),
        }
    }

    /// The request itself; the five kinds take turns.
    #[must_use]
    pub fn request(&self) -> Request<'_> {
        match self.number % 5 {
            0 => Request::ComputeHash(&self.bytes),
            1 => Request::FilterNeighbors { threshold: 0.1, scores: &self.scores },
            2 => Request::GateCheck {
                confidence: (self.number % 10) as f32 * 0.1,
                least_confidence: 0.5,
                contradictions: self.number % 3,
                most_contradictions: 1,
            },
            3 => Request::WatchdogPing(u64::from(self.number) << 20),
            _ => Request::ScheduleReorder(&self.scores),
        }
    }
}
