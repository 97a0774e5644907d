//! One request in the counts. The end of its answer is known after its response has begun, so it is counted when the last part
//! of the server lets go of it.

use std::sync::{Arc, OnceLock};

use super::metrics::Metrics;

/// The status of a request whose client left before the response.
const LEFT: u16 = 499;

/// A request that is being answered. Dropping it counts it.
#[derive(Debug)]
pub(crate) struct Tally {
    metrics: Arc<Metrics>,
    route: String,
    status: OnceLock<u16>,
    finish: OnceLock<&'static str>,
}

impl Tally {
    /// A request to the route of this pattern.
    pub(crate) fn new(metrics: Arc<Metrics>, route: &str) -> Tally {
        Tally { metrics, route: route.to_owned(), status: OnceLock::new(), finish: OnceLock::new() }
    }

    /// The pattern of the route.
    pub(crate) fn route(&self) -> &str {
        &self.route
    }

    /// Remembers the status of a response that is sent now.
    pub(crate) fn responds(&self, status: u16) {
        let _ = self.status.set(status);
    }

    /// An answer ended; of several the first one counts.
    pub(crate) fn ended(&self, finish: &'static str) {
        let _ = self.finish.set(finish);
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let (route, status) = (self.route.as_str(), self.status.get().copied().unwrap_or(LEFT));
        let finish = self.finish.get().copied().unwrap_or("none");
        self.metrics.request(route, status, finish);
        tracing::info!(route, status, finish, "request");
    }
}
