//! Costs of a request and of a connection in each model, and its throughput with many clients. Servers are
//! processes of the built executable; the scheduler places them.

use std::cell::OnceCell;

use criterion::{Criterion, SamplingMode, Throughput};
use echobench_clients::Driver;
use echobench_servers::textbook_models;

use crate::common::{self, SIZES, Server, bare_loop, load};

const CONNECTIONS: u32 = 64;

/// Round trips: one connection, one request at a time.
pub(crate) fn round_trip(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "round_trip");
    group.throughput(Throughput::Elements(1));
    for model in textbook_models() {
        let server = OnceCell::new();
        for (size, bytes) in SIZES {
            group.bench_function(format!("{}/{size}", model.name), |bencher| {
                let address = server.get_or_init(|| Server::start(model.name)).address;
                bencher.iter_custom(|count| bare_loop(address, bytes, count, true));
            });
        }
    }

    group.finish();
}

/// Connections: connect, one request, close, one after the other.
pub(crate) fn connection(criterion: &mut Criterion) {
    by_load(criterion, "connection", 1, Some(1));
}

/// Throughput: many connections, each of which sends its next request after the reply.
pub(crate) fn throughput(criterion: &mut Criterion) {
    by_load(criterion, "throughput", CONNECTIONS, None);
}

fn by_load(
    criterion: &mut Criterion,
    name: &str,
    clients: u32,
    requests_per_connection: Option<u64>,
) {
    let mut group = common::group(criterion, name);
    group
        .throughput(Throughput::Elements(1))
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10);

    for model in textbook_models() {
        let server = OnceCell::new();
        group.bench_function(model.name, |bencher| {
            let address = server.get_or_init(|| Server::start(model.name)).address;
            bencher.iter_custom(|count| {
                load(
                    address,
                    Driver::Threads,
                    clients,
                    requests_per_connection,
                    count,
                )
            });
        });
    }

    group.finish();
}
