//! The lines that say whether a model can be run.

use anyhow::Result;

use crate::output;

/// Whether the model can be run, and the reasons why not.
pub(super) fn print_runs(obstacles: &[String]) -> Result<()> {
    match obstacles {
        [] => output::line("runs here: yes"),
        obstacles => obstacles.iter().try_for_each(|reason| output::line(format_args!("runs here: no: {reason}"))),
    }
}
