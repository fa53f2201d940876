//! `cargo bench`: one group per question, all of them in less than ten minutes on two CPUs.

mod analysis;
mod client;
mod codec;
mod common;
mod primitives;
mod servers;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group!(
    name = benches;
    // Drawing plots takes longer than measuring.
    config = Criterion::default().without_plots();
    targets =
        primitives::spawn,
        primitives::ipc,
        servers::round_trip,
        servers::connection,
        servers::throughput,
        codec::codec,
        analysis::analysis,
        // Last, since it pins this process to one CPU.
        client::client
);
criterion_main!(benches);
