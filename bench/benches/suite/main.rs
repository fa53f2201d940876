//! `cargo bench`: each group one question, all of them in less than ten minutes on two CPUs.

mod analysis;
mod client;
mod codec;
mod common;
mod primitives;
mod servers;

use criterion::{Criterion, criterion_group, criterion_main};

criterion_group!(
    name = benches;
    // Drawing would take longer than measuring.
    config = Criterion::default().without_plots();
    targets =
        primitives::spawn,
        primitives::ipc,
        servers::round_trip,
        servers::connection,
        servers::throughput,
        codec::codec,
        analysis::analysis,
        // The last, as it keeps this process on one CPU.
        client::client
);
criterion_main!(benches);
