//! Frames under every kind of damage, and requests to a device with faults on a virtual clock.

use std::time::Duration;

use proptest::prelude::*;
use rlm_embed::offload::answer::answer;
use rlm_embed::offload::codec::{CodecError, Collector, MAX_BODY_BYTES, coded_bytes, decode, encode};
use rlm_embed::offload::message::{MAX_SCHEDULE, Request};
use rlm_embed::offload::{Coprocessor, Faults, Link, NullStm32, OffloadCounts, OffloadPolicy, SimulatedStm32};

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

/// Requests of all kinds, by number.
struct Made {
    bytes: Vec<u8>,
    numbers: Vec<[u8; 4]>,
}

impl Made {
    fn new(i: u32) -> Made {
        let numbers = (0..i % 9).map(|n| ((i * 7 + n * 3) as f32 * 0.37).sin().to_le_bytes()).collect();
        Made { bytes: i.to_le_bytes().repeat(1 + i as usize % 40), numbers }
    }

    fn request(&self, i: u32) -> Request<'_> {
        match i % 5 {
            0 => Request::ComputeHash(&self.bytes),
            1 => Request::FilterNeighbors { threshold: 0.1, scores: &self.numbers },
            2 => Request::GateCheck {
                confidence: (i % 10) as f32 * 0.1,
                least_confidence: 0.5,
                contradictions: i % 3,
                most_contradictions: 1,
            },
            3 => Request::WatchdogPing(u64::from(i) << 20),
            _ => Request::ScheduleReorder(&self.numbers),
        }
    }
}

/// Asks 10,000 requests; every answer must be that of the software, within its deadline.
fn ask_all(faults: Faults) -> OffloadCounts {
    let policy = OffloadPolicy::default();
    let mut device = Coprocessor::new(SimulatedStm32::new(faults, 18), policy);
    let mut null = Coprocessor::new(NullStm32::new(), policy);
    for i in 0..10_000 {
        let made = Made::new(i);
        let request = made.request(i);
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
    let none = Faults::default();
    let clean = ask_all(none);
    assert_eq!((clean.by_device, clean.retries, clean.stray_frames, clean.bad_frames), (10_000, 0, 0, 0));
    for faults in [
        Faults { delay: 200, ..none },
        Faults { drop: 200, ..none },
        Faults { duplicate: 300, ..none },
        Faults { corrupt: 300, ..none },
        Faults { reorder: 300, ..none },
        Faults { hang: 1, ..none },
        Faults { reset: 100, ..none },
        Faults { delay: 50, drop: 50, duplicate: 50, corrupt: 50, reorder: 50, hang: 1, reset: 20 },
    ] {
        let counts = ask_all(faults);
        assert!(counts.by_device > 5_000, "{faults:?}: {counts:?}");
        assert!(counts.by_device < 10_000 || faults.duplicate + faults.reorder > 0, "{faults:?} does something");
    }
    let counts = ask_all(Faults { corrupt: 300, ..none });
    assert!(counts.bad_frames > 1000, "damaged frames were seen and dropped: {counts:?}");
    // A late answer is no answer to the next request; the answer to the second sending comes before it.
    let counts = ask_all(Faults { reorder: 300, ..none });
    assert!(counts.stray_frames > 1000 && counts.retries > 1000, "late answers were seen and dropped: {counts:?}");
    let counts = ask_all(Faults { duplicate: 300, ..none });
    assert!(counts.stray_frames > 1000, "second answers were seen and dropped: {counts:?}");
}

#[test]
fn a_schedule_that_no_device_takes_is_refused_at_once() {
    let mut device = Coprocessor::new(NullStm32::new(), OffloadPolicy::default());
    let priorities = vec![[0; 4]; MAX_SCHEDULE + 1];
    let sorted = device.ask(&Request::ScheduleReorder(&priorities[1..])).unwrap();
    assert!(sorted.by_device && sorted.body.len() == 2 * MAX_SCHEDULE);
    assert_eq!(device.ask(&Request::ScheduleReorder(&priorities)), Err(CodecError::TooLong));
    assert_eq!(answer(&Request::ScheduleReorder(&priorities), &mut vec![0; 40_000]), Err(CodecError::TooLong));
}

#[test]
fn a_device_that_never_answers_costs_few_deadlines() {
    let dead = Faults { drop: 1000, ..Faults::default() };
    let mut device = Coprocessor::new(SimulatedStm32::new(dead, 1), OffloadPolicy::default());
    for i in 0..1000 {
        assert!(!device.ask(&Made::new(i).request(i)).unwrap().by_device);
    }
    assert!(device.link().now() < Duration::from_millis(20 * 40), "{:?}", device.link().now());
}
