//! `bitnet offload`: a coprocessor in a process of its own, on a pseudo-terminal.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use pty_process::blocking::open;
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

/// A device whose answers have the form of answers and another content.
#[test]
fn wrong_answers_are_told() {
    let (pty, pts) = open().unwrap();
    let mut modes = tcgetattr(&pts).unwrap();
    modes.make_raw();
    tcsetattr(&pts, OptionalActions::Now, &modes).unwrap();
    let terminal = ttyname(&pts, Vec::new()).unwrap().into_string().unwrap();
    let mut line = File::from(std::os::fd::OwnedFd::from(pty));
    std::thread::spawn(move || {
        let mut collector = Collector::new(vec![0; coded_bytes(MAX_BODY_BYTES)]);
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = line.read(&mut bytes) {
            for &byte in &bytes[..n] {
                let Some(Ok(frame)) = collector.push(byte).map(decode) else { continue };
                let length = Request::parse(frame.kind, frame.body).unwrap().answer_bytes();
                let mut code = vec![0; coded_bytes(length)];
                let n = encode(frame.kind | ANSWER, frame.sequence, &vec![9; length], &mut code).unwrap();
                line.write_all(&code[..n]).unwrap();
            }
        }
    });
    let ended = bitnet(["offload", "check", &terminal, "--requests", "5", "--deadline-ms", "600000"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((count(&report, "by_device"), count(&report, "wrong")), (5, 5), "{report}");
    assert!(ended.stderr.contains("5 answers differ"), "{}", ended.stderr);
}
