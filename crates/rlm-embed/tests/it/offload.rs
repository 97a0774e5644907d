//! Frames under every kind of damage, and requests to a device with faults on a virtual clock.

#[path = "../../../../fuzz/frames.rs"]
mod frames;

use std::io::{ErrorKind, Write};
use std::time::Duration;

use proptest::prelude::*;
use rlm_embed::offload::answer::answer;
use rlm_embed::offload::codec::{CodecError, Collector, MAX_BODY_BYTES, coded_bytes, decode, encode};
use rlm_embed::offload::message::{ANSWER, MAX_SCHEDULE, Request};
use rlm_embed::offload::{
    Coprocessor, Faults, FaultyStm32, Link, NullStm32, OffloadCounts, OffloadPolicy, SimulatedStm32, StreamLink, Trial,
};

fn coded(kind: u8, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0; coded_bytes(body.len())];
    let n = encode(kind, sequence, body, &mut out).unwrap();
    out.truncate(n);
    out
}

/// The code of COBS for the published examples, without header and checksum, is tested through whole frames: no byte is 0
/// before the end, and every body comes back.
#[test]
fn bodies_of_every_length_around_the_runs_come_back() {
    for length in (0..600).chain([1016, 1017, 65_000, MAX_BODY_BYTES]) {
        for fill in [|_| 0u8, |i| (i % 255 + 1) as u8, |i| (i % 7) as u8] {
            let body: Vec<u8> = (0..length).map(fill).collect();
            let mut code = coded(9, length as u32, &body);
            assert_eq!(code.iter().position(|&byte| byte == 0), Some(code.len() - 1));
            code.pop();
            let frame = decode(&mut code).unwrap();
            assert_eq!((frame.kind, frame.sequence, frame.body.len()), (9, length as u32, length));
            assert!(frame.body == body);
        }
    }
    let long = vec![1; MAX_BODY_BYTES + 1];
    assert_eq!(encode(1, 1, &long, &mut vec![0; 80_000]), Err(CodecError::TooLong));
    assert_eq!(encode(1, 1, b"body", &mut [0; 10]), Err(CodecError::TooLong));
}

#[test]
fn every_changed_bit_is_noticed() {
    let code = coded(2, 77, b"some body with a \0 in it");
    for at in 0..code.len() - 1 {
        for bit in 0..8 {
            let mut damaged = code[..code.len() - 1].to_vec();
            damaged[at] ^= 1 << bit;
            if damaged[at] != 0 {
                assert!(decode(&mut damaged).is_err(), "byte {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn a_collector_finds_its_feet_after_garbage_and_long_codes() {
    let mut buffer = [0; 64];
    let mut collector = Collector::new(&mut buffer[..]);
    let stream = [&[7; 500][..], &[0, 0, 0], &coded(4, 1, &[1; 8]), b"junk", &[0], &coded(4, 2, &[2; 8])].concat();
    let mut found = Vec::new();
    for byte in stream {
        if let Some(code) = collector.push(byte) {
            found.extend(decode(code).ok().map(|frame| frame.sequence));
        }
    }
    assert_eq!(found, [1, 2]);
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(frame) = decode(&mut bytes) {
            let _ = Request::parse(frame.kind, frame.body);
        }
    }

    #[test]
    fn no_body_makes_a_request_panic(kind in 0u8..8, body in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(request) = Request::parse(kind, &body) {
            let mut again = vec![0; body.len()];
            prop_assert_eq!(request.write(&mut again), Ok(body.len()));
            prop_assert_eq!(&again, &body);
            let mut out = vec![0; request.answer_bytes()];
            prop_assert_eq!(answer(&request, &mut out), Ok(out.len()));
        }
    }
}

/// The properties that the fuzz target checks, on its seeds with up to three random changes and on noise.
#[test]
fn ten_thousand_random_lines_keep_the_properties_of_frames() {
    let seeds: Vec<Vec<u8>> = ["requests", "noise", "schedule"]
        .map(|name| std::fs::read(fixtures::path("../fuzz/seeds/frames").join(name)).unwrap())
        .to_vec();
    assert_eq!(frames::line(&seeds[0]), 5, "a frame of each kind");
    assert!(frames::request(&seeds[2]));
    let mut random = moe_runtime::SplitMix64::new(11);
    let (mut whole, mut requests) = (0, 0);
    for i in 0..10_000 {
        let mut bytes = seeds[i % 3].clone();
        for _ in 0..random.next_u64() % 4 {
            let at = random.next_u64() as usize % bytes.len();
            match random.next_u64() % 3 {
                0 => bytes[at] = random.next_u64() as u8,
                1 => bytes.insert(at, random.next_u64() as u8),
                _ => drop(bytes.drain(at..(at + 1 + i % 5).min(bytes.len() - 1).max(at))),
            }
        }
        whole += frames::line(&bytes);
        requests += usize::from(frames::request(&bytes));
    }
    assert!(whole > 5000 && requests > 1000, "{whole} frames and {requests} requests were among them");
}

/// Asks 10,000 requests; every answer must be that of the software, within its deadline.
fn ask_all(faults: Faults) -> OffloadCounts {
    let policy = OffloadPolicy::default();
    let mut device = Coprocessor::new(SimulatedStm32::new(faults, 18), policy, 0);
    let mut null = Coprocessor::new(NullStm32::new(), policy, 0);
    for i in 0..10_000 {
        let trial = Trial::new(i);
        let request = trial.request();
        let before = device.link().now();
        let reply = device.ask(&request).unwrap();
        let expected = null.ask(&request).unwrap();
        assert!(expected.by_device);
        assert_eq!(reply.body, expected.body, "request {i}");
        assert!(device.link().now() - before <= policy.deadline, "request {i}");
    }
    let counts = device.counts();
    assert_eq!((counts.requests, counts.by_device + counts.by_software), (10_000, 10_000));
    counts
}

#[test]
fn every_fault_leaves_the_answers_of_the_software() {
    let clean = ask_all(Faults::NONE);
    assert_eq!((clean.by_device, clean.retries, clean.stray_frames, clean.bad_frames), (10_000, 0, 0, 0));
    for faults in Faults::EACH {
        let counts = ask_all(faults);
        assert!(counts.by_device > 5_000, "{faults:?}: {counts:?}");
        assert!(counts.by_device < 10_000 || faults.duplicate + faults.reorder > 0, "{faults:?} does something");
    }
    let counts = ask_all(Faults { corrupt: 300, ..Faults::NONE });
    assert!(counts.bad_frames > 1000, "damaged frames were seen and dropped: {counts:?}");
    // A late answer is no answer to the next request; the answer to the second sending comes before it.
    let counts = ask_all(Faults { reorder: 300, ..Faults::NONE });
    assert!(counts.stray_frames > 1000 && counts.retries > 1000, "late answers were seen and dropped: {counts:?}");
    let counts = ask_all(Faults { duplicate: 300, ..Faults::NONE });
    assert!(counts.stray_frames > 1000, "second answers were seen and dropped: {counts:?}");
}

/// The same faults over streams, in a thread of their own: with no fault the device answers everything, and with all of them
/// no answer differs.
#[test]
fn a_device_behind_pipes_answers_as_the_software() {
    let all = Faults { delay: 50, drop: 50, duplicate: 50, corrupt: 50, reorder: 50, hang: 5, reset: 20 };
    for (faults, deadline) in [(Faults::default(), 600_000), (all, 20)] {
        let ((requests, to_device), (answers, to_host)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        let device = std::thread::spawn(move || {
            FaultyStm32::new(faults, 3).serve(&mut StreamLink::new(requests, to_host).unwrap())
        });
        let policy = OffloadPolicy { deadline: Duration::from_millis(deadline), ..OffloadPolicy::default() };
        let mut host = Coprocessor::new(StreamLink::new(answers, to_device).unwrap(), policy, 0);
        for i in 0..300 {
            let trial = Trial::new(i);
            let reply = host.ask(&trial.request()).unwrap();
            let mut expected = vec![0; reply.body.len()];
            answer(&trial.request(), &mut expected).unwrap();
            assert_eq!(reply.body, expected, "request {i}");
        }
        let counts = host.counts();
        assert_eq!((counts.requests, counts.by_device + counts.by_software), (300, 300));
        assert!(faults != Faults::default() || counts.by_device == 300, "{counts:?}");
        drop(host);
        device.join().unwrap().unwrap();
    }
}

/// A stream that has ended costs no deadline.
#[test]
fn without_a_stream_the_software_answers_at_once() {
    let ((requests, to_device), (answers, to_host)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    drop((requests, to_host));
    let policy = OffloadPolicy { deadline: Duration::from_secs(1 << 40), ..OffloadPolicy::default() };
    let mut host = Coprocessor::new(StreamLink::new(answers, to_device).unwrap(), policy, 0);
    assert!(!host.ask(&Request::WatchdogPing(1)).unwrap().by_device);
}

#[test]
fn a_schedule_that_no_device_takes_is_refused_at_once() {
    let mut device = Coprocessor::new(NullStm32::new(), OffloadPolicy::default(), 0);
    let priorities = vec![[0; 4]; MAX_SCHEDULE + 1];
    let sorted = device.ask(&Request::ScheduleReorder(&priorities[1..])).unwrap();
    assert!(sorted.by_device && sorted.body.len() == 2 * MAX_SCHEDULE);
    assert_eq!(device.ask(&Request::ScheduleReorder(&priorities)), Err(CodecError::TooLong));
    assert_eq!(answer(&Request::ScheduleReorder(&priorities), &mut vec![0; 40_000]), Err(CodecError::TooLong));
}

#[test]
fn a_device_that_never_answers_costs_few_deadlines() {
    let dead = Faults { drop: 1000, ..Faults::default() };
    let mut device = Coprocessor::new(SimulatedStm32::new(dead, 1), OffloadPolicy::default(), 0);
    for i in 0..1000 {
        assert!(!device.ask(&Trial::new(i).request()).unwrap().by_device);
    }
    assert!(device.link().now() < Duration::from_millis(20 * 40), "{:?}", device.link().now());
}

/// The answer to an earlier host waits in the pipe while a second host asks the same kind of request.
#[test]
fn a_late_answer_to_another_host_is_no_answer() {
    let ask = |sequence: u32| {
        let ((requests, to_device), (answers, mut to_host)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        to_host.write_all(&coded(4 | ANSWER, 1, &5u64.to_le_bytes())).unwrap();
        // Behind the answer the stream ends, so that the host waits for no deadline.
        drop(to_host);
        let policy = OffloadPolicy { deadline: Duration::from_secs(600), ..OffloadPolicy::default() };
        let mut host = Coprocessor::new(StreamLink::new(answers, to_device).unwrap(), policy, sequence);
        let reply = host.ask(&Request::WatchdogPing(6)).unwrap();
        drop(requests);
        (u64::from_le_bytes(reply.body.try_into().unwrap()), reply.by_device, host.counts().stray_frames)
    };
    assert_eq!(ask(1_000), (6, false, 1));
    // A host that counts from the number of the one before takes its answer.
    assert_eq!(ask(0), (5, true, 0));
}

/// A link whose host sends one request and does not read.
struct Deaf {
    request: Vec<u8>,
    end: ErrorKind,
}

impl Link for Deaf {
    fn now(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn send(&mut self, _: &[u8]) -> std::io::Result<()> {
        Err(self.end.into())
    }

    fn receive(&mut self, _: Duration) -> std::io::Result<Vec<u8>> {
        Ok(std::mem::take(&mut self.request))
    }
}

#[test]
fn a_device_ends_with_a_host_that_no_longer_reads() {
    let serve = |end| {
        let request = coded(4, 1, &[1; 8]);
        let mut device = FaultyStm32::new(Faults::NONE, 1);
        // This answer has been on its way for a second of the link when the device begins to serve.
        device.take(Duration::ZERO, &request);
        device.serve(&mut Deaf { request, end })
    };
    serve(ErrorKind::BrokenPipe).unwrap();
    assert_eq!(serve(ErrorKind::PermissionDenied).unwrap_err().kind(), ErrorKind::PermissionDenied);
}
