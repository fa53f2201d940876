//! CPU accounting over the whole life of a server, also of children that come and go: what is read
//! from outside while it lives against what the kernel says when all of it has been reaped. And the CPUs
//! on which it may run.

use std::fs;
use std::time::{Duration, Instant};

use crate::common::available_models;
use echobench::host::cpus::{allowed_cpus, cpu_ranges};
use echobench::host::process_tree;
use echobench::processes::child::ChildProcess;
use echobench::processes::messages::{FromSupervisor, ToSupervisor};
use echobench_clients::{Driver, Plan, Window, Workload, clock};

const PATIENCE: Duration = Duration::from_secs(60);
/// The kernel rounds the CPU time of reaped children down to ticks of 10 ms, user and system apart.
const TICKS_NS: u64 = 20_000_000;

fn hear(supervisor: &ChildProcess) -> FromSupervisor {
    supervisor
        .receive(Instant::now() + PATIENCE)
        .expect("the supervisor speaks")
}

#[test]
fn cpu_read_from_outside_agrees_with_what_was_reaped() {
    let executable = env!("CARGO_BIN_EXE_echobench");
    for model in available_models() {
        let arguments = ["supervise", "--", executable, "serve", model.name].map(str::to_owned);
        let mut supervisor =
            ChildProcess::spawn_executable(executable.as_ref(), model.name, &arguments).unwrap();
        let FromSupervisor::Ready { address, .. } = hear(&supervisor) else {
            panic!("not ready")
        };
        // Churn, with enough work that a tick is little.
        let plan = Plan {
            target: address.parse().unwrap(),
            driver: Driver::Threads,
            clients: 4,
            part: None,
            source_addresses: Vec::new(),
            task_threads: 1,
            workload: Workload {
                work: "spin:1ms".parse().unwrap(),
                requests_per_connection: Some(1),
                timeout_ns: 60_000_000_000,
                ..Workload::default()
            },
            windows: vec![Window {
                start_ns: 0,
                measure_ns: 0,
                end_ns: u64::MAX,
                requests: Some(1500),
            }],
            end_ns: None,
        };
        let report = echobench_clients::run(&plan, clock::now).unwrap();
        assert_eq!(report.windows[0].answered, 1500, "{}", model.name);
        let now = clock::now();
        supervisor
            .send(&ToSupervisor::Watch {
                cpu_at_ns: vec![now],
                memory_at_ns: now,
                memory_until_ns: now,
            })
            .unwrap();
        let FromSupervisor::Watched { cpu, .. } = hear(&supervisor) else {
            panic!("not watched")
        };
        let seen = cpu[0].expect("the server was there").total_ns();
        supervisor.send(&ToSupervisor::Stop).unwrap();
        let FromSupervisor::Exited {
            clean,
            cpu_ns: reaped,
            ..
        } = hear(&supervisor)
        else {
            panic!("not gone")
        };
        assert!(clean, "{}", model.name);
        assert!(
            reaped >= 1_500_000_000,
            "{}: 1,500 times 1 ms, not {reaped} ns",
            model.name
        );
        let apart = seen.abs_diff(reaped);
        assert!(
            apart <= reaped / 50 + TICKS_NS,
            "{}: {seen} seen, {reaped} reaped",
            model.name
        );
    }
}

#[test]
fn a_server_is_pinned_and_its_supervisor_is_not() {
    let allowed = allowed_cpus().unwrap();
    let last = allowed.last().unwrap().to_string();
    let arguments = ["supervise", "--cpus", &last, "--own", "--", "serve", "fork"];
    let executable = env!("CARGO_BIN_EXE_echobench").as_ref();
    let mut supervisor =
        ChildProcess::spawn_executable(executable, "fork", &arguments.map(str::to_owned)).unwrap();
    let FromSupervisor::Ready { .. } = hear(&supervisor) else {
        panic!("not ready")
    };

    let processes = process_tree::tree(supervisor.id()).unwrap();
    let cpus = processes.iter().map(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        line.unwrap().trim().to_owned()
    });
    assert_eq!(cpus.collect::<Vec<_>>(), [cpu_ranges(&allowed), last]);

    supervisor.send(&ToSupervisor::Stop).unwrap();
    let FromSupervisor::Exited { clean: true, .. } = hear(&supervisor) else {
        panic!("not gone")
    };
}
