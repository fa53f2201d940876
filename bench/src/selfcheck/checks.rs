//! The checks: each measures something whose right value is known.

use std::time::{Duration, Instant};

use anyhow::Context;
use echobench_clients::{Driver, WindowReport, clock, quantile};
use echobench_servers::MODELS;
use nix::sys::prctl::set_timerslack;
use nix::sys::signal::Signal;

use hdrhistogram::Histogram;

use super::arithmetic::{ahead_in_stall, stalled_quantile};
use super::report::{Bound, Check, LessonLine, SelfcheckReport, Unit};
use super::rig::{Disturbance, Load, Loaded, Rig, WARMUP, nanoseconds};
use crate::measure::Machine;
use crate::processes::Server;
use crate::results::SCHEMA_VERSION;

/// What a percentile may differ by from what arithmetic says.
const TOLERANCE: f64 = 0.03;
/// What the tail may differ by when a server was stopped.
const STALL_TOLERANCE_NS: f64 = 5e6;
/// How much a stop may raise the median.
const MEDIAN_LIMIT: f64 = 1.1;
const LAG_P50_NS: f64 = 1_000.0;
const LAG_P99_NS: f64 = 10_000.0;
/// The CPU a generator may take at a rate of 1,000 a second.
const LAG_CPU_SHARE: f64 = 0.15;
/// A disturbance spoils one such stretch, and the next where it reaches into it; the others are judged.
const LAG_WINDOW: Duration = Duration::from_millis(10);
/// The requests of a second that are checked for stalls.
const STALL_RATE: f64 = 1_000.0;

/// A group of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Group {
    /// Known delays of 5 ms and 500 µs come out as they are
    Delay,
    /// A server that stops for 100 ms in every second: an open loop shows it
    Omission,
    /// Every model, stopped in the middle of a load
    Stall,
    /// Requests leave when they are due, for little CPU time
    Lag,
    /// How much the generator itself can do
    Ceiling,
}

/// How long the parts take.
struct Lengths {
    floor: Duration,
    slow: Duration,
    fast: Duration,
    fast_closed: Duration,
    omission: Duration,
    omission_closed: Duration,
    calm: Duration,
    stalled: Duration,
    lag: Duration,
    ceiling: Duration,
}

impl Lengths {
    fn new(full: bool) -> Self {
        let ms = |short, long| Duration::from_millis(if full { long } else { short });
        Lengths {
            floor: ms(800, 3_000),
            slow: ms(2_100, 10_000),
            fast: ms(800, 4_000),
            fast_closed: ms(300, 4_000),
            // Whole seconds, since a second is the period of the stalls.
            omission: ms(4_000, 10_000),
            omission_closed: ms(2_000, 10_000),
            calm: ms(500, 2_000),
            // p99.9 needs 3,688 requests.
            stalled: ms(4_000, 10_000),
            lag: ms(1_300, 5_000),
            ceiling: ms(400, 2_000),
        }
    }
}

/// Runs the groups of checks, telling `progress` what comes next.
pub fn run(
    groups: &[Group],
    full: bool,
    progress: impl Fn(&str),
) -> anyhow::Result<SelfcheckReport> {
    let before = Machine::read();
    let began = Instant::now();
    // Stops begin and end when they should; where it is refused, they are measured as they are.
    let _ = set_timerslack(1);
    let mut bench = Bench {
        rig: Rig::new()?,
        lengths: Lengths::new(full),
        checks: Vec::new(),
        lesson: Vec::new(),
        machine: Disturbance::default(),
    };
    for group in groups {
        match group {
            Group::Delay => bench.delays(&progress)?,
            Group::Omission => {
                progress("a server that stops for 100 ms in every second");
                bench.omission()?;
            }
            Group::Stall => bench.stalls(&progress)?,
            Group::Lag => {
                progress("how late requests leave");
                bench.lag()?;
            }
            Group::Ceiling => {
                progress("how much the generator can do");
                bench.ceiling()?;
            }
        }
    }
    Ok(SelfcheckReport {
        schema_version: SCHEMA_VERSION,
        verdict: SelfcheckReport::worst(&bench.checks),
        split: bench.rig.is_split(),
        load_average_before: before.load_average,
        load_average_after: Machine::read().load_average,
        elapsed_ns: nanoseconds(began.elapsed()),
        disturbance: bench.machine,
        checks: bench.checks,
        lesson: bench.lesson,
    })
}

struct Bench {
    rig: Rig,
    lengths: Lengths,
    checks: Vec<Check>,
    lesson: Vec<LessonLine>,
    /// All of it.
    machine: Disturbance,
}

/// A percentile of latency, as a figure.
fn latency(window: &WindowReport, q: f64) -> Option<f64> {
    quantile(&window.latency, window.lost, q).map(|ns| ns as f64)
}

fn name(q: f64) -> String {
    format!("p{}", (1e3 * q).round() / 10.0)
}

/// The stretches of a load in which nothing had the CPU but the generator, and the server answered
/// each request before the next of its client was due.
struct Calm {
    lag: Histogram<u64>,
    windows: usize,
    of: usize,
}

impl Calm {
    fn of(loaded: &Loaded, interval_ns: f64) -> Self {
        let mut calm = Calm {
            lag: WindowReport::default().lag,
            windows: 0,
            of: loaded.windows().len(),
        };
        let mut before_is_calm = true;
        for window in loaded.windows() {
            let in_time = (window.service.max() as f64) < interval_ns;
            let is_calm = window.hiccups == 0 && in_time;
            if is_calm && before_is_calm {
                calm.lag += &window.lag;
                calm.windows += 1;
            }
            before_is_calm = is_calm;
        }
        calm
    }

    fn words(&self) -> String {
        format!("{} of {} calm stretches", self.windows, self.of)
    }

    /// Half of them at least must be there to judge the others by.
    fn too_few(&self) -> Option<String> {
        (2 * self.windows < self.of).then(|| {
            "in more than half of the time something else had a CPU, or the server was slow"
                .to_owned()
        })
    }
}

impl Bench {
    fn load(&mut self, server: &Server, load: &Load) -> anyhow::Result<Loaded> {
        let (loaded, ()) = self.rig.load(server, load, |_| Ok(()))?;
        self.machine = self.machine.and(&loaded.machine);
        Ok(loaded)
    }

    /// Judges a percentile, of latency unless `measured` is of something else.
    fn check(
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

    /// A responder that answers at once, and then delays: the difference is known.
    fn delays(&mut self, progress: &impl Fn(&str)) -> anyhow::Result<()> {
        progress("the floor: a server that answers at once");
        let mut floors = Vec::new();
        // What it takes to wake the server is no part of its delay.
        let poll = self.rig.is_split().then_some("--poll");
        let start = |rig: &Rig, options: &[&'static str]| {
            let arguments: Vec<_> = options.iter().copied().chain(poll).collect();
            rig.server(&arguments)
        };
        let prompt = start(&self.rig, &["respond"])?;
        for driver in Driver::ALL {
            let load = Load::open(driver, 4, 500.0, self.lengths.floor);
            let loaded = self.load(&prompt, &load)?;
            let figure = latency(loaded.last(), 0.5);
            let what = format!("floor, {driver}: p50");
            self.check("floor", what, Bound::Any, figure, loaded.judge(0.5));
            floors.push((driver, loaded));
        }
        drop(prompt);
        for (text, delay_ns, rate) in [("5ms", 5e6, 200.0), ("500us", 5e5, 500.0)] {
            progress(&format!("a server that delays each reply by {text}"));
            let slow = delay_ns > 1e6;
            let (open, closed) = if slow {
                (self.lengths.slow, self.lengths.slow)
            } else {
                (self.lengths.fast, self.lengths.fast_closed)
            };
            let server = start(&self.rig, &["respond", "--delay", text])?;
            for (driver, floor) in &floors {
                let open = Load::open(*driver, 4, rate, open);
                let closed = Load::closed(*driver, 1, closed);
                for (kind, load) in [("open", open), ("closed", closed)] {
                    let loaded = self.load(&server, &load)?;
                    let what = format!("delay {text}, {kind} loop, {driver}");
                    self.delay(&what, delay_ns, &loaded, floor);
                }
            }
        }
        Ok(())
    }

    fn delay(&mut self, what: &str, delay_ns: f64, loaded: &Loaded, floor: &Loaded) {
        let at_once = |q| latency(floor.last(), q);
        let floor_ns = at_once(0.5).unwrap_or_default();
        let expected = delay_ns + floor_ns;
        for q in [0.5, 0.9, 0.99] {
            // No reply can take less than the delay: it never leaves earlier.
            let bound = Bound::Near {
                expected,
                below: floor_ns,
                above: expected * TOLERANCE,
            };
            // Where even prompt replies spread by more than the tolerance, delayed ones do too.
            let spread = at_once(q).zip(at_once(0.5)).map(|(at, p50)| at - p50);
            let noise = spread
                .filter(|&spread| spread > expected * TOLERANCE)
                .map(|_| format!("replies without a delay spread as widely at {}", name(q)));
            let disturbance = loaded.machine.reason(q).or(noise);
            let measured = latency(loaded.last(), q);
            let what = format!("{what}: {}", name(q));
            let disturbed = (&loaded.machine, disturbance);
            self.check("delay", what, bound, measured, disturbed);
        }
    }

    /// What a closed loop does not see: it sends nothing while the server does nothing.
    fn omission(&mut self) -> anyhow::Result<()> {
        const STALL_NS: f64 = 1e8;
        const PERIOD_NS: f64 = 1e9;
        let arguments = ["respond", "--stall-every", "1s", "--stall-for", "100ms"];
        let open = Load::open(Driver::Threads, 16, STALL_RATE, self.lengths.omission);
        let closed = Load::closed(Driver::Threads, 1, self.lengths.omission_closed);
        let server = self.rig.server(&arguments)?;
        let open = self.load(&server, &open)?;
        drop(server);
        let server = self.rig.server(&arguments)?;
        let closed = self.load(&server, &closed)?;
        let floor = latency(open.last(), 0.5).unwrap_or_default();
        for q in [0.95, 0.99] {
            let expected = stalled_quantile(q, STALL_NS, PERIOD_NS);
            let bound = Bound::within(expected, expected * TOLERANCE + floor);
            let what = format!("100 ms stop a second, open loop: {}", name(q));
            let measured = latency(open.last(), q);
            self.check("omission", what, bound, measured, open.judge(q));
        }
        // A tenth of what an open loop shows is as good as nothing.
        self.check(
            "omission",
            "the same, closed loop (hides it): p99".to_owned(),
            Bound::AtMost(stalled_quantile(0.99, STALL_NS, PERIOD_NS) / 10.0),
            latency(closed.last(), 0.99),
            closed.judge(0.99),
        );
        let line = |who, requests, at: &dyn Fn(f64) -> Option<f64>| LessonLine {
            who,
            requests,
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p95_ns: at(0.95),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
        };
        let truth = |q| Some(stalled_quantile(q, STALL_NS, PERIOD_NS));
        let (open, closed) = (open.last(), closed.last());
        self.lesson = vec![
            line("arithmetic", None, &truth),
            line("open loop, 1,000/s", Some(open.answered), &|q| {
                latency(open, q)
            }),
            line("closed loop, 1 client", Some(closed.answered), &|q| {
                latency(closed, q)
            }),
        ];
        Ok(())
    }

    /// Every model, stopped from outside in the middle of a load.
    fn stalls(&mut self, progress: &impl Fn(&str)) -> anyhow::Result<()> {
        for model in MODELS {
            progress(&format!("a stop of {} in the middle of a load", model.name));
            let server = self.rig.server(&["serve", model.name])?;
            // One connection at a time is all it serves.
            let clients = if model.name == "iterative" { 1 } else { 8 };
            self.stall(model.name, clients, &server)?;
        }
        Ok(())
    }

    fn stall(&mut self, model: &str, clients: u32, server: &Server) -> anyhow::Result<()> {
        let (calm, total) = (self.lengths.calm, self.lengths.stalled);
        let stop_ns = nanoseconds(total) / 10;
        // So that it ends well before the end.
        let at_ns = nanoseconds(WARMUP + calm + total / 2);
        let load = Load {
            driver: Driver::Threads,
            clients,
            rate: Some(STALL_RATE),
            windows: vec![calm, total],
        };
        let (loaded, stopped_ns) = self.rig.load(server, &load, |start_ns| {
            clock::sleep_until(start_ns + at_ns);
            let stopped = clock::now();
            server.signal(Signal::SIGSTOP).context("cannot stop it")?;
            clock::sleep_until(stopped + stop_ns);
            let continued = clock::now();
            server.signal(Signal::SIGCONT).context("cannot go on")?;
            Ok((continued - stopped) as f64)
        })?;
        self.machine = self.machine.and(&loaded.machine);
        let (calm, stalled) = (&loaded.windows()[0], loaded.last());
        let requests = stalled.answered as f64;
        let calm_p50 = latency(calm, 0.5);
        for q in [0.99, 0.999] {
            let truth = stalled_quantile(q, stopped_ns, nanoseconds(total) as f64);
            // Those that were due earlier in the stop are answered first; those of a single client
            // one round trip after the other.
            let ahead = match clients {
                1 => ahead_in_stall(q, requests, 1.0) * calm_p50.unwrap_or_default(),
                _ => 0.0,
            };
            let bound = Bound::Near {
                expected: truth,
                below: STALL_TOLERANCE_NS,
                above: STALL_TOLERANCE_NS + ahead,
            };
            let what = format!("{model} stopped {:.0} ms: {}", stopped_ns / 1e6, name(q));
            let measured = latency(stalled, q);
            self.check("stall", what, bound, measured, loaded.judge(q));
        }
        self.check(
            "stall",
            format!("{model} stopped: p50, against without"),
            Bound::AtMost(MEDIAN_LIMIT * calm_p50.unwrap_or_default()),
            latency(stalled, 0.5),
            loaded.judge(0.5),
        );
        Ok(())
    }

    /// How late requests leave, and what it costs to be in time.
    fn lag(&mut self) -> anyhow::Result<()> {
        let server = self.rig.server(&["respond"])?;
        let alone = (!self.rig.is_split()).then(|| "the server shares the only CPU".to_owned());
        // One client waits for its reply before it can send again, and several threads on one CPU keep
        // it from each other while they watch the clock.
        let loads = [(1_000.0, Driver::Threads, 1), (10_000.0, Driver::Tasks, 4)];
        for (rate, driver, clients) in loads {
            let windows = self.lengths.lag.as_millis() / LAG_WINDOW.as_millis();
            let windows = (0..windows).map(|_| LAG_WINDOW).collect();
            let load = Load {
                windows,
                ..Load::open(driver, clients, rate, LAG_WINDOW)
            };
            let loaded = self.load(&server, &load)?;
            let at = format!("at {}, {clients} {driver}", crate::text::rate(rate));
            let calm = Calm::of(&loaded, 1e9 * f64::from(clients) / rate);
            for (q, limit) in [(0.5, LAG_P50_NS), (0.99, LAG_P99_NS)] {
                let what = format!("send lag {at}, {}: {}", calm.words(), name(q));
                let measured = quantile(&calm.lag, 0, q).map(|ns| ns as f64);
                let disturbance = loaded.machine.without_hiccups().reason(q);
                let disturbance = calm.too_few().or(disturbance).or(alone.clone());
                let disturbed = (&loaded.machine, disturbance);
                self.check("lag", what, Bound::AtMost(limit), measured, disturbed);
            }
            let bound = if rate > 1_000.0 {
                Bound::Any
            } else {
                Bound::AtMost(LAG_CPU_SHARE)
            };
            let what = format!("CPU of the generator {at}");
            let (share, disturbance) = (loaded.cpu_share(), loaded.machine.reason(0.5));
            let check = Check::new("lag", what, Unit::CpuShare, bound, Some(share), disturbance);
            self.checks.push(check.on(&loaded.machine));
        }
        Ok(())
    }

    /// What the generator can do at most: a server that comes near was not the limit.
    fn ceiling(&mut self) -> anyhow::Result<()> {
        let server = self.rig.server(&["respond"])?;
        for driver in [Driver::Threads, Driver::Tasks] {
            for clients in [1, 64] {
                let length = self.lengths.ceiling;
                let loaded = self.load(&server, &Load::closed(driver, clients, length))?;
                let rate = loaded.last().replies_in_window as f64 / length.as_secs_f64();
                let what = format!("most the generator can do, {clients} {driver}");
                let unit = Unit::PerSecond;
                let check = Check::new(
                    "ceiling",
                    what,
                    unit,
                    Bound::Any,
                    Some(rate),
                    loaded.judge(0.5).1,
                );
                self.checks.push(check.on(&loaded.machine));
            }
        }
        Ok(())
    }
}
