//! Known delays: a responder that answers at once, and then after a fixed time.

use std::time::Duration;

use echobench_clients::{Driver, WindowReport};

use super::{Bench, Group, TOLERANCE, is_disturbed, percentile_name};
use crate::processes::start::Server;
use crate::render::units;
use crate::selfcheck::report::Bound;
use crate::selfcheck::rig::{CalmPart, Load, Rig};
use crate::stats::percentile_interval;

/// Judged percentiles.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];
/// Confidence of a percentile's interval.
const CONFIDENCE: f64 = 0.95;
/// Pause before each request of a closed loop: the client watches the clock meanwhile, so that hiccups
/// are detected.
const PAUSE: Duration = Duration::from_millis(1);
/// Delays: as an option, in nanoseconds, and the requests per second of the open loop.
const DELAYS: [(&str, f64, f64); 2] = [("5ms", 5e6, 200.0), ("500us", 5e5, 500.0)];

impl Bench<'_> {
    pub(super) fn check_delays(&mut self) -> anyhow::Result<()> {
        (self.progress)("the floor: a server that answers at once");
        // The time to wake up the server would add to its delay.
        let poll = self.rig.is_split().then_some("--poll");
        let start = |rig: &Rig, options: &[&'static str]| {
            let arguments: Vec<_> = options.iter().copied().chain(poll).collect();
            rig.server(&arguments)
        };

        let prompt = start(&self.rig, &["respond"])?;
        let mut floors = Vec::new();
        for &driver in Driver::ALL {
            floors.push((driver, self.measure_floor(&prompt, driver)?));
        }
        drop(prompt);

        for (text, delay_ns, rate) in DELAYS {
            (self.progress)(&format!("a server that delays each reply by {text}"));
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
                    self.check_delay(&what, delay_ns, &delayed, floor);
                }
            }
        }
        Ok(())
    }

    /// Latency of a server without a delay.
    fn measure_floor(&mut self, server: &Server, driver: Driver) -> anyhow::Result<CalmPart> {
        const RATE: f64 = 500.0;
        let load = Load::open(driver, 4, RATE, self.lengths.floor)
            .in_stretches(Duration::from_secs_f64(1.0 / RATE));
        let floor = self.load(server, &load, is_disturbed)?.calm();

        for q in QUANTILES {
            let (percent, name) = (floor.percent(), percentile_name(q));
            let what = format!("floor, {driver}, {percent:.0} % calm: {name}");
            self.check_time("floor", what, Bound::Any, floor.latency(q), floor.judge(q));
        }
        Ok(floor)
    }

    fn check_delay(&mut self, what: &str, delay_ns: f64, delayed: &CalmPart, floor: &CalmPart) {
        let at_once = |q| floor.latency(q).unwrap_or_default();
        let tolerance_ns = delay_ns * TOLERANCE;

        for q in QUANTILES {
            // A quantile of a constant plus something else is the constant plus that quantile. But
            // where prompt replies spread by more than the tolerance, nothing would be shown.
            let spread_ns = at_once(q) - at_once(0.5);
            let floor_ns = at_once(0.5) + spread_ns.min(tolerance_ns);
            let bound = Bound::Near {
                expected: delay_ns + floor_ns,
                // No reply can take less than the delay: it never leaves earlier.
                below: floor_ns,
                above: tolerance_ns,
            };

            let name = percentile_name(q);
            let noise = match floor.latency(q) {
                None => Some(format!("the floor is not known at {name}")),
                Some(_) if spread_ns > tolerance_ns => Some(format!(
                    "replies without a delay spread as widely at {name}"
                )),
                Some(_) => undecided(&delayed.requests, &floor.requests, q, delay_ns),
            };
            let (machine, disturbance) = delayed.judge(q);
            let measured = delayed.latency(q);
            // Nothing excuses a reply that came before it was sent.
            let is_possible = measured.is_none_or(|ns| ns >= delay_ns);
            // Without the floor it is not known what to expect.
            let measured = measured.filter(|_| floor.latency(q).is_some() || !is_possible);
            let excuse = disturbance.or(noise).filter(|_| is_possible);

            let what = format!("{what}, {:.0} % calm: {name}", delayed.percent());
            let group = Group::Delay.name();
            self.check_time(group, what, bound, measured, (machine, excuse));
        }
    }
}

/// Reason why `delayed` may have the right quantile `q` although it looks wrong, if any: both samples are
/// small enough that the true quantiles may lie within the tolerance.
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
        let at = |rank| window.latency.to_hdr().value_at_quantile(at(rank)) as f64;
        Some((at(low), at(high)))
    };

    let ((low, high), (_, floor_high)) = ends(delayed).zip(ends(floor))?;
    let may_be_right = low <= delay_ns * (1.0 + TOLERANCE) + floor_high && high >= delay_ns;
    let [low, high] = [low, high].map(units::duration);
    may_be_right.then(|| {
        let name = percentile_name(q);
        format!("{name} is anything from {low} to {high}: too few requests")
    })
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
