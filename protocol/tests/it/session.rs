//! Every service, end to end in memory: replies, refusals and the end of the session.

use std::time::{Duration, SystemTime};

use crate::endpoint::{frame, run_session, session};
use echobench_protocol::{
    DEFAULT_MAX_PAYLOAD, HEADER_LEN, Limits, MAX_PAYLOAD, Reason, Service, Session, Step, Work,
    error_frame,
};

const SOME_WORK: Work = Work::Block(Duration::from_millis(1));

fn echo() -> Session {
    session(Service::Echo)
}

fn changed(byte: usize, value: u8) -> Vec<u8> {
    let mut frame = frame(9, b"", Work::None);
    frame[byte] = value;
    frame
}

#[test]
fn frames_come_back_and_work_is_done_in_their_order() {
    let spin = Work::Spin(Duration::from_micros(50));
    let input = [
        frame(1, b"one", Work::None),
        frame(2, b"", SOME_WORK),
        frame(3, b"three", Work::None),
        frame(4, b"four", spin),
    ]
    .concat();

    let outcome = run_session(echo(), &input, []);
    assert_eq!(outcome.output, input);
    assert_eq!(outcome.work, [SOME_WORK, spin]);
    assert_eq!(outcome.answered, 4);
    assert!(!outcome.protocol_error && !outcome.finished);
}

#[test]
fn a_reply_does_not_wait_for_the_work_of_the_next_request() {
    let mut session = echo();
    let first = frame(1, b"first", Work::None);
    let input = [first.clone(), frame(2, b"", SOME_WORK)].concat();
    session.space()[..input.len()].copy_from_slice(&input);
    session.received(input.len());

    assert_eq!(session.step(), Step::Send);
    assert_eq!(session.output(), first);
    assert_eq!(session.sent(first.len()), 1);
    assert_eq!(session.step(), Step::Work(SOME_WORK));
}

#[test]
fn invalid_requests_are_refused_with_their_reason() {
    let too_long = frame(9, b"", Work::Spin(Duration::from_millis(60_001)));
    let mut too_large = frame(9, b"", Work::None);
    too_large[12..16].copy_from_slice(&(DEFAULT_MAX_PAYLOAD + 1).to_be_bytes());

    for (input, reason, sequence) in [
        (changed(0, b'e'), Reason::BadMagic, 0),
        (changed(2, b'O'), Reason::BadMagic, 0),
        (changed(3, 0), Reason::UnknownVersion, 0),
        (changed(4, 1), Reason::UnknownFlags, 9),
        (changed(6, 1), Reason::UnknownFlags, 9),
        (changed(7, 1), Reason::UnknownFlags, 9),
        (changed(5, 3), Reason::UnknownWork, 9),
        (too_large, Reason::PayloadTooLarge, 9),
        (too_long, Reason::WorkTooLong, 9),
    ] {
        let good = frame(1, b"good", Work::None);
        let input = [good.clone(), input, frame(2, b"too late", Work::None)].concat();

        let outcome = run_session(echo(), &input, []);
        assert_eq!(
            outcome.output,
            [good, error_frame(reason, sequence)].concat()
        );
        assert_eq!(outcome.answered, 1);
        assert!(outcome.protocol_error && outcome.finished);
    }
}

#[test]
fn an_impossible_start_of_a_frame_is_refused_at_once() {
    let mut session = echo();
    session.space()[..2].copy_from_slice(b"EX");
    session.received(2);
    assert_eq!(session.step(), Step::Send);
    assert_eq!(session.output(), error_frame(Reason::BadMagic, 0));
}

#[test]
fn limits_are_inclusive() {
    let limits = Limits {
        max_payload: 3,
        max_work: Duration::from_millis(1),
    };
    let session = || Session::new(Service::Echo, limits, SystemTime::UNIX_EPOCH);
    let input = frame(1, b"abc", SOME_WORK);
    assert_eq!(run_session(session(), &input, []).output, input);
    let outcome = run_session(session(), &frame(1, b"abcd", Work::None), []);
    assert_eq!(outcome.output, error_frame(Reason::PayloadTooLarge, 1));
}

#[test]
fn no_setting_goes_beyond_the_format() {
    let limits = Limits {
        max_payload: u32::MAX,
        ..Limits::default()
    };
    let mut header = frame(1, b"", Work::None);
    header[12..16].copy_from_slice(&(MAX_PAYLOAD + 1).to_be_bytes());
    let session = Session::new(Service::Echo, limits, SystemTime::UNIX_EPOCH);
    let outcome = run_session(session, &header, []);
    assert_eq!(outcome.output, error_frame(Reason::PayloadTooLarge, 1));
}

#[test]
fn a_frame_cut_short_is_a_protocol_error_without_a_reply() {
    let whole = frame(1, b"payload", Work::None);
    for length in 1..whole.len() {
        let input = [whole.as_slice(), &whole[..length]].concat();
        let outcome = run_session(echo(), &input, []);
        assert_eq!(outcome.output, whole, "cut at {length}");
        assert!(outcome.protocol_error && !outcome.finished);
    }
    assert!(!run_session(echo(), b"", []).protocol_error);
}

#[test]
fn after_an_error_frame_the_rest_of_a_request_is_discarded() {
    // Larger than any limit, in pieces no larger than what is offered.
    let mut session = echo();
    session.space()[..2].copy_from_slice(b"GE");
    session.received(2);
    let length = session.output().len();
    assert_eq!(session.sent(length), 0);
    assert_eq!(session.step(), Step::Finish);
    session.finished();

    let mut discarded = 0;
    while session.step() == Step::Receive && discarded < MAX_PAYLOAD as usize + HEADER_LEN {
        // As little as a connection on one machine brings at a time.
        let count = session.space().len().min(4096);
        session.received(count);
        discarded += count;
    }

    assert!(discarded >= MAX_PAYLOAD as usize, "only {discarded} bytes");
}

#[test]
fn discarding_has_a_limit() {
    for count in [1, usize::MAX] {
        let mut session = echo();
        session.space()[0] = 0;
        session.received(1);
        let length = session.output().len();
        session.sent(length);
        session.finished();

        let mut reads = 0;
        while session.step() == Step::Receive {
            let count = count.min(session.space().len());
            session.received(count);
            reads += 1;
            assert!(reads < 10_000, "no limit on the reads that are discarded");
        }
        assert_eq!(session.step(), Step::Close);
    }
}

#[test]
fn the_raw_service_takes_anything() {
    let input = b"GET / HTTP/1.1\r\n\r\n\x00\xff".repeat(1000);
    let outcome = run_session(session(Service::Raw), &input, [1, 10, 100]);
    assert_eq!(outcome.output, input);
    assert!(!outcome.protocol_error && !outcome.finished);
}

#[test]
fn the_raw_service_reads_large_requests_in_large_pieces() {
    let mut session = session(Service::Raw);
    let mut sizes = Vec::new();
    for _ in 0..10 {
        let count = session.space().len();
        sizes.push(count);
        session.received(count);
        session.sent(count);
    }
    assert_eq!(sizes[..3], [4096, 8192, 16_384]);
    // It stops growing: a connection costs a bounded amount of memory.
    assert_eq!(sizes[9], 256 << 10);

    // Small requests leave it as it is.
    let size = session.space().len();
    session.received(1);
    session.sent(1);
    assert_eq!(session.space().len(), size);
}

#[test]
fn the_time_service_sends_the_time_it_is_given() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    let mut session = Session::new(Service::Time, Limits::default(), now);
    assert_eq!(session.output(), b"Sun, 06 Nov 1994 08:49:37 GMT\r\n");
    assert_eq!(session.sent(10), 0);
    assert_eq!(session.sent(21), 1);
    assert_eq!(session.step(), Step::Close);
}

#[test]
fn services_have_one_textual_form() {
    for &service in Service::ALL {
        assert_eq!(service.to_string().parse(), Ok(service));
    }
    let error = "chargen".parse::<Service>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown service 'chargen' (echo, raw, time)"
    );
}
