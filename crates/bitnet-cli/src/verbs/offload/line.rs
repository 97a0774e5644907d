//! Serial lines and pseudo-terminals that carry bytes as they are.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rlm_embed::offload::{Coprocessor, Link, OffloadPolicy, StreamLink};
use rustix::fs::{FileType, Mode, OFlags, fstat};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, QueueSelector, isatty, tcflush, tcgetattr, tcsetattr};

/// Opens the line of a device. A terminal is set to raw mode: no echo, no line editing, no control characters; bytes that wait on it
/// for an earlier host are dropped.
fn open(path: &Path) -> Result<File> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let line = rustix::fs::open(path, flags, Mode::empty());
    let line = line.with_context(|| format!("cannot open the device {}", path.display()))?;
    let mode = fstat(&line).with_context(|| format!("cannot look at {}", path.display()))?.st_mode;
    // Frames that were written to a file would replace what it holds.
    ensure!(
        FileType::from_raw_mode(mode) == FileType::CharacterDevice,
        "{} is no serial line: name a device such as /dev/ttyACM0",
        path.display()
    );
    if isatty(&line) {
        let made_ready = set_raw(&line).and_then(|()| tcflush(&line, QueueSelector::IFlush));
        made_ready.with_context(|| format!("cannot set the modes of {}", path.display()))?;
    }
    Ok(File::from(line))
}

/// The coprocessor at the end of the serial line `path`.
///
/// # Errors
/// A path that is no serial line, or one that cannot be used.
pub(crate) fn coprocessor(path: &Path, policy: OffloadPolicy) -> Result<Coprocessor<Box<dyn Link>>> {
    let line = open(path)?;
    let writer = line.try_clone().context("cannot use the device")?;
    let link = StreamLink::new(line, writer).context("cannot start a thread")?;
    // A number that no earlier host has counted from, as far as chance allows.
    let sequence = RandomState::new().hash_one(0) as u32;
    Ok(Coprocessor::new(Box::new(link), policy, sequence))
}

fn set_raw(terminal: impl AsFd) -> rustix::io::Result<()> {
    let mut modes = tcgetattr(&terminal)?;
    modes.make_raw();
    tcsetattr(&terminal, OptionalActions::Now, &modes)
}

/// The device's end of a new pseudo-terminal.
#[derive(Debug)]
pub(super) struct DeviceEnd {
    ours: File,
    /// Held until a host has written: before that, reading a terminal that nothing has opened is an error.
    theirs: Option<OwnedFd>,
}

impl DeviceEnd {
    /// Makes a pseudo-terminal in raw mode. Returns the name of the host's end, too.
    pub(super) fn new() -> Result<(DeviceEnd, String)> {
        let made = || {
            let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
            grantpt(&ours)?;
            unlockpt(&ours)?;
            let name = ptsname(&ours, Vec::new())?;
            let theirs = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
            set_raw(&theirs)?;
            Ok::<_, rustix::io::Errno>((ours, theirs, name))
        };
        let (ours, theirs, name) = made().context("cannot make a pseudo-terminal")?;
        let name = name.into_string().context("the name of the pseudo-terminal is not UTF-8")?;
        Ok((DeviceEnd { ours: File::from(ours), theirs: Some(theirs) }, name))
    }

    /// The same end, to write to.
    pub(super) fn writer(&self) -> Result<File> {
        self.ours.try_clone().context("cannot use the pseudo-terminal")
    }
}

impl Read for DeviceEnd {
    /// Ends when the host that has written has closed the terminal.
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let n = self.ours.read(bytes)?;
        self.theirs = None;
        Ok(n)
    }
}
