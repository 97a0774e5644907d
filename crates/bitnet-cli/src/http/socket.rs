//! A connection that ends when its client stops reading.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A stream whose writes fail with [`io::ErrorKind::TimedOut`] when the other side takes no byte for a time.
pub(super) struct Socket<S> {
    stream: S,
    patience: Duration,
    /// Runs while a write waits.
    deadline: Pin<Box<Sleep>>,
    is_waiting: bool,
}

impl<S> Socket<S> {
    /// Has to be called within a Tokio runtime, whose clock it uses.
    pub(super) fn new(stream: S, patience: Duration) -> Socket<S> {
        Socket { stream, patience, deadline: Box::pin(sleep(patience)), is_waiting: false }
    }

    /// The result of a write that may have to wait.
    fn within<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.is_waiting = false;
            return written;
        }
        if !self.is_waiting {
            self.is_waiting = true;
            self.deadline.as_mut().reset(Instant::now() + self.patience);
        }
        ready!(self.deadline.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.within(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.within(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.within(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};

    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Writes until the stream takes no more; the error.
    async fn fill(socket: &mut Socket<TcpStream>) -> io::Error {
        loop {
            let written = poll_fn(|context| Pin::new(&mut *socket).poll_write(context, &[0; 1 << 16])).await;
            if let Err(error) = written {
                return error;
            }
        }
    }

    #[test]
    fn a_client_that_takes_no_byte_ends_the_connection() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let mut socket = Socket::new(listener.accept().await.unwrap().0, Duration::from_millis(50));
            assert_eq!(fill(&mut socket).await.kind(), io::ErrorKind::TimedOut);
            // Reads have no deadline, and the other direction is open still.
            client.write_all(b"x").unwrap();
            let mut byte = [0];
            let mut buffer = ReadBuf::new(&mut byte);
            poll_fn(|context| Pin::new(&mut socket).poll_read(context, &mut buffer)).await.unwrap();
            assert_eq!(buffer.filled(), b"x");
            drop(socket);
            assert!(client.read(&mut byte).is_ok());
        });
    }
}
