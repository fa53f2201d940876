//! `cargo bench`: one group per question, all of them in a few minutes on two CPUs.

mod analysis;
mod client;
mod codec;
mod common;
mod primitives;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group!(
    name = benches;
    // Drawing plots takes longer than measuring.
    config = Criterion::default().without_plots();
    targets =
        primitives::spawn,
        primitives::ipc,
        analysis::analysis,
        // Last, since they pin this process to one CPU.
        codec::codec,
        client::client
);
criterion_main!(benches);
