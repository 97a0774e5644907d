//! Server-sent events: the frames of an answer while it is computed.
//!
//! The headers leave at once. While nothing happens, a ping leaves every second, so that no client gives up during a long
//! prompt.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use hyper::body::Frame;
use serde_json::Value;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::answer::{Happening, Run};

/// Silence before a ping.
const PING_AFTER: Duration = Duration::from_secs(1);
/// The time in which a client has to take a frame.
const STALL: Duration = Duration::from_secs(30);
/// Frames between the writer and the connection.
const FRAMES: usize = 8;

/// A dialect of answers in pieces.
pub(crate) trait Encoder: Send + 'static {
    /// Bytes that keep a connection alive.
    const PING: &str = ":\n\n";

    /// Writes what follows from something that happened to answer number `choice`.
    fn take(&mut self, choice: usize, happening: Happening, out: &mut Frames);

    /// Writes the end of the stream, behind the end of the last answer.
    fn finish(&mut self, out: &mut Frames);
}

/// Frames that are ready to be sent.
#[derive(Debug, Default)]
pub(crate) struct Frames(String);

impl Frames {
    /// A frame without a name.
    pub(crate) fn data(&mut self, value: &Value) {
        self.text(&value.to_string());
    }

    /// A frame without a name whose data are no JSON.
    pub(crate) fn text(&mut self, text: &str) {
        self.0.push_str("data: ");
        self.0.push_str(text);
        self.0.push_str("\n\n");
    }

    /// Words that clients pass over.
    pub(crate) fn comment(&mut self, text: &str) {
        self.0.push_str(": ");
        self.0.push_str(text);
        self.0.push_str("\n\n");
    }

    /// A frame named by the `type` of its object.
    pub(crate) fn event(&mut self, value: &Value) {
        self.0.push_str("event: ");
        self.0.push_str(value["type"].as_str().unwrap_or_default());
        self.0.push('\n');
        self.data(value);
    }
}

/// The response to a request whose answers are streamed.
pub(crate) fn respond<E: Encoder>(run: Run, encoder: E) -> Response {
    let (to, from) = channel(FRAMES);
    tokio::spawn(pump(run, encoder, to));
    let mut response = Response::new(Body::new(FrameBody(from)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that buffer would hold the frames back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Sends frames until the answers have ended or the client is gone; dropping `run` then cancels what is left.
async fn pump<E: Encoder>(mut run: Run, mut encoder: E, to: Sender<Bytes>) {
    let mut frames = Frames::default();
    let mut goes_on = true;
    while goes_on {
        let next = tokio::select! {
            next = tokio::time::timeout(PING_AFTER, run.next()) => next,
            () = to.closed() => return,
        };
        match next {
            Err(_) => frames.0.push_str(E::PING),
            Ok(Some((choice, happening))) => {
                goes_on = !matches!(happening, Happening::Failed(_));
                encoder.take(choice, happening, &mut frames);
            }
            Ok(None) => {
                encoder.finish(&mut frames);
                goes_on = false;
            }
        }
        if !frames.0.is_empty() {
            let bytes = Bytes::from(std::mem::take(&mut frames.0));
            if !matches!(tokio::time::timeout(STALL, to.send(bytes)).await, Ok(Ok(()))) {
                return;
            }
        }
    }
}

/// The frames as a body.
struct FrameBody(Receiver<Bytes>);

impl hyper::body::Body for FrameBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
