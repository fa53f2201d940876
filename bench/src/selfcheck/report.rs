//! What the checks came to, for people and for programs.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::rig::Disturbance;
use crate::host::cpus::Awake;
use crate::render::units;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
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

/// What a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// So much, give or take.
    Near {
        /// What it should be.
        expected: f64,
        /// How much less it may be.
        below: f64,
        /// How much more it may be.
        above: f64,
    },
    /// Not more.
    AtMost(f64),
    /// Anything: it is there to be known.
    Any,
}

impl Bound {
    /// This, give or take the same on both sides.
    #[must_use]
    pub fn within(expected: f64, tolerance: f64) -> Self {
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
            Bound::Any => true,
        }
    }
}

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A figure to be known, which is not judged.
    Figure,
    /// As it should be.
    Ok,
    /// Not as it should be, on a machine that did something else meanwhile.
    Disturbed,
    /// Not as it should be.
    Failed,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Figure => "",
            Verdict::Ok => "ok",
            Verdict::Disturbed => "disturbed",
            Verdict::Failed => "FAILED",
        }
    }
}

/// One figure and its judgement.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// The group it belongs to.
    pub check: &'static str,
    /// What was measured, for people.
    pub what: String,
    /// What the figures count.
    pub unit: Unit,
    /// What it should be, or be at most.
    pub expected: Option<f64>,
    /// How much less than expected it may be; nothing for a limit.
    pub tolerance_below: Option<f64>,
    /// How much more than expected it may be.
    pub tolerance_above: Option<f64>,
    /// What it is; nothing where the sample does not carry it.
    pub measured: Option<f64>,
    /// The judgement.
    pub verdict: Verdict,
    /// Why it cannot be judged, or may not be what it is otherwise.
    pub disturbance: Option<String>,
    /// What the machine did beside.
    pub machine: Option<Disturbance>,
    #[serde(skip)]
    bound: Bound,
}

impl Check {
    /// Notes what the machine did beside.
    #[must_use]
    pub fn on(mut self, machine: &Disturbance) -> Self {
        self.machine = Some(*machine);
        self
    }

    /// Judges a figure: what is not as it should be counts as a failure only where nothing disturbed it.
    #[must_use]
    pub fn new(
        check: &'static str,
        what: String,
        unit: Unit,
        bound: Bound,
        measured: Option<f64>,
        disturbance: Option<String>,
    ) -> Self {
        let holds = measured.is_some_and(|measured| bound.holds(measured));
        let verdict = match (bound, holds, &disturbance) {
            (Bound::Any, ..) => Verdict::Figure,
            (_, true, _) => Verdict::Ok,
            (_, false, Some(_)) => Verdict::Disturbed,
            (_, false, None) => Verdict::Failed,
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
            disturbance: disturbance.filter(|_| verdict != Verdict::Ok),
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
            Some(reason) if self.verdict == Verdict::Figure => format!("({reason})"),
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

/// The same server seen by two kinds of load: one line each.
#[derive(Clone, Debug, Serialize)]
pub struct LessonLine {
    /// Whose figures these are.
    pub who: &'static str,
    /// How many requests.
    pub requests: Option<u64>,
    /// The 50th percentile of latency.
    pub p50_ns: Option<f64>,
    /// The 90th.
    pub p90_ns: Option<f64>,
    /// The 95th.
    pub p95_ns: Option<f64>,
    /// The 99th.
    pub p99_ns: Option<f64>,
    /// The 99.9th.
    pub p999_ns: Option<f64>,
}

/// All that was found.
#[derive(Debug, Serialize)]
pub struct SelfcheckReport {
    /// Rises when a field changes its name or meaning.
    pub schema_version: u32,
    /// The worst of the verdicts.
    pub verdict: Verdict,
    /// Whether servers and clients had CPUs of their own.
    pub split: bool,
    /// Whether idle CPUs were kept from sleeping.
    pub awake: bool,
    /// The average load of the machine before.
    pub load_average_before: Option<f64>,
    /// And after.
    pub load_average_after: Option<f64>,
    /// How long it took.
    pub elapsed_ns: u64,
    /// What the machine did beside: the sum of the hiccups, the largest of the shares.
    pub disturbance: Disturbance,
    /// Every figure.
    pub checks: Vec<Check>,
    /// What a closed loop does not see.
    pub lesson: Vec<LessonLine>,
}

impl SelfcheckReport {
    /// The worst of all verdicts; a failure counts more than a disturbance.
    #[must_use]
    pub fn worst(checks: &[Check]) -> Verdict {
        let has = |verdict| checks.iter().any(|check| check.verdict == verdict);
        [Verdict::Failed, Verdict::Disturbed]
            .into_iter()
            .find(|&verdict| has(verdict))
            .unwrap_or(Verdict::Ok)
    }

    /// The exit code of the command.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.verdict {
            Verdict::Ok | Verdict::Figure => 0,
            Verdict::Failed => 2,
            Verdict::Disturbed => 3,
        }
    }

    /// As people read it.
    #[must_use]
    pub fn for_people(&self) -> String {
        let mut parts = vec![checks_table(&self.checks)];
        if !self.lesson.is_empty() {
            parts.push(
                "the same server, which stops for 100 ms in every second, as two kinds of load see it:\n"
                    .to_owned(),
            );
            parts.push(lesson_table(&self.lesson));
        }
        parts.push(self.conclusion() + "\n");
        parts.join("\n")
    }

    fn conclusion(&self) -> String {
        let count = |verdict| {
            let with = self.checks.iter().filter(|check| check.verdict == verdict);
            with.count()
        };
        let load = |load: Option<f64>| units::or_unknown(load, |load| format!("{load:.2}"));
        format!(
            "{} ok, {} failed, {} disturbed; {} hiccups in {} requests; load average {} before, {} after; {:.0} s{}{}",
            count(Verdict::Ok),
            count(Verdict::Failed),
            count(Verdict::Disturbed),
            units::count(self.disturbance.hiccups),
            units::count(self.disturbance.requests),
            load(self.load_average_before),
            load(self.load_average_after),
            self.elapsed_ns as f64 / 1e9,
            if self.split {
                ""
            } else {
                "; servers and clients shared the only CPU"
            },
            if self.awake {
                "; idle CPUs were kept awake".to_owned()
            } else {
                format!(
                    "; idle CPUs slept, which makes replies late: {} is not to be written by this user",
                    Awake::FILE
                )
            }
        )
    }
}

fn checks_table(checks: &[Check]) -> String {
    let mut table = plain(&["check", "expected", "measured", "tolerance", "verdict"]);
    let mut group = "";
    for check in checks {
        if group != check.check {
            if !group.is_empty() {
                table.add_row([""]);
            }
            group = check.check;
        }
        table.add_row(check.cells());
    }
    align(&mut table, &[1, 2, 3]);
    lines(&table)
}

fn lesson_table(lesson: &[LessonLine]) -> String {
    let mut table = plain(&["", "requests", "p50", "p90", "p95", "p99", "p99.9"]);
    for line in lesson {
        let mut cells = vec![
            line.who.to_owned(),
            units::or_unknown(line.requests, units::count),
        ];
        let times = [
            line.p50_ns,
            line.p90_ns,
            line.p95_ns,
            line.p99_ns,
            line.p999_ns,
        ];
        // Sums of fractions of a second are not quite 0 where they should be.
        let show = |time: f64| match time {
            time if time < 1.0 => "0".to_owned(),
            time => units::duration(time),
        };
        cells.extend(times.map(|time| units::or_unknown(time, show)));
        table.add_row(cells);
    }
    align(&mut table, &[1, 2, 3, 4, 5, 6]);
    lines(&table)
}

/// A table without lines, whose columns are as wide as what is in them.
pub(super) fn plain(names: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(names.iter().map(ToString::to_string));
    table
}

/// Aligns these columns to the right.
pub(super) fn align(table: &mut Table, columns: &[usize]) {
    for &column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// Without blanks at the ends of lines.
pub(super) fn lines(table: &Table) -> String {
    let text = table.to_string();
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bound: Bound, measured: Option<f64>, disturbance: Option<&str>) -> Verdict {
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
        assert_eq!(check(near, Some(103.0), None), Verdict::Ok);
        assert_eq!(check(near, Some(97.0), Some("noise")), Verdict::Ok);
        assert_eq!(check(near, Some(104.0), None), Verdict::Failed);
        assert_eq!(check(near, Some(104.0), Some("noise")), Verdict::Disturbed);
        assert_eq!(check(near, None, None), Verdict::Failed);
        assert_eq!(check(Bound::AtMost(5.0), Some(5.0), None), Verdict::Ok);
        assert_eq!(check(Bound::AtMost(5.0), Some(5.1), None), Verdict::Failed);
        assert_eq!(check(Bound::Any, None, None), Verdict::Figure);
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
        assert_eq!(SelfcheckReport::worst(&[]), Verdict::Ok);
        assert_eq!(
            SelfcheckReport::worst(&[good.clone(), disturbed.clone()]),
            Verdict::Disturbed
        );
        assert_eq!(
            SelfcheckReport::worst(&[good, disturbed, failed]),
            Verdict::Failed
        );
    }
}
