//! Parts that the groups share: their durations, a server of the built executable, and clients for it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use echobench::host::cpus::{allowed_cpus, pin_current_process};
use echobench::processes::{child::bind_lifetime, ready_address};
use echobench_clients::{Driver, Plan, Window, Workload, clock};
use echobench_protocol::{Header, Work};

/// Payload sizes, with their names in the names of benchmarks.
pub(crate) const SIZES: [(&str, u32); 3] = [("64B", 64), ("1KiB", 1024), ("64KiB", 65_536)];

/// A group whose benchmarks take about three seconds each.
pub(crate) fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20);
    group
}

/// Pins this process, and those that it starts from now on, to the first of its CPUs.
pub(crate) fn pin_to_one_cpu() {
    let cpus = allowed_cpus().expect("the CPUs are known");
    pin_current_process(&cpus[..1]).expect("the CPU is allowed");
}

/// The executable under test.
pub(crate) fn executable() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_echobench"))
}

/// A server process, killed when this is dropped.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start(model: &str) -> Self {
        let mut command = Command::new(executable());
        command.args(["serve", model]).stdout(Stdio::piped());
        let mut process = bind_lifetime(&mut command)
            .spawn()
            .expect("the executable is built");

        let mut line = String::new();
        let output = process.stdout.take().expect("standard output is piped");
        BufReader::new(output)
            .read_line(&mut line)
            .expect("the server prints a line");
        Server {
            address: ready_address(&line).expect("the server is ready"),
            process,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().expect("the server is there");
        self.process.wait().expect("the server ends");
    }
}

/// A frame with this payload.
pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    let header = Header {
        work: Work::None,
        payload_len: u32::try_from(payload.len()).expect("small payloads"),
        sequence: 1,
    };
    [&header.encode(), payload].concat()
}

/// Time of a number of requests on one connection, with nothing but a write and a read each.
pub(crate) fn bare_loop(
    target: SocketAddr,
    payload_bytes: u32,
    iterations: u64,
    check: bool,
) -> Duration {
    let mut stream = TcpStream::connect(target).expect("the server listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let frame = frame(&vec![7; payload_bytes as usize]);
    let mut reply = vec![0; frame.len()];

    let mut exchange = || {
        stream.write_all(&frame).expect("the server reads");
        stream.read_exact(&mut reply).expect("the server replies");
        assert!(!check || reply == frame, "a wrong reply");
    };

    // Without it, the first measured request would wait until the server has accepted.
    exchange();

    let began = Instant::now();
    for _ in 0..iterations {
        exchange();
    }

    began.elapsed()
}

/// Time of a number of requests on one connection by the load generator, from the first request to the last reply.
pub(crate) fn load(
    target: SocketAddr,
    driver: Driver,
    payload_bytes: u32,
    iterations: u64,
) -> Duration {
    let plan = Plan {
        target,
        driver,
        clients: 1,
        part: None,
        source_addresses: Vec::new(),
        task_threads: 1,
        workload: Workload {
            payload_bytes,
            ..Workload::default()
        },
        windows: vec![Window {
            start_ns: 0,
            measure_ns: 0,
            end_ns: u64::MAX,
            requests: Some(iterations),
        }],
        end_ns: None,
    };

    let report = echobench_clients::run(&plan, clock::now).expect("the server listens");
    let window = &report.windows[0];
    assert_eq!(window.answered, iterations, "{:?}", window.errors);
    Duration::from_nanos(window.last_ns - window.first_ns)
}
