//! Costs of the load generator itself: a bare loop of writes and reads, the same with every reply compared,
//! and the load generator, with one connection on one CPU to a `thread` server.

use criterion::{Criterion, Throughput};
use echobench_clients::Driver;

use crate::common::{self, Server, bare_loop, load};

const PAYLOAD: u32 = 64;

pub(crate) fn client(criterion: &mut Criterion) {
    // The server inherits the CPU: on two of them, the wake-ups between these would be measured.
    common::pin_to_one_cpu();
    let server = Server::start("thread");
    let target = server.address;

    let mut group = common::group(criterion, "client");
    group.throughput(Throughput::Elements(1));
    for (name, check) in [("bare_loop", false), ("bare_loop_checked", true)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| bare_loop(target, PAYLOAD, iterations, check));
        });
    }

    for (name, driver) in [
        ("load_threads", Driver::Threads),
        ("load_tasks", Driver::Tasks),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| load(target, driver, PAYLOAD, iterations));
        });
    }

    group.finish();
}
