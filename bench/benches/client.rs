//! What does the load generator itself cost? One connection on one CPU: a bare loop of writes and
//! reads, the same with every reply compared, and the load generator, against one `thread` server.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use echobench::agent::bind;
use echobench::measure::{allowed_cpus, pin_current_process};
use echobench_clients::{Driver, Plan, Window, Workload, clock};
use echobench_protocol::{HEADER_LEN, Header, Work};

const PAYLOAD: u32 = 64;

struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_echobench"));
        command.args(["serve", "thread"]).stdout(Stdio::piped());
        let mut process = bind(&mut command).spawn().expect("the executable is built");
        let mut line = String::new();
        let output = process.stdout.take().expect("standard output is piped");
        BufReader::new(output)
            .read_line(&mut line)
            .expect("the server speaks");
        let address = line
            .trim()
            .strip_prefix("ready ")
            .expect("the server is ready");
        Server {
            address: address.parse().expect("an address"),
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

fn bare_loop(target: SocketAddr, iterations: u64, check: bool) -> Duration {
    let mut stream = TcpStream::connect(target).expect("the server listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let header = Header {
        work: Work::None,
        payload_len: PAYLOAD,
        sequence: 1,
    }
    .encode();
    let mut frame = vec![7; HEADER_LEN + PAYLOAD as usize];
    frame[..HEADER_LEN].copy_from_slice(&header);
    let mut reply = vec![0; frame.len()];
    let began = Instant::now();
    for _ in 0..iterations {
        stream.write_all(&frame).expect("the server reads");
        stream.read_exact(&mut reply).expect("the server replies");
        if check {
            assert!(black_box(&reply) == black_box(&frame));
        }
    }
    began.elapsed()
}

fn load_generator(target: SocketAddr, driver: Driver, iterations: u64) -> Duration {
    let plan = Plan {
        target,
        driver,
        clients: 1,
        task_threads: 1,
        workload: Workload {
            payload_bytes: PAYLOAD,
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
    assert_eq!(window.answered, iterations);
    Duration::from_nanos(window.last_ns - window.first_ns)
}

fn client(criterion: &mut Criterion) {
    let cpus = allowed_cpus().expect("the CPUs are known");
    pin_current_process(&cpus[..1]).expect("the CPU is allowed");
    let server = Server::start();
    let target = server.address;
    let mut group = criterion.benchmark_group("client");
    group.throughput(Throughput::Elements(1));
    group.bench_function("bare_loop", |bencher| {
        bencher.iter_custom(|iterations| bare_loop(target, iterations, false));
    });
    group.bench_function("bare_loop_checked", |bencher| {
        bencher.iter_custom(|iterations| bare_loop(target, iterations, true));
    });
    group.bench_function("load_threads", |bencher| {
        bencher.iter_custom(|iterations| load_generator(target, Driver::Threads, iterations));
    });
    group.bench_function("load_tasks", |bencher| {
        bencher.iter_custom(|iterations| load_generator(target, Driver::Tasks, iterations));
    });
    group.finish();
}

criterion_group!(benches, client);
criterion_main!(benches);
