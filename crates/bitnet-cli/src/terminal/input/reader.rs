//! The thread that reads the terminal and takes the signals.

use std::io::Error;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use signal_hook::low_level::{emulate_default_handler, raise};

use super::modes::Modes;
use super::shared::{Interrupted, Shared};
use crate::exit::INTERRUPTED;
use crate::terminal::keys::{Burst, Decoder, INTERRUPT, Key, SUSPEND};
use crate::terminal::line::MOST_BYTES;

/// Silence that ends a burst behind an end of a line: shorter than the pause between two keys of a person.
const AFTER_LINE: Timespec = milliseconds(30);
/// Silence that ends a burst of several lines, and an escape sequence without an end.
const AFTER_LINES: Timespec = milliseconds(400);
const AFTER_ESCAPE: Timespec = milliseconds(50);
/// Silence that ends a paste whose end mark does not come.
const AFTER_PASTE: Timespec = milliseconds(1000);

const fn milliseconds(n: i64) -> Timespec {
    Timespec { tv_sec: n / 1000, tv_nsec: n % 1000 * 1_000_000 }
}

/// The decoded input that a silence of the terminal completes, and its length.
#[derive(Clone, Copy)]
enum Pending {
    Nothing,
    Burst(Timespec),
    Sequence(Timespec),
}

pub(super) struct Reader {
    shared: Arc<Shared>,
    modes: Arc<Modes>,
    /// Closed by the other side when the chat ends.
    stopped: UnixStream,
    signals: SignalDelivery<UnixStream, SignalOnly>,
    decoder: Decoder,
    burst: Burst,
    /// The terminal has no more input.
    has_ended: bool,
}

/// Whether reading goes on.
type GoesOn = bool;

impl Reader {
    /// Installs the handlers of the signals.
    pub(super) fn new(shared: Arc<Shared>, modes: Arc<Modes>, stopped: UnixStream) -> Result<Reader, Error> {
        let (read, write) = UnixStream::pair()?;
        let signals = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGCONT];
        let signals = SignalDelivery::with_pipe(read, write, SignalOnly, signals)?;
        let (decoder, burst) = (Decoder::default(), Burst::default());
        Ok(Reader { shared, modes, stopped, signals, decoder, burst, has_ended: false })
    }

    /// Reads until the chat ends or the terminal is gone.
    pub(super) fn run(mut self) {
        while self.wait() {}
        self.shared.close();
    }

    /// Waits for bytes, a signal, the end of the chat, or the silence that ends a burst.
    fn wait(&mut self) -> GoesOn {
        let pending = self.pending();
        let timeout = match pending {
            Pending::Nothing => None,
            Pending::Burst(time) | Pending::Sequence(time) => Some(time),
        };
        // The terminal is the last one: without it, when it has ended.
        let mut fds = [
            PollFd::new(&self.stopped, PollFlags::IN),
            PollFd::new(self.signals.get_read(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.modes.terminal(), PollFlags::IN),
        ];
        let used = fds.len() - usize::from(self.has_ended);
        let ready = match poll(&mut fds[..used], timeout.as_ref()) {
            Ok(ready) => ready,
            Err(rustix::io::Errno::INTR) => return true,
            Err(_) => return false,
        };
        let [stopped, signal, terminal] = fds.map(|fd| fd.revents());
        if !stopped.is_empty() {
            return false;
        }
        if ready == 0 {
            if let Pending::Sequence(_) = pending {
                self.decoder.give_up();
            }
            if matches!((pending, self.pending()), (Pending::Burst(_), _) | (_, Pending::Nothing)) {
                self.flush();
            }
        }
        if !signal.is_empty() && !self.take_signals() {
            return false;
        }
        if !terminal.is_empty() && !self.read() {
            // Signals still come: an answer may be stopped after Ctrl-D was typed ahead.
            self.flush();
            self.has_ended = true;
            self.shared.close();
        }
        true
    }

    /// The input that a silence of the terminal would complete.
    fn pending(&self) -> Pending {
        if self.decoder.is_in_paste() {
            Pending::Sequence(AFTER_PASTE)
        } else if self.decoder.is_in_sequence() {
            Pending::Sequence(AFTER_ESCAPE)
        } else if self.burst.has_lines() {
            Pending::Burst(AFTER_LINES)
        } else if self.burst.ends_in_enter() {
            Pending::Burst(AFTER_LINE)
        } else {
            Pending::Nothing
        }
    }

    /// Reads what has arrived; `false` at the end of the input.
    fn read(&mut self) -> GoesOn {
        let mut bytes = [0; 65536];
        let read = match rustix::io::read(self.modes.terminal(), &mut bytes) {
            Ok(read @ 1..) => read,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return true,
            Ok(0) | Err(_) => return false,
        };
        self.decoder.push(&bytes[..read], &mut self.burst);
        if self.decoder.was_interrupted() {
            self.interrupt(false);
        }
        // A paste is handed over as a whole, so that it is drawn once.
        let is_complete = match self.pending() {
            Pending::Nothing => true,
            Pending::Sequence(_) => !self.decoder.is_in_paste() && !self.burst.has_lines(),
            Pending::Burst(_) => false,
        };
        if is_complete || self.burst.bytes() > MOST_BYTES {
            self.flush();
        }
        true
    }

    /// Hands the burst to the chat.
    fn flush(&mut self) {
        if self.burst.is_empty() {
            return;
        }
        let mut keys = self.burst.take();
        let presses = keys.len();
        keys.retain(|key| *key != Key::Control(SUSPEND));
        let suspend = keys.len() < presses;
        self.shared.push_keys(keys);
        if suspend {
            self.suspend();
        }
    }

    /// Ctrl-C was pressed, as a signal or as a byte that is still in the burst.
    fn interrupt(&mut self, is_signal: bool) {
        match self.shared.press_interrupt() {
            Interrupted::Program => {
                self.modes.leave();
                std::process::exit(i32::from(INTERRUPTED));
            }
            Interrupted::Answer => self.burst = Burst::default(),
            Interrupted::Nothing if is_signal => self.shared.push_keys(vec![Key::Control(INTERRUPT)]),
            Interrupted::Nothing => {}
        }
    }

    fn take_signals(&mut self) -> GoesOn {
        let signals: Vec<i32> = self.signals.pending().collect();
        for signal in signals {
            match signal {
                SIGINT => self.interrupt(true),
                SIGWINCH => self.shared.redraw(),
                SIGCONT => self.resume(),
                signal => {
                    self.modes.leave();
                    let _ = emulate_default_handler(signal);
                    return false;
                }
            }
        }
        true
    }

    /// Stops the program as Ctrl-Z does, until a shell continues it. Without a shell the system does not stop it, and sends
    /// no SIGCONT; where it does, both signals together count as one.
    fn suspend(&self) {
        self.modes.suspend();
        let _ = raise(SIGTSTP);
        let _ = raise(SIGCONT);
    }

    fn resume(&self) {
        self.modes.resume();
        self.shared.resume();
    }
}
