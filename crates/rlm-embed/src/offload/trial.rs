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

    /// The request itself; the five kinds take turns, and so do the bounds of filters and gates, those of an appliance among them.
    #[must_use]
    pub fn request(&self) -> Request<'_> {
        let turn = self.number as usize / 5;
        let least = [-1.0, 0.1, 0.5][turn % 3];
        match self.number % 5 {
            0 => Request::ComputeHash(&self.bytes),
            1 => Request::FilterNeighbors { threshold: least, scores: &self.scores },
            2 => Request::GateCheck {
                confidence: (turn % 10) as f32 * 0.1,
                least_confidence: least,
                contradictions: turn as u32 % 4,
                most_contradictions: turn as u32 / 4 % 3,
            },
            3 => Request::WatchdogPing(u64::from(self.number) << 20),
            _ => Request::ScheduleReorder(&self.scores),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::answer::answer;

    fn body(request: &Request<'_>) -> Vec<u8> {
        let mut body = vec![0; request.answer_bytes()];
        answer(request, &mut body).unwrap();
        body
    }

    /// Whether firmware that reads the requests as `read` does gives other answers to some trials.
    fn is_found(read: fn(Request<'_>) -> Request<'_>) -> bool {
        (0..600).any(|number| {
            let trial = Trial::new(number);
            body(&read(trial.request())) != body(&trial.request())
        })
    }

    #[test]
    fn firmware_that_ignores_a_bound_is_found() {
        assert!(!is_found(|request| request));
        assert!(is_found(|request| match request {
            Request::FilterNeighbors { scores, .. } => Request::FilterNeighbors { threshold: 0.1, scores },
            other => other,
        }));
        assert!(is_found(|request| match request {
            Request::GateCheck { confidence, contradictions, most_contradictions, .. } =>
                Request::GateCheck { confidence, least_confidence: 0.5, contradictions, most_contradictions },
            other => other,
        }));
        assert!(is_found(|request| match request {
            Request::GateCheck { confidence, least_confidence, contradictions, .. } =>
                Request::GateCheck { confidence, least_confidence, contradictions, most_contradictions: 1 },
            other => other,
        }));
    }
}
