//! Many requests at the same time, a part of which end badly: nothing is left behind, and the others keep their bytes.
//!
//! `BITNET_SOAK_REQUESTS` sets the number of requests; `cargo xtask prove soak` sends 12,000.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Server, read_reply};
use super::running::without_end;

const THREADS: usize = 8;
const PROMPTS: [&str; 3] = ["The ferry leaves the harbor", "Under the bridge there is a small", "A lamp"];
/// How much the peak may grow behind the first part: a slot gets its size when it first holds a long context.
const GROWTH_BYTES: u64 = 16 << 20;
const KEY: [(&str, &str); 1] = [("Authorization", "Bearer right")];

/// The ways in which a request goes, drawn by the next number.
#[derive(Clone, Copy)]
enum Way {
    Whole,
    Stream,
    SlowReader,
    LeaveInPrompt,
    LeaveInAnswer,
    LeaveInBody,
    TooLong,
    WrongKey,
}

const WAYS: [Way; 10] = [
    Way::Whole,
    Way::Whole,
    Way::Stream,
    Way::Stream,
    Way::SlowReader,
    Way::LeaveInPrompt,
    Way::LeaveInAnswer,
    Way::LeaveInBody,
    Way::TooLong,
    Way::WrongKey,
];

/// A client with its own sequence of numbers (a linear congruential generator, Knuth's constants).
struct Client<'a> {
    server: &'a Server,
    /// The answers that each prompt has alone.
    alone: &'a [String],
    endless: &'a Value,
    state: u64,
}

impl Client<'_> {
    fn draw(&mut self, n: usize) -> usize {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) as usize % n
    }

    fn send(&self, body: &Value, headers: &[(&str, &str)]) -> std::net::TcpStream {
        let mut socket = self.server.connect();
        let bytes = self.server.request("POST", "/v1/completions", headers, body.to_string().as_bytes());
        socket.write_all(&bytes).unwrap();
        socket
    }

    fn request(&mut self) {
        let way = WAYS[self.draw(WAYS.len())];
        let prompt = self.draw(PROMPTS.len());
        match way {
            Way::Whole => {
                let reply = read_reply(&mut self.send(&greedy(PROMPTS[prompt], false), &KEY));
                assert_eq!(reply.json()["choices"][0]["text"], self.alone[prompt], "{reply:?}");
            }
            Way::Stream => self.stream(prompt, Duration::ZERO),
            Way::SlowReader => self.stream(prompt, Duration::from_millis(3)),
            Way::LeaveInPrompt => {
                let long = greedy(&"Under the bridge there is a small boat. ".repeat(60), true);
                let socket = self.send(&long, &KEY);
                std::thread::sleep(Duration::from_millis(self.draw(30) as u64));
                drop(socket);
            }
            Way::LeaveInAnswer => {
                let mut socket = self.send(self.endless, &KEY);
                let read = 300 + self.draw(2000);
                socket.read_exact(&mut vec![0; read]).unwrap();
            }
            Way::LeaveInBody => {
                let mut socket = self.server.connect();
                let bytes =
                    self.server.request("POST", "/v1/completions", &KEY, greedy("x", false).to_string().as_bytes());
                let sent = self.draw(bytes.len());
                socket.write_all(&bytes[..sent]).unwrap();
            }
            Way::TooLong => {
                let reply = self.server.raw(&self.server.request("POST", "/v1/completions", &KEY, &[b' '; 30_000]));
                assert!(reply.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&reply));
            }
            Way::WrongKey => {
                let wrong = [("Authorization", "Bearer wrong")];
                assert_eq!(read_reply(&mut self.send(&greedy("x", false), &wrong)).status, 401);
            }
        }
    }

    /// Reads a stream in small pieces with a pause before each, and compares its text.
    fn stream(&mut self, prompt: usize, pause: Duration) {
        let mut socket = self.send(&greedy(PROMPTS[prompt], true), &KEY);
        let mut bytes = Vec::new();
        let mut piece = [0; 512];
        loop {
            std::thread::sleep(pause);
            match socket.read(&mut piece).unwrap() {
                0 => break,
                n => bytes.extend_from_slice(&piece[..n]),
            }
        }
        let text: String = super::client::parse(&bytes)
            .events()
            .iter()
            .filter_map(|(_, data)| serde_json::from_str::<Value>(data).ok())
            .filter_map(|event| event["choices"][0]["text"].as_str().map(str::to_owned))
            .collect();
        assert_eq!(text, self.alone[prompt]);
    }
}

fn greedy(prompt: &str, stream: bool) -> Value {
    json!({"prompt": prompt, "temperature": 0, "max_tokens": 16, "stream": stream})
}

fn descriptors(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count()
}

/// The largest resident memory so far, in bytes.
fn peak(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Lets every client send `each` requests, and waits until the server is idle; the time that the waiting took.
fn storm(clients: &mut [Client<'_>], each: usize) -> Duration {
    std::thread::scope(|scope| {
        for client in clients.iter_mut() {
            scope.spawn(move || (0..each).for_each(|_| client.request()));
        }
    });
    let (server, begun) = (clients[0].server, Instant::now());
    let busy = ["bitnet_requests_running", "bitnet_requests_waiting"];
    while busy.iter().any(|metric| metric_of(server, metric) != 0.0) {
        assert!(begun.elapsed() < Duration::from_secs(60), "requests of clients that left still run");
        std::thread::sleep(Duration::from_millis(5));
    }
    begun.elapsed()
}

/// As [`Server::metric`], with the key.
fn metric_of(server: &Server, name: &str) -> f64 {
    let text = server.send("GET", "/metrics", &KEY, b"").body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[test]
#[allow(clippy::print_stdout, reason = "`cargo xtask prove soak` reads the figures")]
fn requests_that_end_badly_leave_nothing_behind() {
    let requests: usize = std::env::var("BITNET_SOAK_REQUESTS").map_or(120, |n| n.parse().unwrap());
    let more = ["--slots", "8", "-c", "1024", "--api-key", "right", "--max-body", "20000", "--prompt-cache-ram", "4MB"];
    let server = Server::start(&more);
    let alone = PROMPTS.map(|prompt| {
        let body = greedy(prompt, false).to_string();
        let reply = server.send("POST", "/v1/completions", &KEY, body.as_bytes());
        reply.json()["choices"][0]["text"].as_str().unwrap().to_owned()
    });
    let endless = without_end(&server, &KEY, json!({"prompt": "A lamp", "max_tokens": 900, "stream": true}));
    let mut clients: Vec<Client<'_>> = (0..THREADS as u64)
        .map(|seed| Client { server: &server, alone: &alone, endless: &endless, state: seed })
        .collect();
    // Caches, stacks and pools of the allocator reach their size in the first part.
    let each = requests.div_ceil(THREADS);
    let first = each / 3;
    storm(&mut clients, first);
    let (fds, bytes) = (descriptors(&server), peak(&server));
    let idle_after = storm(&mut clients, each - first);
    let (fds_now, bytes_now) = (descriptors(&server), peak(&server));
    println!(
        "soak: {} requests, {fds} then {fds_now} descriptors, peak {bytes} then {bytes_now} bytes, idle after {} ms",
        each * THREADS,
        idle_after.as_millis()
    );
    assert!(fds_now <= fds + 2, "{fds} descriptors grew to {fds_now}");
    assert!(bytes_now <= bytes + GROWTH_BYTES, "the peak grew from {bytes} to {bytes_now} bytes");
    assert!(metric_of(&server, "bitnet_answer_total{finish=\"cancelled\"}") > 0.0);
    // The connection that asks is the only one; that of an earlier question may take a moment to close.
    let begun = Instant::now();
    while metric_of(&server, "bitnet_connections") != 1.0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "connections stay open");
    }
    // Every slot still answers.
    let held = metric_of(&server, "bitnet_slot_tokens");
    assert!(held <= 8.0 * 1024.0, "{held}");
    clients.iter_mut().for_each(|client| client.stream(0, Duration::ZERO));
}
