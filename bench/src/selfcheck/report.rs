//! Report of the checks, as text and as JSON.

use serde::Serialize;

use super::rig::Disturbance;
use crate::host::cpus::CpuIdleGuard;
use crate::render::Style;
use crate::render::grid::{Grid, Row};
use crate::render::units;

/// Unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// A time.
    Nanoseconds,
    /// A share of one CPU.
    CpuShare,
    /// A throughput.
    PerSecond,
    /// A mean number of connections.
    Connections,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Unit::Nanoseconds if value < 0.0 => format!("-{}", units::duration(-value)),
            Unit::Nanoseconds => units::duration(value),
            Unit::CpuShare => format!("{:.1} % CPU", 100.0 * value),
            Unit::PerSecond => units::rate(value),
            Unit::Connections => format!("{value:.2} busy"),
        }
    }
}

/// Values that a figure may have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    /// Around an expected value.
    Near {
        /// The expected value.
        expected: f64,
        /// Tolerance below it.
        below: f64,
        /// Tolerance above it.
        above: f64,
    },
    /// Up to a limit.
    AtMost(f64),
    /// Any: the figure is shown, not judged.
    Any,
}

impl Bound {
    /// Around an expected value, with the same tolerance on both sides.
    pub(super) fn within(expected: f64, tolerance: f64) -> Self {
        Bound::Near {
            expected,
            below: tolerance,
            above: tolerance,
        }
    }

    fn holds(self, measured: f64) -> bool {
        match self {
            Bound::Near {
                expected,
                below,
                above,
            } => (expected - below..=expected + above).contains(&measured),
            Bound::AtMost(limit) => measured <= limit,
            Bound::Any => measured.is_finite(),
        }
    }
}

/// Verdict of a check, or of all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CheckVerdict {
    /// A figure that is not judged.
    Figure,
    /// Within its bound.
    Ok,
    /// Out of its bound, on a machine that was disturbed.
    Disturbed,
    /// Out of its bound, or not measured.
    Failed,
    /// Of a whole report: a signal ended it before all checks were done.
    Interrupted,
}

impl CheckVerdict {
    fn word(self) -> &'static str {
        match self {
            CheckVerdict::Figure => "",
            CheckVerdict::Ok => "ok",
            CheckVerdict::Disturbed => "disturbed",
            CheckVerdict::Failed => "FAILED",
            CheckVerdict::Interrupted => "interrupted",
        }
    }
}

/// One figure and its verdict.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    /// Group of the check.
    pub(super) check: &'static str,
    /// Description of the figure.
    pub(super) what: String,
    /// Unit of the figures.
    pub(super) unit: Unit,
    /// Expected value, or the limit.
    pub(super) expected: Option<f64>,
    /// Tolerance below the expected value; `None` for a limit.
    pub(super) tolerance_below: Option<f64>,
    /// Tolerance above the expected value.
    pub(super) tolerance_above: Option<f64>,
    /// Measured value; `None` where the sample does not support one.
    pub(super) measured: Option<f64>,
    /// The verdict.
    pub(super) verdict: CheckVerdict,
    /// Reason why it cannot be judged, or may be off.
    pub(super) disturbance: Option<String>,
    /// Other activity of the machine during the check.
    pub(super) machine: Option<Disturbance>,
    #[serde(skip)]
    bound: Bound,
}

impl Check {
    /// Adds the other activity of the machine during the check.
    #[must_use]
    pub(super) fn on(mut self, machine: &Disturbance) -> Self {
        self.machine = Some(*machine);
        self
    }

    /// Judges a figure. A figure that is out of its bound, or could not be measured, is a failure only if
    /// nothing disturbed it.
    #[must_use]
    pub(super) fn new(
        check: &'static str,
        what: String,
        unit: Unit,
        bound: Bound,
        measured: Option<f64>,
        disturbance: Option<String>,
    ) -> Self {
        let holds = measured.is_some_and(|measured| bound.holds(measured));
        let verdict = match (bound, holds, &disturbance) {
            (Bound::Any, true, _) => CheckVerdict::Figure,
            (_, true, _) => CheckVerdict::Ok,
            (_, false, Some(_)) => CheckVerdict::Disturbed,
            (_, false, None) => CheckVerdict::Failed,
        };
        let (expected, tolerance_below, tolerance_above) = match bound {
            Bound::Near {
                expected,
                below,
                above,
            } => (Some(expected), Some(below), Some(above)),
            Bound::AtMost(limit) => (Some(limit), None, Some(0.0)),
            Bound::Any => (None, None, None),
        };

        Check {
            check,
            what,
            unit,
            expected,
            tolerance_below,
            tolerance_above,
            measured,
            verdict,
            disturbance: disturbance.filter(|_| verdict != CheckVerdict::Ok),
            machine: None,
            bound,
        }
    }

    fn cells(&self) -> [String; 5] {
        let (expected, tolerance) = match self.bound {
            Bound::Near {
                expected,
                below,
                above,
            } => {
                let [below, above] = [below, above].map(|by| self.unit.show(by));
                let tolerance = if below == above {
                    format!("± {above}")
                } else {
                    format!("- {below} + {above}")
                };
                (self.unit.show(expected), tolerance)
            }
            Bound::AtMost(limit) => (format!("≤ {}", self.unit.show(limit)), String::new()),
            Bound::Any => (String::new(), String::new()),
        };

        let verdict = match &self.disturbance {
            Some(reason) if self.verdict == CheckVerdict::Figure => format!("({reason})"),
            Some(reason) => format!("{}: {reason}", self.verdict.word()),
            None => self.verdict.word().to_owned(),
        };
        [
            self.what.clone(),
            expected,
            units::or_unknown(self.measured, |value| self.unit.show(value)),
            tolerance,
            verdict,
        ]
    }
}

/// One observer of the server that stops in every second.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LessonLine {
    /// The observer: arithmetic or a kind of load.
    pub(super) who: &'static str,
    /// Number of requests.
    pub(super) requests: Option<u64>,
    /// 50th percentile of latency.
    pub(super) p50_ns: Option<f64>,
    /// 90th percentile.
    pub(super) p90_ns: Option<f64>,
    /// 95th percentile.
    pub(super) p95_ns: Option<f64>,
    /// 99th percentile.
    pub(super) p99_ns: Option<f64>,
    /// 99.9th percentile.
    pub(super) p999_ns: Option<f64>,
}

/// Report of all checks.
#[derive(Debug, Serialize)]
pub(crate) struct SelfcheckReport {
    /// Version of the fields' names and meanings.
    pub(super) schema_version: u32,
    /// The worst of the verdicts.
    pub(super) verdict: CheckVerdict,
    /// Whether servers and clients had CPUs of their own.
    pub(super) split: bool,
    /// Whether idle CPUs were kept from sleeping.
    pub(super) awake: bool,
    /// Load average of the machine before the checks.
    pub(super) load_average_before: Option<f64>,
    /// Load average after the checks.
    pub(super) load_average_after: Option<f64>,
    /// Duration of all checks.
    pub(super) elapsed_ns: u64,
    /// Other activity of the machine: the sum of the hiccups, the largest of the shares.
    pub(super) disturbance: Disturbance,
    /// All checks.
    pub(super) checks: Vec<Check>,
    /// Observers of the stopping server: the difference is what a closed loop omits.
    pub(super) lesson: Vec<LessonLine>,
}

impl SelfcheckReport {
    /// The worst of these verdicts; a failure is worse than a disturbance.
    pub(super) fn worst(checks: &[Check]) -> CheckVerdict {
        let has = |verdict| checks.iter().any(|check| check.verdict == verdict);
        [CheckVerdict::Failed, CheckVerdict::Disturbed]
            .into_iter()
            .find(|&verdict| has(verdict))
            .unwrap_or(CheckVerdict::Ok)
    }

    /// Exit code of the command.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.verdict {
            CheckVerdict::Ok | CheckVerdict::Figure => 0,
            CheckVerdict::Interrupted => 1,
            CheckVerdict::Failed => 2,
            CheckVerdict::Disturbed => 3,
        }
    }

    /// The report as text.
    pub(crate) fn text(&self) -> String {
        let mut parts = vec![checks_table(&self.checks)];
        if !self.lesson.is_empty() {
            parts.push(
                "the same server, which stops for 100 ms in every second, as two kinds of load see it:"
                    .to_owned(),
            );
            parts.push(lesson_table(&self.lesson));
        }
        parts.push(self.conclusion());
        parts.join("\n\n") + "\n"
    }

    fn conclusion(&self) -> String {
        let count = |verdict| {
            let with = self.checks.iter().filter(|check| check.verdict == verdict);
            with.count()
        };
        let load = |load: Option<f64>| units::or_unknown(load, |load| format!("{load:.2}"));
        let interrupted = if self.verdict == CheckVerdict::Interrupted {
            "interrupted: "
        } else {
            ""
        };
        let cpus = if self.split {
            ""
        } else {
            "; servers and clients shared the only CPU"
        };
        let awake = if self.awake {
            "; idle CPUs were kept awake".to_owned()
        } else {
            format!(
                "; idle CPUs slept, which makes replies late: this user cannot write {}",
                CpuIdleGuard::FILE
            )
        };

        format!(
            "{interrupted}{} ok, {} failed, {} disturbed; {} hiccups in {} requests; load average {} before, {} after; {:.0} s{cpus}{awake}",
            count(CheckVerdict::Ok),
            count(CheckVerdict::Failed),
            count(CheckVerdict::Disturbed),
            units::count(self.disturbance.hiccups),
            units::count(self.disturbance.requests),
            load(self.load_average_before),
            load(self.load_average_after),
            self.elapsed_ns as f64 / 1e9,
        )
    }
}

/// Table of the checks, with a gap between their groups.
fn checks_table(checks: &[Check]) -> String {
    let row = |check: &Check| Row {
        arm: String::new(),
        section: check.check.to_owned(),
        cells: check.cells().into_iter().map(Into::into).collect(),
    };

    let header = ["check", "expected", "measured", "tolerance", "verdict"];
    let grid = Grid {
        header: header.map(str::to_owned).into(),
        left: vec![0, 4],
        rows: checks.iter().map(row).collect(),
        ..Grid::default()
    };
    grid.draw(Style::Plain)
}

fn lesson_table(lesson: &[LessonLine]) -> String {
    // Sums of fractions of a second are not quite 0 where they should be.
    let show = |time: f64| match time {
        time if time < 1.0 => "0".to_owned(),
        time => units::duration(time),
    };
    let row = |line: &LessonLine| {
        let times = [
            line.p50_ns,
            line.p90_ns,
            line.p95_ns,
            line.p99_ns,
            line.p999_ns,
        ];
        let mut cells = vec![
            line.who.to_owned(),
            units::or_unknown(line.requests, units::count),
        ];
        cells.extend(times.map(|time| units::or_unknown(time, show)));
        cells
    };

    let names = ["", "requests", "p50", "p90", "p95", "p99", "p99.9"];
    let rows = lesson.iter().map(row).collect();
    Style::Plain.table(&names, rows, &[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bound: Bound, measured: Option<f64>, disturbance: Option<&str>) -> CheckVerdict {
        let disturbance = disturbance.map(str::to_owned);
        let what = "a time".to_owned();
        Check::new(
            "group",
            what,
            Unit::Nanoseconds,
            bound,
            measured,
            disturbance,
        )
        .verdict
    }

    #[test]
    fn only_an_undisturbed_miss_is_a_failure() {
        let near = Bound::within(100.0, 3.0);
        assert_eq!(check(near, Some(103.0), None), CheckVerdict::Ok);
        assert_eq!(check(near, Some(97.0), Some("noise")), CheckVerdict::Ok);
        assert_eq!(check(near, Some(104.0), None), CheckVerdict::Failed);
        assert_eq!(
            check(near, Some(104.0), Some("noise")),
            CheckVerdict::Disturbed
        );
        assert_eq!(check(near, None, None), CheckVerdict::Failed);

        let most = Bound::AtMost(5.0);
        assert_eq!(check(most, Some(5.0), None), CheckVerdict::Ok);
        assert_eq!(check(most, Some(5.1), None), CheckVerdict::Failed);
    }

    #[test]
    fn a_figure_that_could_not_be_measured_is_no_pass() {
        let noise = Some("noise");
        assert_eq!(check(Bound::Any, Some(1.0), noise), CheckVerdict::Figure);
        for bound in [Bound::Any, Bound::AtMost(5.0), Bound::within(5.0, 1.0)] {
            for measured in [None, Some(f64::NAN)] {
                assert_eq!(check(bound, measured, None), CheckVerdict::Failed);
                assert_eq!(check(bound, measured, noise), CheckVerdict::Disturbed);
            }
        }
    }

    #[test]
    fn a_failure_outweighs_a_disturbance() {
        let of = |measured, disturbance: Option<&str>| {
            Check::new(
                "group",
                String::new(),
                Unit::CpuShare,
                Bound::AtMost(1.0),
                Some(measured),
                disturbance.map(str::to_owned),
            )
        };
        let good = of(0.5, None);
        let disturbed = of(2.0, Some("noise"));
        let failed = of(2.0, None);

        assert_eq!(SelfcheckReport::worst(&[]), CheckVerdict::Ok);
        assert_eq!(
            SelfcheckReport::worst(&[good.clone(), disturbed.clone()]),
            CheckVerdict::Disturbed
        );
        assert_eq!(
            SelfcheckReport::worst(&[good, disturbed, failed]),
            CheckVerdict::Failed
        );
    }

    #[test]
    fn groups_are_set_apart_in_the_table() {
        let of = |group, what: &str| {
            let bound = Bound::AtMost(1.0);
            Check::new(
                group,
                what.to_owned(),
                Unit::CpuShare,
                bound,
                Some(0.5),
                None,
            )
        };

        let table = checks_table(&[of("lag", "one"), of("lag", "two"), of("ceiling", "three")]);
        let lines: Vec<&str> = table.lines().map(str::trim).collect();
        assert_eq!(lines.len(), 5, "{table}");
        assert_eq!(lines[3], "", "{table}");
        assert!(lines[1].starts_with("one  ") && lines[1].ends_with("  ok"));
    }
}
