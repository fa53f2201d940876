//! The checks: each measures something whose right value is known.

use std::time::{Duration, Instant};

use anyhow::Context;
use echobench_clients::{Driver, WindowReport, clock};
use echobench_servers::MODELS;
use nix::sys::prctl::set_timerslack;
use nix::sys::signal::Signal;

use super::arithmetic::{ahead_in_stall, stalled_quantile};
use super::report::{Bound, Check, LessonLine, SelfcheckReport, Unit};
use super::rig::{Calm, Disturbance, LEAST_CALM, Load, Loaded, Rig, WARMUP, latency};
use crate::host::cpus::Awake;
use crate::host::machine::Machine;
use crate::host::time::nanoseconds;
use crate::processes::start::Server;
use crate::render::units;
use crate::results::SCHEMA_VERSION;
use crate::stats::percentile_interval;

/// The percentiles of known delays.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];
/// The confidence of a percentile's interval.
const CONFIDENCE: f64 = 0.95;
/// Before each request of a closed loop with a known delay: so that it watches the clock.
const PAUSE: Duration = Duration::from_millis(1);
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
/// What the connections that Little's law finds busy may differ by from those that are there.
const LITTLE_TOLERANCE: f64 = 0.05;
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
    omission: Duration,
    omission_closed: Duration,
    calm: Duration,
    stalled: Duration,
    lag: Duration,
    ceiling: Duration,
    /// How often a load is put on a server at most.
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
    // A CPU that has to be woken answers late, and that is the machine's doing, not the generator's.
    let awake = Awake::hold().ok();
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
        awake: awake.is_some(),
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

fn name(q: f64) -> String {
    format!("p{}", (1e3 * q).round() / 10.0)
}

/// Whether something disturbed the highest percentile of a load, hiccups left out.
fn is_disturbed(loaded: &Loaded) -> bool {
    loaded.calm().judge(0.99).1.is_some()
}

/// The part of the requests by which the send lag is judged, in percent.
fn calm_share(window: &WindowReport) -> f64 {
    100.0 * window.calm_lag.len() as f64 / window.lag.len().max(1) as f64
}

/// Why quantile `q` of the send lag cannot be judged, if it cannot.
fn lag_disturbance(loaded: &Loaded, q: f64) -> Option<String> {
    let share = calm_share(loaded.last());
    let too_few =
        || format!("only {share:.0} % of the requests were without a hiccup or a wait for a reply");
    let few = (share < LEAST_CALM).then(too_few);
    few.or(loaded.machine.without_hiccups().reason(q))
}

/// Why `delayed` may have the right quantile `q` although it looks wrong: both samples are small enough
/// that the true ones may lie within the tolerance.
fn undecided(
    delayed: &WindowReport,
    floor: &WindowReport,
    q: f64,
    delay_ns: f64,
) -> Option<String> {
    let ends = |window: &WindowReport| {
        let count = window.latency.len();
        let (low, high) = percentile_interval(count, q, CONFIDENCE)?;
        // Half a rank less, so that rounding cannot lead to the next one.
        let at = |rank: u64| (rank as f64 - 0.5) / count as f64;
        let at = |rank| window.latency.as_hdr().value_at_quantile(at(rank)) as f64;
        Some((at(low), at(high)))
    };
    let ((low, high), (_, floor_high)) = ends(delayed).zip(ends(floor))?;
    let may_be_right = low <= delay_ns * (1.0 + TOLERANCE) + floor_high && high >= delay_ns;
    let [low, high] = [low, high].map(units::duration);
    may_be_right.then(|| {
        let name = name(q);
        format!("{name} is anything from {low} to {high}: too few requests")
    })
}

impl Bench {
    /// Puts a load on a server; in the long form again as long as something disturbed it, a few times at
    /// most. What its latencies are has no part in that.
    fn load(
        &mut self,
        server: &Server,
        load: &Load,
        disturbed: impl Fn(&Loaded) -> bool,
    ) -> anyhow::Result<Loaded> {
        let mut tries = self.lengths.tries;
        loop {
            let (loaded, ()) = self.rig.load(server, load, |_| Ok(()))?;
            self.machine = self.machine.and(&loaded.machine);
            tries -= 1;
            if tries == 0 || !disturbed(&loaded) {
                return Ok(loaded);
            }
        }
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
        for &driver in Driver::ALL {
            let load = Load::open(driver, 4, 500.0, self.lengths.floor);
            let load = load.in_stretches(Duration::from_secs_f64(1.0 / 500.0));
            let floor = self.load(&prompt, &load, is_disturbed)?.calm();
            for q in QUANTILES {
                let what = format!(
                    "floor, {driver}, {:.0} % calm: {}",
                    floor.percent(),
                    name(q)
                );
                self.check("floor", what, Bound::Any, floor.latency(q), floor.judge(q));
            }
            floors.push((driver, floor));
        }
        drop(prompt);
        for (text, delay_ns, rate) in [("5ms", 5e6, 200.0), ("500us", 5e5, 500.0)] {
            progress(&format!("a server that delays each reply by {text}"));
            let length = if delay_ns > 1e6 {
                self.lengths.slow
            } else {
                self.lengths.fast
            };
            let server = start(&self.rig, &["respond", "--delay", text])?;
            for (driver, floor) in &floors {
                let open = Load::open(*driver, 4, rate, length)
                    .in_stretches(Duration::from_secs_f64(1.0 / rate));
                let closed = Load::closed(*driver, 1, length)
                    .with_pauses(PAUSE)
                    .in_stretches(PAUSE + Duration::from_secs_f64(delay_ns / 1e9));
                for (kind, load) in [("open", open), ("closed", closed)] {
                    let delayed = self.load(&server, &load, is_disturbed)?.calm();
                    let what = format!("delay {text}, {kind} loop, {driver}");
                    self.delay(&what, delay_ns, &delayed, floor);
                }
            }
        }
        Ok(())
    }

    fn delay(&mut self, what: &str, delay_ns: f64, delayed: &Calm, floor: &Calm) {
        let at_once = |q| floor.latency(q).unwrap_or_default();
        let tolerance_ns = delay_ns * TOLERANCE;
        for q in QUANTILES {
            // A quantile of a sum of a constant and something else is the sum of it and theirs. But
            // where prompt replies spread by more than the tolerance, nothing would be shown.
            let spread_ns = at_once(q) - at_once(0.5);
            let floor_ns = at_once(0.5) + spread_ns.min(tolerance_ns);
            let bound = Bound::Near {
                expected: delay_ns + floor_ns,
                // No reply can take less than the delay: it never leaves earlier.
                below: floor_ns,
                above: tolerance_ns,
            };
            let noise = match floor.latency(q) {
                None => Some(format!("the floor is not known at {}", name(q))),
                Some(_) if spread_ns > tolerance_ns => {
                    let name = name(q);
                    Some(format!(
                        "replies without a delay spread as widely at {name}"
                    ))
                }
                Some(_) => undecided(&delayed.requests, &floor.requests, q, delay_ns),
            };
            let (machine, disturbance) = delayed.judge(q);
            let measured = delayed.latency(q);
            // Nothing excuses a reply that came before it was sent.
            let is_possible = measured.is_none_or(|ns| ns >= delay_ns);
            let excuse = disturbance.or(noise).filter(|_| is_possible);
            let what = format!("{what}, {:.0} % calm: {}", delayed.percent(), name(q));
            self.check("delay", what, bound, measured, (machine, excuse));
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
        let at_all = |loaded: &Loaded| loaded.judge(0.99).1.is_some();
        let open = self.load(&server, &open, at_all)?;
        drop(server);
        let server = self.rig.server(&arguments)?;
        let closed = self.load(&server, &closed, at_all)?;
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
            let clients = if model.family.is_iterative() { 1 } else { 8 };
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
            pause: Duration::ZERO,
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
        let loads = [
            (1_000.0, Driver::Threads, 1),
            (10_000.0, Driver::Threads, 1),
            (10_000.0, Driver::Tasks, 4),
        ];
        for (rate, driver, clients) in loads {
            let load = Load::open(driver, clients, rate, self.lengths.lag);
            let loaded = self.load(&server, &load, |loaded| {
                lag_disturbance(loaded, 0.99).is_some()
            })?;
            let at = format!("at {}, {clients} {driver}", units::rate(rate));
            let sent = loaded.last();
            let share = calm_share(sent);
            for (q, limit) in [(0.5, LAG_P50_NS), (0.99, LAG_P99_NS)] {
                let what = format!("send lag {at}, {share:.0} % calm: {}", name(q));
                let measured = sent
                    .calm_lag
                    .quantile(0, q)
                    .filter(|_| share >= LEAST_CALM)
                    .map(|ns| ns as f64);
                let disturbance = lag_disturbance(&loaded, q).or(alone.clone());
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
                let load = Load::closed(driver, clients, length);
                let loaded = self.load(&server, &load, |loaded| {
                    loaded.machine.reason(0.5).is_some()
                })?;
                let rate = loaded.last().replies_in_window as f64 / length.as_secs_f64();
                let what = format!("most the generator can do, {clients} {driver}");
                let unit = Unit::PerSecond;
                let disturbance = loaded.machine.reason(0.5);
                let check = Check::new("ceiling", what, unit, Bound::Any, Some(rate), disturbance);
                self.checks.push(check.on(&loaded.machine));
                self.littles_law(clients, rate, &loaded);
            }
        }
        Ok(())
    }

    /// In a closed loop without pauses every connection is always busy, so by Little's law throughput
    /// times mean latency is their number.
    fn littles_law(&mut self, clients: u32, rate: f64, loaded: &Loaded) {
        let clients = f64::from(clients);
        let busy = rate * loaded.last().latency.mean() / 1e9;
        let what = "the same: throughput × mean latency".to_owned();
        // What a client does between two requests is no part of their latency.
        let bound = Bound::within(clients, clients * LITTLE_TOLERANCE);
        let disturbance = loaded.machine.reason(0.5);
        let unit = Unit::Connections;
        let check = Check::new("ceiling", what, unit, bound, Some(busy), disturbance);
        self.checks.push(check.on(&loaded.machine));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replies that took so many microseconds and up to a hundred more.
    fn replies(count: u64, micros: u64) -> WindowReport {
        let mut window = WindowReport::default();
        for reply in 0..count {
            let ns = (micros + reply * 100 / count) * 1_000;
            window.latency.record(ns);
        }
        window
    }

    #[test]
    fn only_a_sample_that_may_be_right_is_undecided() {
        let floor = replies(400, 20);
        let told = |delayed: &WindowReport| undecided(delayed, &floor, 0.99, 5e6).is_some();
        // 5 ms, 3 % of it and the floor's 120 µs are 5.27 ms.
        assert!(told(&replies(400, 5_170)));
        assert!(!told(&replies(400, 5_400)));
        // Earlier than it can be: no sample is too small for that.
        assert!(!told(&replies(400, 2_000)));
        // Too few for an interval.
        assert!(!told(&replies(100, 5_170)));
    }
}
