//! A terminal for the tests: the built binary runs in it, and the test is the person before it.

use std::io::{Read, Write};
use std::process::{Child, ExitStatus};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, Once};
use std::time::{Duration, Instant};

use pty_process::Size;
use pty_process::blocking::{Command, Pts, Pty, open};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use signal_hook::consts::SIGINT;
use signal_hook::flag::register_conditional_default;

use crate::common::variables;

/// A hanging program fails its test after this time; no test waits for it otherwise.
const DEADLINE: Duration = Duration::from_secs(120);

/// The output so far, as it was sent.
#[derive(Default)]
struct Output {
    bytes: Mutex<Vec<u8>>,
    grew: Condvar,
}

pub(crate) struct Terminal {
    pty: Arc<Pty>,
    pts: Pts,
    child: Child,
    output: Arc<Output>,
    /// Bytes of the output that the test has waited for.
    seen: usize,
    modes: String,
}

impl Terminal {
    /// Starts `bitnet` in a window of 80 by 24.
    pub(crate) fn bitnet(args: &[&str]) -> Terminal {
        Terminal::start(env!("CARGO_BIN_EXE_bitnet"), args, "xterm", [80, 24])
    }

    pub(crate) fn start(program: &str, args: &[&str], term: &str, [columns, rows]: [u16; 2]) -> Terminal {
        hear_interrupts();
        let (pty, pts) = open().unwrap();
        pty.resize(Size::new(rows, columns)).unwrap();
        let modes = modes(&pts);
        let command = Command::new(program).args(args).env("TERM", term);
        let mut command = variables().iter().fold(command, |command, name| command.env_remove(name));
        let child = command.spawn_borrowed(&pts).unwrap();
        let (pty, output) = (Arc::new(pty), Arc::new(Output::default()));
        let (from, to) = (pty.clone(), output.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = (&*from).read(&mut bytes) {
                to.bytes.lock().unwrap().extend_from_slice(&bytes[..read]);
                to.grew.notify_all();
            }
        });
        Terminal { pty, pts, child, output, seen: 0, modes }
    }

    /// Types or pastes. Does not wait for the program to read it.
    pub(crate) fn send(&self, bytes: impl Into<Vec<u8>>) {
        let (pty, bytes) = (self.pty.clone(), bytes.into());
        // A terminal takes 4096 bytes that nobody reads, and then waits.
        if bytes.len() < 1000 {
            (&*pty).write_all(&bytes).unwrap();
        } else {
            std::thread::spawn(move || (&*pty).write_all(&bytes));
        }
    }

    /// Waits until the output holds `text` behind what was waited for before, and returns the output up to there.
    pub(crate) fn wait(&mut self, text: &str) -> String {
        let end =
            |new: &[u8]| new.windows(text.len()).position(|part| part == text.as_bytes()).map(|at| at + text.len());
        self.wait_until(text, end)
    }

    /// Waits until `end` finds an end in the new output, and returns the output up to there.
    fn wait_until(&mut self, what: &str, end: impl Fn(&[u8]) -> Option<usize>) -> String {
        let start = Instant::now();
        let mut bytes = self.output.bytes.lock().unwrap();
        loop {
            let new = &bytes[self.seen..];
            if let Some(end) = end(new) {
                self.seen += end;
                return String::from_utf8_lossy(&new[..end]).into_owned();
            }
            if start.elapsed() > DEADLINE {
                panic!("no {what:?} in {:?}", String::from_utf8_lossy(new));
            }
            bytes = self.output.grew.wait_timeout(bytes, Duration::from_millis(100)).unwrap().0;
        }
    }

    /// Waits until anything new is shown.
    pub(crate) fn wait_for_more(&mut self) {
        let first = |new: &[u8]| (!new.is_empty()).then_some(1);
        self.wait_until("anything", first);
    }

    /// Waits for the prompt.
    pub(crate) fn prompt(&mut self) -> String {
        self.wait("> \r\x1b[2C")
    }

    /// Waits for the prompt or for the end of the program; `true` for the prompt.
    pub(crate) fn prompt_or_end(&mut self) -> bool {
        let prompts = |all: String| all.matches("> \r\x1b[2C").count();
        let before = prompts(String::from_utf8_lossy(&self.output.bytes.lock().unwrap()[..self.seen]).into_owned());
        let start = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if prompts(self.all()) > before {
                self.prompt();
                return true;
            }
            assert!(start.elapsed() < DEADLINE, "{:?}", self.all());
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// Everything that was sent to the terminal.
    pub(crate) fn all(&self) -> String {
        String::from_utf8_lossy(&self.output.bytes.lock().unwrap()).into_owned()
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        self.pty.resize(Size::new(rows, columns)).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Makes the terminal show `text`, behind all that the program has written.
    fn show(&mut self, text: &str) {
        rustix::io::write(&self.pts, text.as_bytes()).unwrap();
        self.wait(text);
    }

    /// Waits for the end, after which the terminal has its modes back and nothing waits in it for the next program.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if start.elapsed() > DEADLINE => {
                    let _ = self.child.kill();
                    panic!("still there: {:?}", self.all());
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        assert_eq!(modes(&self.pts), self.modes, "the modes are those of before");
        self.show("(the shell)");
        let all = self.all();
        assert!(!all.contains("panicked"), "{all}");
        assert_eq!(all.matches("\x1b[?2004h").count(), all.matches("\x1b[?2004l").count(), "{all}");
        let has_colour = all
            .split("\x1b[")
            .skip(1)
            .any(|order| order.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m'));
        assert!(!has_colour, "there is no colour that NO_COLOR would have to take away: {all:?}");
        // Without lines, every waiting byte can be read.
        let mut raw = tcgetattr(&self.pts).unwrap();
        raw.make_raw();
        tcsetattr(&self.pts, OptionalActions::Now, &raw).unwrap();
        let mut fds = [PollFd::new(&self.pts, PollFlags::IN)];
        let waiting = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
        assert_eq!(waiting, 0, "input is left for the shell");
        (status, all)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

/// A shell starts programs in the background with SIGINT ignored, and they pass that on. A signal with a handler is passed on
/// with its default, here too.
fn hear_interrupts() {
    static HEARD: Once = Once::new();
    HEARD.call_once(|| {
        let always = Arc::new(AtomicBool::new(true));
        register_conditional_default(SIGINT, always).unwrap();
    });
}

fn modes(pts: &Pts) -> String {
    format!("{:?}", tcgetattr(pts).unwrap())
}
