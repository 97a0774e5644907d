//! Progress on standard error: a bar with an ETA on a terminal, nothing elsewhere.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What a bar counts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    /// Bytes, with a rate.
    Bytes,
    /// Whole things, such as windows of text.
    Items,
}

/// A bar over `total` units, hidden when standard error is not a terminal.
pub(crate) fn bar(total: u64, unit: Unit, what: &'static str) -> ProgressBar {
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let template = match unit {
        Unit::Bytes => "{msg} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} ETA {eta}",
        Unit::Items => "{msg} [{bar:30}] {pos}/{len} ETA {eta}",
    };
    let style = ProgressStyle::with_template(template).expect("the template is a constant").progress_chars("=> ");
    ProgressBar::with_draw_target(Some(total), target).with_style(style).with_message(what)
}
