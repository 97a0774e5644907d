//! A link over a stream of this machine: a serial line, a pipe, a socket.
//!
//! ```text
//! Coprocessor -- send --> [queue] -- writing thread --> stream --> device
//!             <- receive - [queue] <- reading thread -- stream <-- device
//! ```
//! Threads read and write, because a read has no deadline and a write to a device that hangs does not return.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

use super::client::Link;

/// Pieces that wait in either direction. A device that sends without being asked then waits itself.
const QUEUE: usize = 64;
/// Most bytes that are read at once.
const PIECE_BYTES: usize = 4096;

/// A stream to a device, on the clock of this machine.
///
/// When the link is dropped its writing thread ends, and its reading thread with the next byte or the end of the stream.
#[derive(Debug)]
pub struct StreamLink {
    start: Instant,
    outgoing: SyncSender<Vec<u8>>,
    incoming: Receiver<Vec<u8>>,
}

impl StreamLink {
    /// A link over both directions of a stream. A terminal must be in raw mode.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new(mut reader: impl Read + Send + 'static, mut writer: impl Write + Send + 'static) -> Result<StreamLink> {
        let (outgoing, to_write) = sync_channel::<Vec<u8>>(QUEUE);
        let (has_read, incoming) = sync_channel(QUEUE);
        Builder::new().name("offload write".to_owned()).spawn(move || {
            for bytes in to_write {
                if writer.write_all(&bytes).and_then(|()| writer.flush()).is_err() {
                    return;
                }
            }
        })?;
        Builder::new().name("offload read".to_owned()).spawn(move || {
            let mut piece = [0; PIECE_BYTES];
            loop {
                match reader.read(&mut piece) {
                    Ok(n @ 1..) if has_read.send(piece[..n].to_vec()).is_ok() => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    _ => return,
                }
            }
        })?;
        Ok(StreamLink { start: Instant::now(), outgoing, incoming })
    }
}

impl Link for StreamLink {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match self.outgoing.try_send(bytes.to_vec()) {
            Ok(()) | Err(TrySendError::Full(_)) => Ok(()),
            Err(TrySendError::Disconnected(_)) => Err(Error::from(ErrorKind::BrokenPipe)),
        }
    }

    fn receive(&mut self, until: Duration) -> Result<Vec<u8>> {
        match self.incoming.recv_timeout(until.saturating_sub(self.now())) {
            Ok(bytes) => Ok(bytes),
            Err(RecvTimeoutError::Timeout) => Ok(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => Err(Error::from(ErrorKind::UnexpectedEof)),
        }
    }
}
