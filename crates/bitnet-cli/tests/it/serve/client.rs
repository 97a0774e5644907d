//! A server of a test, and a client that sees every byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{student, variables};

/// A running server, which ends with the value.
pub(super) struct Server {
    child: Child,
    pub(super) port: u16,
    /// Lines of its standard error behind the address.
    said: Arc<Mutex<Vec<String>>>,
}

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The events of a stream: the name, empty where there is none, and the data.
    pub(super) fn events(&self) -> Vec<(String, String)> {
        let mut events = Vec::new();
        for frame in self.body.split("\n\n").filter(|frame| !frame.is_empty() && !frame.starts_with(':')) {
            let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").to_owned();
            events.push((field("event: "), field("data: ")));
        }
        events
    }
}

impl Server {
    /// Serves the mini student.
    pub(super) fn start(more: &[&str]) -> Server {
        Server::start_model(student(), more)
    }

    pub(super) fn start_model(model: &str, more: &[&str]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bitnet"));
        for name in variables() {
            command.env_remove(name);
        }
        command.args(["serve", "-m", model, "--port", "0", "--threads", "1"]).args(more);
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).stdin(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let port = loop {
            let line = lines.next().unwrap_or_else(|| panic!("no address in {said:?}")).unwrap();
            if let Some((_, port)) = line.split_once("listening on http://").and_then(|(_, at)| at.rsplit_once(':')) {
                break port.parse().unwrap();
            }
            said.push(line);
        };
        let said = Arc::new(Mutex::new(Vec::new()));
        let later = said.clone();
        // All of it is read so that the pipe never fills.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| later.lock().unwrap().push(line)));
        let server = Server { child, port, said };
        server.wait_until_loaded();
        server
    }

    fn wait_until_loaded(&self) {
        let begun = Instant::now();
        while self.get("/health").status != 200 {
            assert!(begun.elapsed() < Duration::from_secs(120), "the model does not load");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the server has printed a line with these words; all lines so far.
    pub(super) fn said(&self, words: &str) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let said = self.said.lock().unwrap().clone();
            if said.iter().any(|line| line.contains(words)) {
                return said;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "no {words} in {said:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end of the process; its exit code.
    pub(super) fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        stream
    }

    /// Sends bytes as they are, and reads until the server closes.
    pub(super) fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // The server may close before it has read all.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        all
    }

    /// Sends a request with these headers, and reads the whole response.
    pub(super) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut stream = self.connect();
        stream.write_all(&self.request(method, path, headers, body)).unwrap();
        read_reply(&mut stream)
    }

    /// The bytes of a request; the connection closes behind it.
    pub(super) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: 127.0.0.1:{}\r\n", self.port));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }

    pub(super) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, &[], body.to_string().as_bytes())
    }

    /// The value of a metric, its labels included in the name.
    pub(super) fn metric(&self, name: &str) -> f64 {
        self.metric_if_any(name).unwrap_or_else(|| panic!("no {name}"))
    }

    /// As [`Server::metric`]; `None` for labels that nothing was counted under.
    pub(super) fn metric_if_any(&self, name: &str) -> Option<f64> {
        let text = self.get("/metrics").body;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map(|value| value.parse().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a response to the end of the connection.
pub(super) fn read_reply(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    parse(&bytes)
}

/// Takes a response apart.
pub(super) fn parse(bytes: &[u8]) -> Reply {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no headers in {:?}", String::from_utf8_lossy(bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let header = |line: &str| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    let headers: Vec<_> = lines.map(header).collect();
    let is_chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = &bytes[end + 4..];
    let body = if is_chunked { unchunk(body) } else { body.to_vec() };
    Reply { status, headers, body: String::from_utf8(body).unwrap() }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") else { return body };
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&bytes[end + 2..][..size]);
        bytes = &bytes[end + 2 + size + 2..];
    }
}
