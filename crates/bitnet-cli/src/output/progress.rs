//! Progress on standard error: a bar with an ETA on a terminal, nothing elsewhere.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar that is cleared when it goes out of scope, so that an error or a result starts on a clean line.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Counts bytes, and shows their rate.
    pub(crate) fn bytes(what: &'static str) -> Self {
        Self::new("{msg} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} ETA {eta}", what)
    }

    /// Counts whole things, such as windows of text.
    pub(crate) fn items(what: &'static str) -> Self {
        Self::new("{msg} [{bar:30}] {pos}/{len} ETA {eta}", what)
    }

    /// Counts steps, beside a text that changes.
    pub(crate) fn steps(what: &'static str) -> Self {
        Self::new("{msg} [{bar:30}] {pos}/{len} ETA {eta}", what)
    }

    /// Shows a text in place of the one so far.
    pub(crate) fn say(&self, text: String) {
        self.0.set_message(text);
    }

    fn new(template: &str, what: &'static str) -> Self {
        let target =
            if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template(template).expect("the template is a constant").progress_chars("=> ");
        Self(ProgressBar::with_draw_target(Some(0), target).with_style(style).with_message(what))
    }

    pub(crate) fn show(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }

    /// One more is done.
    pub(crate) fn advance(&self) {
        self.0.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
