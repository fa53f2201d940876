//! The client end of a session, in memory.

use std::time::SystemTime;

use echobench_protocol::{Header, Limits, Service, Session, Step, Work};

/// The result of a session.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) output: Vec<u8>,
    pub(crate) work: Vec<Work>,
    pub(crate) answered: u32,
    /// The sending side was shut down before the end.
    pub(crate) finished: bool,
    pub(crate) protocol_error: bool,
}

pub(crate) fn session(service: Service) -> Session {
    Session::new(service, Limits::default(), SystemTime::UNIX_EPOCH)
}

/// Runs a session whose client sends `input` and closes. Each read and write carries at most as many
/// bytes as the next of `portions`, or everything once these are used up.
pub(crate) fn run_session(
    mut session: Session,
    mut input: &[u8],
    portions: impl IntoIterator<Item = usize>,
) -> Outcome {
    let mut portions = portions.into_iter();
    let mut portion = move || portions.next().unwrap_or(usize::MAX).max(1);
    let mut outcome = Outcome::default();

    loop {
        match session.step() {
            Step::Receive => {
                let space = session.space();
                assert!(!space.is_empty());
                let count = portion().min(space.len()).min(input.len());
                space[..count].copy_from_slice(&input[..count]);
                input = &input[count..];
                session.received(count);
            }
            Step::Work(work) => {
                outcome.work.push(work);
                session.worked();
            }
            Step::Send => {
                let output = session.output();
                assert!(!output.is_empty());
                let count = portion().min(output.len());
                outcome.output.extend_from_slice(&output[..count]);
                outcome.answered += session.sent(count);
            }
            Step::Finish => {
                outcome.finished = true;
                session.finished();
            }
            Step::Close => break,
        }
    }

    outcome.protocol_error = session.protocol_error();
    outcome
}

/// Encodes a request.
pub(crate) fn frame(sequence: u64, payload: &[u8], work: Work) -> Vec<u8> {
    let header = Header {
        work,
        payload_len: u32::try_from(payload.len()).unwrap(),
        sequence,
    };
    [header.encode().as_slice(), payload].concat()
}
