//! Streams cut into pieces of any size: the reply does not depend on them.

use std::iter::repeat_n;
use std::time::Duration;

use crate::endpoint::{frame, run_session, session};
use echobench_protocol::{Service, Work};
use proptest::collection::vec;
use proptest::prelude::*;

fn work() -> impl Strategy<Value = Work> {
    let micros = |limit| (0..limit).prop_map(Duration::from_micros);
    prop_oneof![
        3 => Just(Work::None),
        1 => micros(60_000_000_u64).prop_map(Work::Block),
        1 => micros(60_000_000_u64).prop_map(Work::Spin),
    ]
}

/// Requests, a few of them larger than the initial buffer.
fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let payload = prop_oneof![
        4 => vec(any::<u8>(), 0..100),
        1 => vec(any::<u8>(), 4000..10_000),
    ];
    let frame = (any::<u64>(), payload, work())
        .prop_map(|(sequence, payload, work)| frame(sequence, &payload, work));
    vec(frame, 0..20)
}

/// Sizes of reads and writes.
fn portions() -> impl Strategy<Value = Vec<usize>> {
    vec(
        prop_oneof![1..4_usize, 1..100_usize, 1..10_000_usize],
        0..500,
    )
}

proptest! {
    #[test]
    fn requests_come_back_as_they_are(frames in frames(), portions in portions()) {
        let input = frames.concat();
        let outcome = run_session(session(Service::Echo), &input, portions);
        prop_assert!(outcome.output == input);
        prop_assert_eq!(outcome.answered as usize, frames.len());
        prop_assert!(!outcome.protocol_error);
        let whole = run_session(session(Service::Echo), &input, []);
        prop_assert_eq!(outcome.work, whole.work);
    }

    #[test]
    fn also_byte_by_byte(frames in frames()) {
        let input = frames.concat();
        let outcome = run_session(session(Service::Echo), &input, repeat_n(1, 2 * input.len()));
        prop_assert!(outcome.output == input);
        prop_assert_eq!(outcome.answered as usize, frames.len());
    }

    #[test]
    fn an_error_comes_at_the_same_place(
        frames in frames(),
        garbage in vec(any::<u8>(), 1..100),
        portions in portions(),
    ) {
        let input = [frames.concat(), garbage].concat();
        let whole = run_session(session(Service::Echo), &input, []);
        prop_assert_eq!(run_session(session(Service::Echo), &input, portions), whole);
    }

    #[test]
    fn any_input_ends_the_session(input in vec(any::<u8>(), 0..5000), portions in portions()) {
        let outcome = run_session(session(Service::Raw), &input, portions.clone());
        prop_assert!(outcome.output == input);
        run_session(session(Service::Echo), &input, portions.clone());
        run_session(session(Service::Time), &input, portions);
    }
}

#[test]
fn one_stream_at_every_place() {
    let frames = [
        frame(1, b"", Work::None),
        frame(2, b"some payload", Work::Block(Duration::from_millis(5))),
        frame(3, b"x", Work::None),
    ];
    let input = frames.concat();

    for first in 1..input.len() {
        for second in 1..=input.len() - first {
            let outcome = run_session(session(Service::Echo), &input, [first, second]);
            assert_eq!(outcome.output, input, "split after {first} and {second}");
            assert_eq!(outcome.answered, 3);
        }
    }
}
