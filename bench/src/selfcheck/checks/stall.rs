//! Stalls: every model, stopped by a signal during a load.

use std::time::Duration;

use anyhow::{Context, ensure};
use echobench_clients::{Driver, clock};
use echobench_servers::{Model, textbook_models};
use nix::sys::signal::Signal;

use super::{Bench, Group, STALL_RATE, percentile_name};
use crate::host::signals::interrupted;
use crate::host::time::nanoseconds;
use crate::processes::start::Server;
use crate::selfcheck::arithmetic::{ahead_in_stall, stalled_quantile};
use crate::selfcheck::report::Bound;
use crate::selfcheck::rig::{Load, LoadOutcome, WARMUP, latency};

/// Largest error of the tail after a stop.
const TAIL_TOLERANCE_NS: f64 = 5e6;
/// Largest factor by which a stop may raise the median.
const MEDIAN_LIMIT: f64 = 1.1;

impl Bench<'_> {
    pub(super) fn check_stalls(&mut self) -> anyhow::Result<()> {
        for model in textbook_models() {
            (self.progress)(&format!("a stop of {} in the middle of a load", model.name));
            let server = self.rig.server(&["serve", model.name])?;
            self.check_stall(model, &server)?;
        }
        Ok(())
    }

    fn check_stall(&mut self, model: &Model, server: &Server) -> anyhow::Result<()> {
        let total = self.lengths.stalled;
        let clients = if model.family.is_iterative() { 1 } else { 8 };
        let (outcome, stopped_ns) = self.load_and_stop(clients, server)?;
        self.machine = self.machine.and(&outcome.machine);

        let group = Group::Stall.name();
        let (calm, stalled) = (&outcome.windows()[0], outcome.last());
        let requests = stalled.answered as f64;
        let calm_p50 = latency(calm, 0.5);
        for q in [0.99, 0.999] {
            let expected = stalled_quantile(q, stopped_ns, nanoseconds(total) as f64);
            // Requests that were due earlier in the stop are answered first, and those of a single
            // client one round trip after the other.
            let ahead = match clients {
                1 => ahead_in_stall(q, requests, 1.0) * calm_p50.unwrap_or_default(),
                _ => 0.0,
            };
            let bound = Bound::Near {
                expected,
                below: TAIL_TOLERANCE_NS,
                above: TAIL_TOLERANCE_NS + ahead,
            };

            let name = percentile_name(q);
            let what = format!("{} stopped {:.0} ms: {name}", model.name, stopped_ns / 1e6);
            let measured = latency(stalled, q);
            self.check_time(group, what, bound, measured, outcome.judge(q));
        }

        let what = format!("{} stopped: p50, against without", model.name);
        let bound = Bound::AtMost(MEDIAN_LIMIT * calm_p50.unwrap_or_default());
        let measured = latency(stalled, 0.5);
        self.check_time(group, what, bound, measured, outcome.judge(0.5));
        Ok(())
    }

    /// Puts a load on a server, and stops the server in the second window; returns for how long.
    fn load_and_stop(&self, clients: u32, server: &Server) -> anyhow::Result<(LoadOutcome, f64)> {
        let (calm, total) = (self.lengths.calm, self.lengths.stalled);
        let stop_ns = nanoseconds(total) / 10;
        // Early enough for the backlog of the stop to be answered before the end.
        let at_ns = nanoseconds(WARMUP + calm + total / 2);
        let load = Load {
            driver: Driver::Threads,
            clients,
            rate: Some(STALL_RATE),
            pause: Duration::ZERO,
            windows: vec![calm, total],
        };

        self.rig.load(server, &load, |start_ns| {
            sleep_unless_interrupted(start_ns + at_ns)?;
            let stopped = clock::now();
            server.signal(Signal::SIGSTOP).context("cannot stop it")?;

            sleep_unless_interrupted(stopped + stop_ns)?;
            let continued = clock::now();
            server.signal(Signal::SIGCONT).context("cannot go on")?;
            Ok((continued - stopped) as f64)
        })
    }
}

/// Sleeps until an instant; fails soon after an interrupt.
fn sleep_unless_interrupted(at_ns: u64) -> anyhow::Result<()> {
    const INTERVAL_NS: u64 = 50_000_000;
    while clock::now() < at_ns {
        ensure!(!interrupted(), "interrupted");
        clock::sleep_until(at_ns.min(clock::now() + INTERVAL_NS));
    }
    Ok(())
}
