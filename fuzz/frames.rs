//! The line of a coprocessor under arbitrary bytes, shared by the fuzz target and by the test of rlm-embed.
//!
//! **Invariant**: no bytes make these functions panic.

use rlm_embed::offload::codec::{Collector, coded_bytes, decode, encode};
use rlm_embed::offload::device::Device;
use rlm_embed::offload::message::{ANSWER, Request};

const BUFFER: usize = 4096;

/// Hands bytes to both ends of a line. Returns the number of frames among them.
pub(crate) fn line(data: &[u8]) -> usize {
    let mut host = Collector::new([0; BUFFER]);
    let mut device = Device::new([0; BUFFER], [0; BUFFER], [0; BUFFER]);
    let mut frames = 0;
    for &byte in data {
        let answer = device.push(byte).map(<[u8]>::to_vec);
        if let Some(Ok(frame)) = host.push(byte).map(decode) {
            frames += 1;
            let again = code(frame.kind, frame.sequence, frame.body);
            assert_eq!(parts(&again), (frame.kind, frame.sequence, frame.body.to_vec()), "a frame comes back");
            if let Some(answer) = &answer {
                let request = Request::parse(frame.kind, frame.body).expect("a device answers requests alone");
                let (kind, sequence, body) = parts(answer);
                assert_eq!((kind, sequence), (frame.kind | ANSWER, frame.sequence));
                assert_eq!(body.len(), request.answer_bytes());
            }
        } else {
            assert!(answer.is_none(), "a device answers frames alone");
        }
    }
    // The next 0 ends whatever the bytes have begun, and a request behind it is answered.
    let ping = code(4, 7, &[1; 8]);
    let answers = [&[0], &ping[..]].concat().into_iter().filter_map(|byte| device.push(byte).map(parts));
    let pong = answers.last().expect("the ping is answered");
    assert_eq!(pong, (4 | ANSWER, 7, vec![1; 8]));
    frames
}

/// Bytes as a request: the first one is its kind. Returns whether they are one.
pub(crate) fn request(data: &[u8]) -> bool {
    let Some((&kind, body)) = data.split_first() else { return false };
    let Ok(request) = Request::parse(kind, body) else { return false };
    let mut again = vec![0; body.len()];
    assert_eq!(request.write(&mut again), Ok(body.len()));
    assert_eq!(again, body);
    line(&code(kind, 1, body)) == 1
}

/// The code of a frame, the 0 at its end included.
pub(crate) fn code(kind: u8, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut code = vec![0; coded_bytes(body.len())];
    let n = encode(kind, sequence, body, &mut code).expect("the body fits a frame");
    code.truncate(n);
    code
}

/// Kind, sequence number and body of a whole code.
fn parts(code: &[u8]) -> (u8, u32, Vec<u8>) {
    let mut code = code[..code.len() - 1].to_vec();
    let frame = decode(&mut code).expect("our own code is a frame");
    (frame.kind, frame.sequence, frame.body.to_vec())
}
