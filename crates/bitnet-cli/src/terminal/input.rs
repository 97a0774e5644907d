//! The keys of a Unix terminal: its modes, the thread that reads it, and the signals.
//!
//! The terminal is read at all times, also while an answer is computed, because only so is Ctrl-C heard behind a long
//! paste. The modes are those of a line editor (no echo, no lines, no signals from keys); output is processed as before. On a
//! terminal that cannot be drawn on (`TERM=dumb`, or standard error elsewhere) the modes stay, the system echoes and edits
//! lines, and Ctrl-C arrives as a signal.
//!
//! **Invariant:** the modes are restored on every way out: the end of the chat, a panic, SIGTERM, SIGHUP, SIGQUIT, and Ctrl-C
//! while the model is loaded. Input that waits is discarded then. The exceptions are SIGKILL and faults of memory, among them
//! SIGBUS of a model file that became shorter: its handler may not wait for a terminal. `stty sane` restores the modes then.

mod modes;
mod reader;
mod shared;

use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use moe_runtime::Interrupt;

use self::modes::Modes;
use self::reader::Reader;
use self::shared::Shared;
use super::keys::Event;
use super::view::Size;

/// The terminal at standard input.
#[derive(Debug)]
pub(super) struct Input {
    shared: Arc<Shared>,
    modes: Arc<Modes>,
    /// Dropping it ends the reader.
    stop: Option<UnixStream>,
    reader: Option<JoinHandle<()>>,
}

impl Input {
    /// Takes over the terminal and starts to read it.
    pub(super) fn open() -> Result<Input> {
        let term = std::env::var_os("TERM").unwrap_or_default();
        let draws = std::io::stderr().is_terminal() && !term.is_empty() && term != "dumb";
        let terminal = std::io::stdin().as_fd().try_clone_to_owned().context("cannot read the terminal")?;
        Input::over(terminal, draws)
    }

    fn over(terminal: OwnedFd, draws: bool) -> Result<Input> {
        let shared = Arc::new(Shared::default());
        let modes = Arc::new(Modes::new(terminal, draws));
        let (stop, stopped) = UnixStream::pair().context("cannot read the terminal")?;
        let reader = Reader::new(shared.clone(), modes.clone(), stopped).context("cannot handle signals")?;
        modes.enter();
        let reader = std::thread::Builder::new().name("terminal".to_owned()).spawn(move || reader.run());
        // From here on, dropping restores the modes.
        let mut input = Input { shared, modes, stop: Some(stop), reader: None };
        input.reader = Some(reader.context("cannot start a thread")?);
        Ok(input)
    }

    pub(super) fn interrupt(&self) -> Interrupt {
        self.shared.interrupt()
    }

    /// From now on Ctrl-C is a key.
    pub(super) fn prompt(&self) {
        self.shared.prompt();
    }

    /// From now on Ctrl-C raises the interrupt, which is lowered first.
    pub(super) fn answer(&self) {
        self.shared.answer();
    }

    /// From now on Ctrl-C is a key, and what was typed ahead waits until [`Input::answered`].
    pub(super) fn question(&self) {
        self.shared.question();
    }

    /// From now on the keys from before the question come next.
    pub(super) fn answered(&self) {
        self.shared.answered();
    }

    /// Whether the editor draws the line; otherwise the system echoes it.
    pub(super) fn draws(&self) -> bool {
        self.modes.draws()
    }

    pub(super) fn size(&self) -> Size {
        modes::size()
    }

    /// The next event, if one has arrived.
    pub(super) fn waiting(&self) -> Option<Event> {
        self.shared.waiting()
    }

    /// Waits for the next event.
    pub(super) fn next(&self) -> Event {
        self.shared.next()
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.modes.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use rustix::fs::{Mode, OFlags, fcntl_getfl};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{LocalModes, tcgetattr};

    use super::Input;

    /// Both ends of a terminal.
    fn terminal() -> [OwnedFd; 2] {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        [ours, rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap()]
    }

    /// A line that Ctrl-C discards between `poll` and `read` must not make the reader wait, and the shell's own
    /// standard input must keep its flags.
    #[test]
    fn reading_never_waits_and_the_shell_keeps_its_flags() {
        let [_ours, theirs] = terminal();
        let input = Input::over(theirs.try_clone().unwrap(), false).unwrap();
        assert!(fcntl_getfl(input.modes.terminal()).unwrap().contains(OFlags::NONBLOCK));
        assert!(!fcntl_getfl(&theirs).unwrap().contains(OFlags::NONBLOCK));
    }

    #[test]
    fn a_panic_restores_the_modes_and_leaves_no_input() {
        let [ours, theirs] = terminal();
        let before = format!("{:?}", tcgetattr(&theirs).unwrap());
        let input = Input::over(theirs.try_clone().unwrap(), true).unwrap();
        assert!(!tcgetattr(&theirs).unwrap().local_modes.intersects(LocalModes::ECHO | LocalModes::ICANON));
        rustix::io::write(&ours, b"typed ahead\r\nand more").unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            let _input = input;
            std::panic::resume_unwind(Box::new("a panic"));
        }));
        assert!(panicked.is_err());
        assert_eq!(format!("{:?}", tcgetattr(&theirs).unwrap()), before);
        assert_eq!(rustix::io::ioctl_fionread(&theirs).unwrap(), 0);
    }
}
