//! Coordinated omission: a server that stops in every second, under an open and a closed loop. A closed
//! loop sends nothing during a stop, and so hides it.

use echobench_clients::Driver;

use super::{Bench, Group, STALL_RATE, TOLERANCE, percentile_name};
use crate::selfcheck::arithmetic::stalled_quantile;
use crate::selfcheck::report::{Bound, LessonLine};
use crate::selfcheck::rig::{Load, LoadOutcome, latency};

/// Arguments of the server, and the same times as numbers.
const SERVER: [&str; 5] = ["respond", "--stall-every", "1s", "--stall-for", "100ms"];
const STALL_NS: f64 = 1e8;
const PERIOD_NS: f64 = 1e9;

impl Bench<'_> {
    pub(super) fn check_omission(&mut self) -> anyhow::Result<()> {
        (self.progress)("a server that stops for 100 ms in every second");
        let open = Load::open(Driver::Threads, 16, STALL_RATE, self.lengths.omission);
        let closed = Load::closed(Driver::Threads, 1, self.lengths.omission_closed);
        let open = self.load_stopping_server(&open)?;
        let closed = self.load_stopping_server(&closed)?;

        let group = Group::Omission.name();
        let floor = latency(open.last(), 0.5).unwrap_or_default();
        for q in [0.95, 0.99] {
            let expected = expected_ns(q);
            let bound = Bound::within(expected, expected * TOLERANCE + floor);
            let name = percentile_name(q);
            let what = format!("100 ms stop a second, open loop: {name}");
            let measured = latency(open.last(), q);
            self.check_time(group, what, bound, measured, open.judge(q));
        }

        // A tenth of the open loop's figure shows that the closed loop hides the stops.
        let what = "the same, closed loop (hides it): p99".to_owned();
        let bound = Bound::AtMost(expected_ns(0.99) / 10.0);
        let measured = latency(closed.last(), 0.99);
        self.check_time(group, what, bound, measured, closed.judge(0.99));

        self.lesson = lesson(&open, &closed);
        Ok(())
    }

    /// Each load gets a server of its own, since the stops are counted from the start of the server.
    fn load_stopping_server(&mut self, load: &Load) -> anyhow::Result<LoadOutcome> {
        let server = self.rig.server(&SERVER)?;
        self.load(&server, load, |outcome| outcome.judge(0.99).1.is_some())
    }
}

fn expected_ns(q: f64) -> f64 {
    stalled_quantile(q, STALL_NS, PERIOD_NS)
}

/// The same stops as arithmetic, an open loop and a closed loop show them.
fn lesson(open: &LoadOutcome, closed: &LoadOutcome) -> Vec<LessonLine> {
    let line = |who, requests, at: &dyn Fn(f64) -> Option<f64>| LessonLine {
        who,
        requests,
        p50_ns: at(0.5),
        p90_ns: at(0.9),
        p95_ns: at(0.95),
        p99_ns: at(0.99),
        p999_ns: at(0.999),
    };

    let (open, closed) = (open.last(), closed.last());
    vec![
        line("arithmetic", None, &|q| Some(expected_ns(q))),
        line("open loop, 1,000/s", Some(open.answered), &|q| {
            latency(open, q)
        }),
        line("closed loop, 1 client", Some(closed.answered), &|q| {
            latency(closed, q)
        }),
    ]
}
