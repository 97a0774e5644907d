//! The modes of the terminal at standard input.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, QueueSelector, SpecialCodeIndex, Termios, tcflush, tcgetattr,
    tcgetwinsize, tcsetattr, ttyname,
};

use crate::terminal::view::Size;

const PASTE_MARKS_ON: &str = "\x1b[?2004h";
const PASTE_MARKS_OFF: &str = "\x1b[?2004l";
/// A terminal that still sends a paste pauses for less.
const SILENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 60_000_000 };
/// Longest time that the end of the program waits for a terminal that sends without a pause.
const DRAIN: Duration = Duration::from_secs(5);

/// The modes before the chat, and whether those of the chat are in force.
#[derive(Debug)]
pub(super) struct Modes {
    terminal: OwnedFd,
    draws: bool,
    before: Option<Termios>,
    entered: Mutex<bool>,
}

/// The same terminal, opened once more so that reading it never waits; `terminal` where it cannot be opened.
///
/// Where the system edits the lines, Ctrl-C discards a line that `poll` has just reported. A `read` that waited for the
/// next line would keep the signal from being taken. The flag belongs to the open file, and the shell shares that of
/// standard input, so the flag is not set there.
fn without_waiting(terminal: OwnedFd) -> OwnedFd {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = ttyname(&terminal, Vec::new()).and_then(|name| rustix::fs::open(name, flags, Mode::empty()));
    opened.unwrap_or(terminal)
}

impl Modes {
    /// Remembers the modes of `terminal`. `draws`: whether the chat edits its lines itself.
    pub(super) fn new(terminal: OwnedFd, draws: bool) -> Modes {
        let terminal = without_waiting(terminal);
        let before = tcgetattr(&terminal).ok();
        Modes { terminal, draws: draws && before.is_some(), before, entered: Mutex::new(false) }
    }

    pub(super) fn terminal(&self) -> BorrowedFd<'_> {
        self.terminal.as_fd()
    }

    pub(super) fn draws(&self) -> bool {
        self.draws
    }

    /// Sets the modes of a line editor.
    pub(super) fn enter(&self) {
        let mut entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
        *entered = true;
        if self.draws {
            self.set_raw();
            write(PASTE_MARKS_ON);
        }
    }

    /// Sets the modes again, where the program was stopped and continued; nothing when they are restored for good.
    pub(super) fn resume(&self) {
        if *self.entered.lock().unwrap_or_else(PoisonError::into_inner) {
            self.enter();
        }
    }

    /// Discards what the terminal still sends, and restores the modes; nothing when they are restored already.
    pub(super) fn leave(&self) {
        let mut entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::take(&mut *entered) {
            return;
        }
        if self.draws {
            write(PASTE_MARKS_OFF);
        }
        self.set_raw();
        self.drain();
        self.restore(OptionalActions::Flush);
    }

    /// Restores the modes and keeps what was typed, for a program that is stopped and continued.
    pub(super) fn suspend(&self) {
        if self.draws {
            write(PASTE_MARKS_OFF);
        }
        self.restore(OptionalActions::Now);
    }

    /// No echo, no lines, no signals from keys.
    fn set_raw(&self) {
        let Some(mut modes) = self.before.clone() else { return };
        modes.input_modes -=
            InputModes::ICRNL | InputModes::INLCR | InputModes::IGNCR | InputModes::ISTRIP | InputModes::IXON;
        modes.local_modes -=
            LocalModes::ICANON | LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ISIG | LocalModes::IEXTEN;
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &modes);
    }

    /// Reads and discards until the terminal is silent.
    fn drain(&self) {
        let start = Instant::now();
        let mut bytes = [0; 4096];
        while start.elapsed() < DRAIN {
            let mut fds = [PollFd::new(&self.terminal, PollFlags::IN)];
            let is_waiting = poll(&mut fds, Some(&SILENCE)).is_ok_and(|ready| ready > 0);
            if !is_waiting || !rustix::io::read(&self.terminal, &mut bytes).is_ok_and(|read| read > 0) {
                break;
            }
        }
        let _ = tcflush(&self.terminal, QueueSelector::IFlush);
    }

    fn restore(&self, when: OptionalActions) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(&self.terminal, when, before);
        }
    }
}

/// The size of the window; 80 by 24 where the terminal does not tell.
pub(super) fn size() -> Size {
    let told = tcgetwinsize(std::io::stderr()).ok();
    let or = |told: Option<u16>, default: usize| told.filter(|&n| n > 0).map_or(default, usize::from);
    Size { columns: or(told.map(|size| size.ws_col), 80), rows: or(told.map(|size| size.ws_row), 24) }
}

/// Sends orders to the terminal, unless it takes none: the way out of the program waits for nobody, nor for the lock of
/// standard error.
fn write(orders: &str) {
    let err = std::io::stderr();
    let mut fds = [PollFd::new(&err, PollFlags::OUT)];
    if poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0) {
        let _ = rustix::io::write(&err, orders.as_bytes());
    }
}
