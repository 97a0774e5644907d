//! `bitnet offload`: a coprocessor in a process of its own, on a pseudo-terminal.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use pty_process::blocking::{Pts, open};
use rlm_embed::offload::answer::answer;
use rlm_embed::offload::codec::{Collector, MAX_BODY_BYTES, coded_bytes, decode, encode};
use rlm_embed::offload::message::{ANSWER, Request};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr, ttyname};
use serde_json::Value;

use crate::common::{bitnet, variables};

/// Starts a device with `faults`; the process and the name of its terminal.
fn device(faults: &[&str]) -> (Child, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitnet"));
    for name in variables() {
        command.env_remove(name);
    }
    let mut child = command.args(["offload", "simulate"]).args(faults).stdout(Stdio::piped()).spawn().unwrap();
    let mut name = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut name).unwrap();
    (child, name.trim().to_owned())
}

fn count(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap()
}

#[test]
fn a_device_on_a_terminal_answers_every_request_and_ends_with_its_host() {
    let (mut child, terminal) = device(&[]);
    let report = bitnet(["offload", "check", &terminal, "--requests", "500", "--deadline-ms", "600000"]).json();
    assert_eq!((count(&report, "by_device"), count(&report, "wrong")), (500, 0), "{report}");
    assert!(child.wait().unwrap().success());

    let faults =
        ["--delay=50", "--drop=50", "--duplicate=50", "--corrupt=50", "--reorder=50", "--hang=5", "--reset=20"];
    let (mut child, terminal) = device(&faults);
    let report = bitnet(["offload", "check", &terminal, "--requests", "500"]).json();
    assert_eq!(count(&report, "by_device") + count(&report, "by_software"), 500, "{report}");
    assert_eq!(count(&report, "wrong"), 0, "{report}");
    assert!(child.wait().unwrap().success());
    assert!(bitnet(["offload", "check", "no/such/device"]).refusal().contains("no/such/device"));
}

/// A new pseudo-terminal in raw mode: the device's end, the host's end, and its name.
fn terminal() -> (File, Pts, String) {
    let (pty, pts) = open().unwrap();
    let mut modes = tcgetattr(&pts).unwrap();
    modes.make_raw();
    tcsetattr(&pts, OptionalActions::Now, &modes).unwrap();
    let name = ttyname(&pts, Vec::new()).unwrap().into_string().unwrap();
    (File::from(OwnedFd::from(pty)), pts, name)
}

/// A whole answer of the device.
fn coded(kind: u8, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut code = vec![0; coded_bytes(body.len())];
    let n = encode(kind | ANSWER, sequence, body, &mut code).unwrap();
    code.truncate(n);
    code
}

/// The right answer to a request, changed to another one that an answer to it could be.
fn wrong_answer(request: &Request<'_>) -> Vec<u8> {
    let mut body = vec![0; request.answer_bytes()];
    answer(request, &mut body).unwrap();
    match request {
        Request::FilterNeighbors { .. } | Request::GateCheck { .. } => body.iter_mut().for_each(|byte| *byte ^= 1),
        Request::ScheduleReorder(_) => body.as_chunks_mut::<2>().0.reverse(),
        Request::ComputeHash(_) | Request::WatchdogPing(_) => body.iter_mut().for_each(|byte| *byte ^= 9),
    }
    body
}

/// A device whose answers have the form of answers and another content.
#[test]
fn wrong_answers_are_told() {
    let (mut line, _host_end, terminal) = terminal();
    std::thread::spawn(move || {
        let mut collector = Collector::new(vec![0; coded_bytes(MAX_BODY_BYTES)]);
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = line.read(&mut bytes) {
            for &byte in &bytes[..n] {
                let Some(Ok(frame)) = collector.push(byte).map(decode) else { continue };
                let body = wrong_answer(&Request::parse(frame.kind, frame.body).unwrap());
                line.write_all(&coded(frame.kind, frame.sequence, &body)).unwrap();
            }
        }
    });
    let ended = bitnet(["offload", "check", &terminal, "--requests", "5", "--deadline-ms", "600000"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((count(&report, "by_device"), count(&report, "wrong")), (5, 5), "{report}");
    assert!(ended.stderr.contains("5 answers differ"), "{}", ended.stderr);
}

/// On the line of a device that says nothing an answer to an earlier host waits.
#[test]
fn a_device_without_an_answer_is_told_and_bytes_for_an_earlier_host_are_dropped() {
    let (mut line, _host_end, terminal) = terminal();
    line.write_all(&coded(4, 1, &[1; 8])).unwrap();
    for device in [&*terminal, "/dev/null"] {
        let ended = bitnet(["offload", "check", device, "--requests", "5", "--deadline-ms", "1"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        let counts = ["by_device", "by_software", "wrong", "stray_frames", "bad_frames"].map(|of| count(&report, of));
        assert_eq!(counts, [0, 5, 0, 0, 0], "{report}");
        assert!(ended.stderr.contains("answered no request"), "{}", ended.stderr);
    }
}

#[test]
fn a_file_is_no_device_and_keeps_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model.gguf");
    std::fs::write(&model, [7; 100]).unwrap();
    let sentence = bitnet(["offload", "check", model.to_str().unwrap(), "--requests", "5"]).refusal();
    assert!(sentence.contains("model.gguf is no serial line"), "{sentence}");
    assert_eq!(std::fs::read(&model).unwrap(), [7; 100]);
}

/// The fates of chunks are those that the software gives, with faults on the line too.
#[test]
fn chunks_are_taken_in_with_the_help_of_a_device() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let chunks = path("chunks.txt");
    let text = |n: usize| format!("Bridge {} over the river {} carries {n} carts.\n\n", n % 5, n / 9);
    std::fs::write(&chunks, (0..60).map(text).collect::<String>()).unwrap();
    let take = |index: &str, more: &[&str]| {
        let args = ["index", "build", index, &chunks, "-m", "hash", "--threads", "1", "--preset", "pi5"];
        bitnet([&args[..], more].concat())
    };
    let alone = path("alone.rlm");
    let fates = take(&alone, &[]);
    assert!(fates.stderr.contains("refused"), "{}", fates.stderr);
    for faults in [&["--drop=50", "--corrupt=50", "--duplicate=100"][..], &[]] {
        let (mut child, terminal) = device(faults);
        let index = path("device.rlm");
        let _ = std::fs::remove_file(&index);
        let helped = take(&index, &["--device", &terminal]);
        assert_eq!(helped.stderr, fates.stderr.replace(&alone, &index), "{faults:?}");
        let said = helped.done();
        let answered =
            said.lines().find_map(|line| line.split_once(", ")?.1.strip_suffix(" of them answered by the coprocessor"));
        assert!(answered.unwrap().parse::<u32>().unwrap() > 50, "{said}");
        assert!(std::fs::read(&index).unwrap() == std::fs::read(&alone).unwrap());
        assert!(child.wait().unwrap().success());
    }
    let refused = take(&path("no.rlm"), &["--device", "no/such/device"]).refusal();
    assert!(refused.contains("no/such/device"), "{refused}");
    let alone = bitnet(["index", "build", "i", "f", "-m", "hash", "--device", "d"]).usage();
    assert!(alone.contains("--preset"), "{alone}");
}
