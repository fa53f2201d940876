//! Fuzz target: the session, fed with any bytes in any pieces, sends what the protocol asks for.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use echobench_protocol::{
    HEADER_LEN, Header, Limits, MAGIC, Reason, Service, Session, Step, error_reason,
};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    max_payload: 1000,
    max_work: Duration::from_secs(1),
};

fuzz_target!(|input: &[u8]| {
    let [service, pieces, bytes @ ..] = input else {
        return;
    };
    let service = [Service::Echo, Service::Raw][usize::from(service % 2)];
    let (sent, protocol_error) = run_session(service, bytes, usize::from(*pieces) + 1);

    let (expected, refused) = match service {
        Service::Echo => expected(bytes),
        _ => (bytes.len(), None),
    };

    assert!(
        sent[..expected] == bytes[..expected],
        "not the bytes received"
    );
    assert_eq!(error_reason(&sent[expected..]), refused);
    assert!(refused.is_some() || sent.len() == expected);
    assert_eq!(protocol_error, refused.is_some() || expected < bytes.len());
});

/// Returns the number of bytes that come back as they are, and the reason for refusing the rest.
fn expected(bytes: &[u8]) -> (usize, Option<Reason>) {
    let mut at = 0;
    while let Some((header, _)) = bytes[at..].split_first_chunk::<HEADER_LEN>() {
        match Header::decode(header, &LIMITS) {
            Err(reason) => return (at, Some(reason)),
            Ok(header) if bytes.len() - at < header.frame_len() => break,
            Ok(header) => at += header.frame_len(),
        }
    }

    // An impossible start of a frame is refused before the header is complete.
    let rest = &bytes[at..bytes.len().min(at + MAGIC.len())];
    let refused = !MAGIC.starts_with(rest);
    (at, refused.then_some(Reason::BadMagic))
}

/// Runs a session that receives `bytes` in pieces and sends in others. Returns the bytes sent, and
/// whether the client broke the protocol.
fn run_session(service: Service, bytes: &[u8], piece: usize) -> (Vec<u8>, bool) {
    let mut session = Session::new(service, LIMITS, UNIX_EPOCH);
    let mut rest = bytes;
    let mut sent = Vec::new();

    // Each step moves at least a byte, does some work, or ends the connection.
    for _ in 0..10 * (bytes.len() + 1000) {
        match session.step() {
            Step::Receive => {
                let space = session.space();
                assert!(!space.is_empty());
                let count = piece.min(space.len()).min(rest.len());
                space[..count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                session.received(count);
            }
            Step::Work(work) => {
                assert!(work.duration() <= LIMITS.max_work);
                session.worked();
            }
            Step::Send => {
                let output = session.output();
                let count = (piece * 3 / 2).min(output.len());
                sent.extend_from_slice(&output[..count]);
                session.sent(count);
            }
            Step::Finish => session.finished(),
            Step::Close => return (sent, session.protocol_error()),
        }
    }
    panic!("the session does not end: {:?}", session.step());
}
