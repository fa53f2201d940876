//! Allocations: none once a session has seen its largest frame.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use crate::endpoint::{frame, session};
use echobench_protocol::{Service, Session, Step, Work};

/// The allocator of the system, with a count of the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator is an unsafe trait")]
// SAFETY: every call is passed to the allocator of the system unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the contract of the caller is that of the allocator of the system.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above; the memory came from there.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Feeds the session with `input` in pieces of at most `portion` bytes.
fn feed(session: &mut Session, mut input: &[u8], portion: usize) {
    while !input.is_empty() {
        let space = session.space();
        let count = portion.min(space.len()).min(input.len());
        space[..count].copy_from_slice(&input[..count]);
        input = &input[count..];
        session.received(count);

        while session.step() != Step::Receive {
            match session.step() {
                Step::Work(_) => session.worked(),
                Step::Send => {
                    let count = session.output().len();
                    session.sent(count);
                }
                step => panic!("unexpected {step:?}"),
            }
        }
    }
}

#[test]
fn a_warm_session_allocates_nothing() {
    let large = frame(1, &vec![7; 50_000], Work::None);
    let mixed = [
        frame(2, &[1; 64], Work::None),
        frame(3, &[2; 3000], Work::Spin(Duration::from_micros(1))),
        large.clone(),
        frame(4, b"", Work::None),
    ]
    .concat();

    for portion in [1, 1000, usize::MAX] {
        let mut session = session(Service::Echo);
        feed(&mut session, &[large.as_slice(), &mixed].concat(), portion);

        let before = ALLOCATIONS.get();
        for _ in 0..10 {
            feed(&mut session, &mixed, portion);
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "in pieces of {portion}");
    }
}

#[test]
fn a_header_alone_takes_no_memory() {
    // It announces 1 MiB; only 24 bytes arrive.
    let header = &frame(1, &vec![0; 1 << 20], Work::None)[..24];
    let mut session = session(Service::Echo);
    feed(&mut session, header, usize::MAX);
    assert!(session.space().len() <= 4096);
}
