//! Costs of the protocol itself: a client encodes a frame, and a server's session receives it and sends it
//! back, on one CPU.

use std::hint::black_box;
use std::time::UNIX_EPOCH;

use criterion::{Criterion, Throughput};
use echobench_protocol::{Header, Limits, Service, Session, Step, Work};

use crate::common::{self, SIZES, frame};

pub(crate) fn codec(criterion: &mut Criterion) {
    common::pin_to_one_cpu();
    let mut group = common::group(criterion, "codec");
    for (size, bytes) in SIZES {
        let payload = vec![7; bytes as usize];
        let request = frame(&payload);
        group.throughput(Throughput::Bytes(request.len() as u64));

        let mut buffer = Vec::with_capacity(request.len());
        group.bench_function(format!("encode/{size}"), |bencher| {
            bencher.iter(|| {
                let header = Header {
                    work: Work::None,
                    payload_len: black_box(bytes),
                    sequence: black_box(1),
                };
                buffer.clear();
                buffer.extend_from_slice(&header.encode());
                buffer.extend_from_slice(black_box(&payload));
                black_box(buffer.as_slice());
            });
        });

        let mut session = Session::new(Service::Echo, Limits::default(), UNIX_EPOCH);
        group.bench_function(format!("decode/{size}"), |bencher| {
            bencher.iter(|| serve(&mut session, black_box(&request)));
        });
    }

    group.finish();
}

/// The work of a server for a frame, without the system calls.
fn serve(session: &mut Session, mut request: &[u8]) {
    loop {
        match session.step() {
            Step::Receive if request.is_empty() => break,
            Step::Receive => {
                let space = session.space();
                let count = space.len().min(request.len());
                space[..count].copy_from_slice(&request[..count]);
                request = &request[count..];
                session.received(count);
            }
            Step::Work(_) => session.worked(),
            Step::Send => {
                let count = black_box(session.output()).len();
                session.sent(count);
            }
            step => panic!("unexpected {step:?}"),
        }
    }
}
