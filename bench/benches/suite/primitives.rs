//! Costs of starting a thread, process or task, and of sending a message. Each is timed by a process of its
//! own: nothing is forked from this one, which has threads and grows.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use echobench::host::cpus::allowed_cpus;
use echobench::processes::probe::{OPERATIONS, Probe, ProbeArgs};
use echobench::scenario::Placement;

use crate::common;

/// Memory of the process that forks, in MiB.
const RESIDENT: [u32; 4] = [0, 64, 256, 1024];

fn bench(group: &mut BenchmarkGroup<'_, WallTime>, name: String, args: &ProbeArgs) {
    let mut probe = None;
    group.bench_function(name, |bencher| {
        let start = || Probe::start_from(common::executable(), args).expect("a probe starts");
        let probe = probe.get_or_insert_with(start);
        bencher.iter_custom(|count| probe.time(count).expect("the probe measures"));
    });
}

/// Starts, all on one CPU, so that the work is measured and not the decisions of the scheduler.
pub(crate) fn spawn(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "spawn");
    for operation in OPERATIONS.iter().filter(|o| o.between().is_empty()) {
        let args = ProbeArgs {
            placement: Placement::Same,
            ..ProbeArgs::new(operation)
        };
        if operation.name == "fork" {
            for resident_mib in RESIDENT {
                let args = ProbeArgs {
                    resident_mib,
                    ..args.clone()
                };
                bench(&mut group, format!("fork/{resident_mib}MiB"), &args);
            }
        } else {
            bench(&mut group, operation.name.to_owned(), &args);
        }
    }

    group.finish();
}

/// Messages, with both ends on one CPU, and on different ones if there are two: that matters more than the
/// kind of channel.
pub(crate) fn ipc(criterion: &mut Criterion) {
    let mut group = common::group(criterion, "ipc");
    let several = allowed_cpus().is_ok_and(|cpus| cpus.len() > 1);
    let placements = [Placement::Same, Placement::Split];

    for placement in &placements[..=usize::from(several)] {
        for operation in OPERATIONS {
            for between in operation.between() {
                let args = ProbeArgs {
                    between: *between,
                    placement: *placement,
                    ..ProbeArgs::new(operation)
                };
                let name = format!("{placement}/{between}/{}", operation.name);
                bench(&mut group, name, &args);
            }
        }
    }

    group.finish();
}
