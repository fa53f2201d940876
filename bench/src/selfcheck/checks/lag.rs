//! Send lag of the generator, and the CPU time that it takes to send on time.

use echobench_clients::Driver;

use super::{Bench, Group, calm_share, lag_disturbance, percentile_name};
use crate::render::units;
use crate::selfcheck::report::{Bound, Check, Unit};
use crate::selfcheck::rig::{LEAST_CALM, Load};

const LAG_P50_NS: f64 = 1_000.0;
const LAG_P99_NS: f64 = 10_000.0;
/// Largest CPU share of a generator that sends 1,000 requests per second.
const LAG_CPU_SHARE: f64 = 0.15;

impl Bench<'_> {
    pub(super) fn check_lag(&mut self) -> anyhow::Result<()> {
        (self.progress)("how late requests leave");
        let server = self.rig.server(&["respond"])?;
        let alone = (!self.rig.is_split()).then(|| "the server shares the only CPU".to_owned());
        // One client has to wait for its reply before it can send again, and several threads on one
        // CPU keep it from each other while they watch the clock.
        let loads = [
            (1_000.0, Driver::Threads, 1),
            (10_000.0, Driver::Threads, 1),
            (10_000.0, Driver::Tasks, 4),
        ];

        for (rate, driver, clients) in loads {
            let load = Load::open(driver, clients, rate, self.lengths.lag);
            let outcome = self.load(&server, &load, |outcome| {
                lag_disturbance(outcome, 0.99).is_some()
            })?;
            let group = Group::Lag.name();
            let at = format!("at {}, {clients} {driver}", units::rate(rate));

            let sent = outcome.last();
            let share = calm_share(sent);
            for (q, limit) in [(0.5, LAG_P50_NS), (0.99, LAG_P99_NS)] {
                let name = percentile_name(q);
                let what = format!("send lag {at}, {share:.0} % calm: {name}");
                let measured = sent
                    .calm_lag
                    .quantile(0, q)
                    .filter(|_| share >= LEAST_CALM)
                    .map(|ns| ns as f64);
                let disturbance = lag_disturbance(&outcome, q).or(alone.clone());
                let disturbed = (&outcome.machine, disturbance);
                self.check_time(group, what, Bound::AtMost(limit), measured, disturbed);
            }

            let bound = if rate > 1_000.0 {
                Bound::Any
            } else {
                Bound::AtMost(LAG_CPU_SHARE)
            };
            let what = format!("CPU of the generator {at}");
            let (share, disturbance) = (outcome.cpu_share(), outcome.machine.reason(0.5));
            let check = Check::new(group, what, Unit::CpuShare, bound, Some(share), disturbance);
            self.checks.push(check.on(&outcome.machine));
        }
        Ok(())
    }
}
