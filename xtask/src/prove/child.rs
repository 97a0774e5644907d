//! A child process that does not outlast its value.

use std::process::Child;

/// A process that is killed when this value goes out of scope.
pub(super) struct Scoped(pub(super) Child);

impl Drop for Scoped {
    fn drop(&mut self) {
        // A process that has ended already cannot be killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
