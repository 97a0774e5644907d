//! `bitnet serve` as a child process, and requests to it over a socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::child::Scoped;
use crate::outcome::Outcome;

/// The time between two looks at a server that loads.
const LOOK: Duration = Duration::from_millis(50);

/// A server, which ends with this value.
pub(super) struct Served {
    child: Scoped,
    port: u16,
}

/// A reply whose body is still to be read.
pub(super) struct Stream(BufReader<TcpStream>);

impl Served {
    /// Serves a model on a free port of the loopback address, and waits until it is loaded.
    pub(super) fn start(binary: &Path, model: &Path, more: &[&str]) -> Outcome<Served> {
        let mut command = Command::new(binary);
        command.args(["serve", "--port", "0", "-m"]).arg(model).args(more);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut child = Scoped(child);
        let notes = child.0.stderr.take().ok_or("the server has no standard error")?;
        let mut served = Served { child, port: 0 };
        let mut lines = BufReader::new(notes).lines();
        let mut said = Vec::new();
        loop {
            let Some(line) = lines.next().transpose()? else {
                return Err(format!("`bitnet serve` ended: {}", said.join("\n")).into());
            };
            if let Some(port) = port_of(&line) {
                served.port = port;
                break;
            }
            said.push(line);
        }
        // Read to its end, so that the pipe never fills.
        std::thread::spawn(move || lines.for_each(drop));
        while served.get("/health")?.0 != 200 {
            if let Some(status) = served.child.0.try_wait()? {
                return Err(format!("`bitnet serve` ended with {status} while it loaded {}", model.display()).into());
            }
            std::thread::sleep(LOOK);
        }
        Ok(served)
    }

    /// Status and JSON of a route.
    pub(super) fn get(&self, path: &str) -> Outcome<(u16, Value)> {
        self.request(&format!("GET {path}"), "")?.json()
    }

    /// Status and JSON of the answer to a body.
    pub(super) fn post(&self, path: &str, body: &Value) -> Outcome<(u16, Value)> {
        self.open(path, body)?.json()
    }

    /// Sends a body; the reply can be read while it comes.
    pub(super) fn open(&self, path: &str, body: &Value) -> Outcome<Stream> {
        self.request(&format!("POST {path}"), &body.to_string())
    }

    fn request(&self, line: &str, body: &str) -> Outcome<Stream> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
        let length = body.len();
        let head =
            format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        socket.write_all(format!("{head}{body}").as_bytes())?;
        Ok(Stream(BufReader::new(socket)))
    }
}

impl Stream {
    /// Status and JSON of a whole reply with a known length.
    fn json(mut self) -> Outcome<(u16, Value)> {
        let mut text = String::new();
        self.0.read_to_string(&mut text)?;
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("a reply without a status")?;
        let (_, body) = text.split_once("\r\n\r\n").ok_or("a reply without a body")?;
        Ok((status, serde_json::from_str(body).unwrap_or_default()))
    }

    /// The next event of a stream and the time at which it was there; `None` at the end.
    ///
    /// # Errors
    /// A connection that breaks, and an event of an error.
    pub(super) fn event(&mut self) -> Outcome<Option<(Instant, Value)>> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.0.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let Some(data) = line.trim_end().strip_prefix("data: ").filter(|data| *data != "[DONE]") else { continue };
            let (time, event) = (Instant::now(), serde_json::from_str::<Value>(data)?);
            return match event.get("error") {
                Some(error) => Err(format!("the server answered {error}").into()),
                None => Ok(Some((time, event))),
            };
        }
    }
}

/// The port in the line that names the address.
fn port_of(line: &str) -> Option<u16> {
    line.split_once("listening on http://")?.1.rsplit_once(':')?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::port_of;

    #[test]
    fn the_address_has_the_port() {
        assert_eq!(port_of("listening on http://127.0.0.1:40123"), Some(40123));
        assert_eq!(port_of("loading"), None);
    }
}
