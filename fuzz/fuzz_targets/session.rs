//! Any bytes, in any pieces, to the state machine of a connection: what it sends is what the protocol
//! says.
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
    let (sent, fault) = serve(service, bytes, usize::from(*pieces) + 1);
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
    assert_eq!(fault, refused.is_some() || expected < bytes.len());
});

/// How many bytes come back as they are, and what is said of those that follow.
fn expected(bytes: &[u8]) -> (usize, Option<Reason>) {
    let mut at = 0;
    while let Some((header, _)) = bytes[at..].split_first_chunk::<HEADER_LEN>() {
        match Header::decode(header, &LIMITS) {
            Err(reason) => return (at, Some(reason)),
            Ok(header) if bytes.len() - at < header.frame_len() => break,
            Ok(header) => at += header.frame_len(),
        }
    }
    // What cannot become a frame is refused before there is enough for a header.
    let rest = &bytes[at..bytes.len().min(at + MAGIC.len())];
    let refused = !MAGIC.starts_with(rest);
    (at, refused.then_some(Reason::BadMagic))
}

/// Plays the owner of a connection on which `bytes` come in pieces, and go in others.
fn serve(service: Service, bytes: &[u8], piece: usize) -> (Vec<u8>, bool) {
    let mut session = Session::new(service, LIMITS, UNIX_EPOCH);
    let mut rest = bytes;
    let mut sent = Vec::new();
    // Each turn takes or gives a byte, does some work, or ends something.
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
            Step::Close => return (sent, session.fault()),
        }
    }
    panic!("it comes to no end: {:?}", session.step());
}
