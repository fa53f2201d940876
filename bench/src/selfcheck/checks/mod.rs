//! The checks: each measures a figure whose correct value is known.

mod ceiling;
mod delay;
mod lag;
mod omission;
mod stall;

use std::time::{Duration, Instant};

use anyhow::Context;
use echobench_clients::WindowReport;
use nix::sys::prctl::set_timerslack;

use super::report::{Bound, Check, CheckVerdict, LessonLine, SelfcheckReport, Unit};
use super::rig::{Disturbance, LEAST_CALM, Load, LoadOutcome, Rig};
use crate::host::cpus::CpuIdleGuard;
use crate::host::machine::Machine;
use crate::host::signals::{catch_interrupts, interrupted, unless_interrupted};
use crate::host::time::nanoseconds;
use crate::processes::start::Server;
use crate::results::SCHEMA_VERSION;

/// Largest relative error of a percentile.
const TOLERANCE: f64 = 0.03;
/// Requests per second of the loads that meet stalls.
const STALL_RATE: f64 = 1_000.0;

/// A group of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Known delays.
    Delay,
    /// A server that stops in every second, under an open and a closed loop.
    Omission,
    /// Every model, stopped during a load.
    Stall,
    /// Send lag of the generator, and its CPU time.
    Lag,
    /// Largest throughput of the generator.
    Ceiling,
}

echobench_protocol::textual_enum!(Group, "check", {
    Delay => "delay",
    Omission => "omission",
    Stall => "stall",
    Lag => "lag",
    Ceiling => "ceiling",
});

/// Options of the checks.
pub(crate) struct ChecksOptions {
    /// Groups to run; all of them if there are none.
    pub(crate) only: Vec<Group>,
    /// The long form.
    pub(crate) full: bool,
}

/// Lengths of the loads.
struct Lengths {
    floor: Duration,
    slow: Duration,
    fast: Duration,
    omission: Duration,
    omission_closed: Duration,
    calm: Duration,
    stalled: Duration,
    lag: Duration,
    ceiling: Duration,
    /// Largest number of attempts at a load.
    tries: u32,
}

impl Lengths {
    fn new(full: bool) -> Self {
        let ms = |short, long| Duration::from_millis(if full { long } else { short });

        Lengths {
            floor: ms(1_500, 3_000),
            slow: ms(4_000, 10_000),
            fast: ms(1_500, 4_000),
            // Whole seconds, since a second is the period of the stalls.
            omission: ms(4_000, 10_000),
            omission_closed: ms(2_000, 10_000),
            calm: ms(500, 2_000),
            // p99.9 needs 3,688 requests.
            stalled: ms(4_000, 10_000),
            lag: ms(1_300, 5_000),
            ceiling: ms(400, 2_000),
            tries: if full { 4 } else { 1 },
        }
    }
}

/// Runs the groups of checks; `progress` gets a line before each step. Checks that are done before an
/// interrupt are in the report.
pub(crate) fn run(
    options: &ChecksOptions,
    progress: &dyn Fn(&str),
) -> anyhow::Result<SelfcheckReport> {
    catch_interrupts().context("cannot catch interrupts")?;
    let before = Machine::read();
    let began = Instant::now();
    // Without slack a stop begins and ends on time; where that is refused, its true length is measured.
    let _ = set_timerslack(1);
    // A reply is late if its CPU has to wake up first, which says nothing about the generator.
    let awake = CpuIdleGuard::hold().ok();

    let mut bench = Bench {
        rig: Rig::new()?,
        lengths: Lengths::new(options.full),
        progress,
        checks: Vec::new(),
        lesson: Vec::new(),
        machine: Disturbance::default(),
    };
    let wanted = |group: &&Group| options.only.is_empty() || options.only.contains(group);
    for &group in Group::ALL.iter().filter(wanted) {
        unless_interrupted(bench.run_group(group))?;
        if interrupted() {
            break;
        }
    }

    let verdict = if interrupted() {
        CheckVerdict::Interrupted
    } else {
        SelfcheckReport::worst(&bench.checks)
    };
    Ok(SelfcheckReport {
        schema_version: SCHEMA_VERSION,
        verdict,
        split: bench.rig.is_split(),
        awake: awake.is_some(),
        load_average_before: before.load_average,
        load_average_after: Machine::read().load_average,
        elapsed_ns: nanoseconds(began.elapsed()),
        disturbance: bench.machine,
        checks: bench.checks,
        lesson: bench.lesson,
    })
}

/// Checks in progress.
struct Bench<'a> {
    rig: Rig,
    lengths: Lengths,
    progress: &'a dyn Fn(&str),
    checks: Vec<Check>,
    lesson: Vec<LessonLine>,
    /// Activity of the machine beside all loads.
    machine: Disturbance,
}

impl Bench<'_> {
    fn run_group(&mut self, group: Group) -> anyhow::Result<()> {
        match group {
            Group::Delay => self.check_delays(),
            Group::Omission => self.check_omission(),
            Group::Stall => self.check_stalls(),
            Group::Lag => self.check_lag(),
            Group::Ceiling => self.check_ceiling(),
        }
    }

    /// Puts a load on a server. In the long form a disturbed load is repeated a few times; latencies have
    /// no part in that decision.
    fn load(
        &mut self,
        server: &Server,
        load: &Load,
        disturbed: impl Fn(&LoadOutcome) -> bool,
    ) -> anyhow::Result<LoadOutcome> {
        let mut tries = self.lengths.tries;
        loop {
            let (outcome, ()) = self.rig.load(server, load, |_| Ok(()))?;
            self.machine = self.machine.and(&outcome.machine);
            tries -= 1;
            if tries == 0 || !disturbed(&outcome) {
                return Ok(outcome);
            }
        }
    }

    /// Judges a time.
    fn check_time(
        &mut self,
        group: &'static str,
        what: String,
        bound: Bound,
        measured: Option<f64>,
        (machine, disturbance): (&Disturbance, Option<String>),
    ) {
        let unit = Unit::Nanoseconds;
        let check = Check::new(group, what, unit, bound, measured, disturbance);
        self.checks.push(check.on(machine));
    }
}

/// Name of a quantile as a percentile, as in `p99.9`.
fn percentile_name(q: f64) -> String {
    format!("p{}", (1e3 * q).round() / 10.0)
}

/// Whether something disturbed the highest percentile of a load, hiccups left out.
fn is_disturbed(outcome: &LoadOutcome) -> bool {
    outcome.calm().judge(0.99).1.is_some()
}

/// Share of the requests whose send lag can be judged, in percent.
fn calm_share(window: &WindowReport) -> f64 {
    100.0 * window.calm_lag.len() as f64 / window.lag.len().max(1) as f64
}

/// Reason why quantile `q` of the send lag cannot be judged, if any.
fn lag_disturbance(outcome: &LoadOutcome, q: f64) -> Option<String> {
    let share = calm_share(outcome.last());
    let too_few =
        || format!("only {share:.0} % of the requests were without a hiccup or a wait for a reply");
    let few = (share < LEAST_CALM).then(too_few);
    few.or(outcome.machine.without_hiccups().reason(q))
}
