//! Capacity: the highest rate at which each arm keeps an objective, found by a search, and its tables.

mod search;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::bail;

use self::search::{Answer, Bracket, Search};
use super::plan::{closed_loops, peak};
use super::progress::expected_ms as block_ms;
use super::scenario_report::{ArmLine, Load, ScenarioReport};
use super::slo::{SloJudgement, SloVerdict};
use crate::experiment::condition::Condition;
use crate::render::Part;
use crate::render::grid::{Cell, Grid};
use crate::render::units::{self, UNKNOWN, or_unknown, plural};
use crate::results::ordered::{distinct, entry};
use crate::results::{BlockRow, ConditionKey, EffortName, Metric, RunRecord};
use crate::scenario::arm::Arm;
use crate::scenario::{Effort, Scenario, Slo};

/// Share of its closed-loop peak at which the search for an arm begins.
const START: f64 = 0.5;

/// The next step of a search: an open loop with a rate for each arm. `None` if the capacity of every arm is known, or
/// after the last step. `closed` is the closed loop that found the peaks.
///
/// It follows from the rows alone, so that a resumed run goes on with the same rates.
pub(super) fn next_step(
    closed: &Condition,
    record: &RunRecord,
    blocks: &[BlockRow],
) -> Option<Condition> {
    let capacity = closed.scenario.capacity.as_ref()?;
    let effort = record.effort_of(&closed.scenario);
    let finished = finished_steps(closed, effort, blocks);
    if finished >= capacity.steps {
        return None;
    }

    let slo = closed.scenario.slo.unwrap_or_default();
    let key = closed.key();
    let search = |arm: &Arm| {
        let rows = rows_of_search(blocks, &key, &arm.name);
        let rows = rows.filter(|row| row.step.is_some_and(|step| step <= finished));
        Search {
            start: START * peak(closed, arm, blocks),
            precision: capacity.precision,
            tried: tried(slo, &rows.collect::<Vec<_>>()),
        }
    };
    let searches: Vec<Search> = closed.arms.iter().map(search).collect();
    let run = closed.arms.iter().zip(&searches);
    let mut run = run.filter(|(arm, _)| arm.skip.is_none());
    if run.all(|(_, search)| search.is_done()) {
        return None;
    }

    let rates: Vec<f64> = searches.iter().map(Search::next_rate).collect();
    let lowest = rates.iter().copied().fold(f64::INFINITY, f64::min);
    Some(Condition {
        effort: effort.for_rate(lowest, slo.percentile),
        step: Some(finished + 1),
        rates,
        ..closed.clone()
    })
}

/// Steps of which every block was measured.
fn finished_steps(closed: &Condition, effort: Effort, blocks: &[BlockRow]) -> u32 {
    let first = &closed.arms[0].name;
    let rows: Vec<&BlockRow> = rows_of_search(blocks, &closed.key(), first).collect();
    let is_whole = |step: &u32| {
        let own = rows.iter().filter(|row| row.step == Some(*step));
        own.count() >= effort.blocks as usize
    };
    let steps = rows.iter().filter_map(|row| row.step);
    let last = steps.max().unwrap_or(0);
    (1..=last).take_while(is_whole).last().unwrap_or(0)
}

/// The rows of an arm in the steps of a search.
fn rows_of_search<'a>(
    blocks: impl IntoIterator<Item = &'a BlockRow>,
    closed: &ConditionKey,
    arm: &str,
) -> impl Iterator<Item = &'a BlockRow> {
    blocks.into_iter().filter(move |row| {
        row.step.is_some() && row.model == arm && row.condition().without_step() == *closed
    })
}

/// The rates of an arm in the order of their steps, each with the answer of all blocks at this rate.
fn tried(slo: Slo, rows: &[&BlockRow]) -> Vec<(f64, Answer)> {
    let mut steps: Vec<(u32, f64)> = Vec::new();
    for row in rows {
        if let Some(step) = row.step.zip(row.rate_per_second)
            && !steps.contains(&step)
        {
            steps.push(step);
        }
    }
    steps.sort_by_key(|(step, _)| *step);
    steps
        .into_iter()
        .map(|(_, rate)| (rate, answer(slo, &at_rate(rows, rate))))
        .collect()
}

/// The rows at a rate, which is read back as it was written.
fn at_rate<'a>(rows: &[&'a BlockRow], rate: f64) -> Vec<&'a BlockRow> {
    let own = rows.iter().filter(|row| row.rate_per_second == Some(rate));
    own.copied().collect()
}

/// The answer of the blocks at one rate.
fn answer(slo: Slo, rows: &[&BlockRow]) -> Answer {
    if rows.iter().all(|row| !row.is_ok()) {
        return Answer::Failed;
    }
    let judgement = SloJudgement::new(slo, rows.iter().copied());
    match judgement.verdict {
        SloVerdict::Kept => Answer::Kept,
        SloVerdict::Missed => Answer::Missed,
        SloVerdict::Unresolved => Answer::Unresolved,
        SloVerdict::NotJudged if 2 * judgement.limited >= judgement.left_out => Answer::Limited,
        SloVerdict::NotJudged => Answer::NotJudged,
    }
}

/// The step and the rates that it tries, in words.
pub(super) fn announcement(step: &Condition) -> String {
    let arms = step.arms.iter().zip(&step.rates);
    let arms = arms.filter(|(arm, _)| arm.skip.is_none());
    let rates: Vec<String> = arms
        .map(|(arm, rate)| format!("{} {}", arm.name, units::rate(*rate)))
        .collect();
    format!(
        "{}, {}: {}; about {} s",
        step.scenario.name,
        step.key().clients_in_words(),
        rates.join(", "),
        time_of(step).as_secs()
    )
}

/// A line for each scenario with a search: the longest time that it takes.
pub(super) fn expected_times(closed: &[Condition], record: &RunRecord) -> Vec<String> {
    let of_scenario = |group: &[Condition]| {
        let scenario = &group[0].scenario;
        let steps = scenario.capacity.as_ref()?.steps;
        let full = record.effort == EffortName::Full;
        let (peaks, step) = times(group, scenario.effort(full));
        Some(format!(
            "{}: peaks take about {} s, then at most {steps} steps of about {} s; longer where low rates need longer slices",
            scenario.name,
            peaks.as_secs(),
            step.as_secs()
        ))
    };
    closed
        .chunk_by(|a, b| a.scenario.name == b.scenario.name)
        .filter_map(of_scenario)
        .collect()
}

/// Fails if a search has no time for its peaks and one step.
pub(super) fn check_time(
    scenarios: &[Scenario],
    effort: EffortName,
    limit: Duration,
) -> anyhow::Result<()> {
    let mut needed = Duration::ZERO;
    for scenario in scenarios {
        let effort = scenario.effort(effort == EffortName::Full);
        let (peaks, step) = times(&closed_loops(scenario, effort)?, effort);
        needed += peaks + step;
    }
    if needed > limit {
        bail!(
            "--max-time: the peaks and one step take about {} s; give more time, fewer --blocks or fewer arms",
            needed.as_secs()
        );
    }
    Ok(())
}

/// Approximate time of a step.
pub(super) fn time_of(step: &Condition) -> Duration {
    Duration::from_millis(block_ms(step) * u64::from(step.effort.blocks))
}

/// Time of the closed loops of a search, and of one step.
fn times(closed: &[Condition], effort: Effort) -> (Duration, Duration) {
    let peaks = closed.iter().map(time_of).sum();
    let step = closed.iter().map(|condition| {
        time_of(&Condition {
            effort,
            ..condition.clone()
        })
    });
    (peaks, step.sum())
}

/// Capacity of one arm with one kind of load.
struct ArmCapacity<'r, 'a> {
    /// The load, without the step.
    condition: ConditionKey,
    arm: &'a str,
    /// Its steps in order, each with its rate.
    lines: Vec<(f64, &'r ArmLine<'a>)>,
    bracket: Bracket,
    tried: Vec<(f64, Answer)>,
}

impl ScenarioReport<'_> {
    /// Whether it has the steps of a search.
    pub(super) fn is_search(&self) -> bool {
        self.lines.iter().any(|line| line.load() == Load::Step)
    }
}

impl<'a> ScenarioReport<'a> {
    fn capacities(&self) -> Vec<ArmCapacity<'_, 'a>> {
        let slo = self.slo.unwrap_or_default();
        let mut arms: Vec<((ConditionKey, &'a str), Vec<&ArmLine<'a>>)> = Vec::new();
        let steps = self.lines.iter().filter(|line| line.load() == Load::Step);
        for line in steps.filter(|line| !self.is_skipped(line)) {
            let key = (line.condition().without_step(), line.model());
            entry(&mut arms, key).push(line);
        }

        let arms = arms.into_iter();
        arms.map(|((condition, arm), lines)| self.capacity(slo, condition, arm, &lines))
            .collect()
    }

    fn capacity<'r>(
        &self,
        slo: Slo,
        condition: ConditionKey,
        arm: &'a str,
        lines: &[&'r ArmLine<'a>],
    ) -> ArmCapacity<'r, 'a> {
        let own = rows_of_search(self.blocks.iter().copied(), &condition, arm);
        let tried = tried(slo, &own.collect::<Vec<_>>());
        let rates = lines.iter().filter_map(|line| self.rate_of(line));
        ArmCapacity {
            bracket: Bracket::of(&tried),
            lines: rates.zip(lines.iter().copied()).collect(),
            tried,
            condition,
            arm,
        }
    }

    /// The rate of a step, which a failed arm has as well.
    fn rate_of(&self, line: &ArmLine<'_>) -> Option<f64> {
        let condition = line.condition();
        let mut rows = self.blocks_of(line.model(), &condition);
        rows.find_map(|row| row.rate_per_second)
    }

    /// The capacity of each arm, and the steps that found it.
    pub(super) fn capacity_tables(&self) -> Vec<Part> {
        let capacities = self.capacities();
        if capacities.is_empty() {
            return Vec::new();
        }

        let slo = self.slo.unwrap_or_default();
        let intro = format!(
            "Capacity: the highest rate at which {slo} is kept, as are all lower rates tried, and the lowest rate at which \
             it is missed. The search begins at half of each arm's closed-loop peak; latency counts from when a request \
             was due."
        );
        vec![
            Part::Lines(vec![intro]),
            Part::Table(self.capacity_table(&capacities)),
            Part::Lines(vec!["The steps of the search:".to_owned()]),
            Part::Table(self.step_table(slo)),
        ]
    }

    fn capacity_table(&self, capacities: &[ArmCapacity<'_, 'a>]) -> Grid {
        let names = [
            "model",
            "kept up to",
            "missed at",
            "p99",
            "CPU/req",
            "steps",
            "between",
        ];
        // One line stands for each arm; its cells come from all of its steps.
        let capacity_of = |line: &ArmLine<'_>| {
            let mut own = capacities.iter();
            own.find(|capacity| {
                capacity
                    .lines
                    .first()
                    .is_some_and(|(_, first)| std::ptr::eq(*first, line))
            })
        };
        self.by_condition(
            &names,
            &[0, 6],
            |line| capacity_of(line).is_some(),
            |line| capacity_of(line).map_or_else(Vec::new, ArmCapacity::cells),
        )
    }

    fn step_table(&self, slo: Slo) -> Grid {
        let name = slo.to_string();
        let names = [
            "step",
            "model",
            "rate",
            "p50",
            "p99",
            "slice p99",
            "CPU/req",
            "errors",
            &name,
        ];
        let is_step = |line: &ArmLine<'_>| line.load() == Load::Step;
        let grid = self.by_condition(&names, &[1, 7, 8], is_step, |line| {
            vec![
                or_unknown(line.condition().step, |step| step.to_string()).into(),
                line.model().into(),
                line.cell(Metric::PlannedRate, units::rate),
                line.time(Metric::LatencyP50),
                line.time(Metric::LatencyP99),
                line.time(Metric::SliceLatencyP99),
                line.time(Metric::CpuPerRequest),
                line.errors().into(),
                self.judge(slo, line).cell().into(),
            ]
        });
        Grid {
            spare: &["slice p99", "CPU/req", "p50"],
            ..grid
        }
    }

    /// A sentence for each load on the capacities of its arms.
    pub(super) fn capacity_sentences(&self) -> Vec<String> {
        let slo = self.slo.unwrap_or_default();
        let capacities = self.capacities();
        let loads = distinct(capacities.iter().map(|capacity| capacity.condition.clone()));
        let sentence = |load: &ConditionKey| {
            let own = capacities.iter().filter(|own| own.condition == *load);
            let arms: Vec<String> = own
                .map(|own| format!("`{}` {}", own.arm, own.sentence()))
                .collect();
            let clients = load.with_traffic(&plural(load.clients as usize, "client"));
            format!(
                "Highest rate that keeps {slo}, {clients}: {}.",
                arms.join("; ")
            )
        };
        loads.iter().map(sentence).collect()
    }
}

impl ArmCapacity<'_, '_> {
    fn cells(&self) -> Vec<Cell> {
        let kept = self.bracket.kept.and_then(|kept| self.line_at(kept));
        let of_kept = |cell: fn(&ArmLine<'_>) -> Cell| kept.map_or_else(|| UNKNOWN.into(), cell);
        vec![
            self.arm.into(),
            of_kept(|line| line.cell(Metric::PlannedRate, units::rate)),
            or_unknown(self.bracket.missed, units::rate).into(),
            of_kept(|line| line.time(Metric::LatencyP99)),
            of_kept(|line| line.time(Metric::CpuPerRequest)),
            self.tried.len().to_string().into(),
            self.between().into(),
        ]
    }

    #[expect(clippy::float_cmp, reason = "the rate is that of one of the lines")]
    fn line_at(&self, rate: f64) -> Option<&ArmLine<'_>> {
        let mut lines = self.lines.iter();
        lines.find_map(|(own, line)| (*own == rate).then_some(*line))
    }

    /// Rates between the one that is kept and the one that is missed, in words.
    fn between(&self) -> String {
        let Bracket {
            kept,
            missed,
            limited,
            ..
        } = self.bracket;
        let in_gap = |rate: f64| {
            kept.is_none_or(|kept| rate > kept) && missed.is_none_or(|missed| rate < missed)
        };
        let count = |wanted: Answer| {
            let rates = self
                .tried
                .iter()
                .filter(|(rate, answer)| *answer == wanted && in_gap(*rate));
            distinct(rates.map(|(rate, _)| rate.to_bits())).len()
        };

        let mut parts = Vec::new();
        if let Some(limited) = limited {
            parts.push(format!(
                "the load generator was the limit at {}",
                units::rate(limited)
            ));
        }
        for (answer, words) in [
            (Answer::Unresolved, "not resolved"),
            (Answer::NotJudged, "not judged"),
        ] {
            let rates = count(answer);
            if rates > 0 {
                parts.push(format!("{words} at {}", plural(rates, "rate")));
            }
        }
        if self
            .tried
            .last()
            .is_some_and(|(_, answer)| *answer == Answer::Failed)
        {
            parts.push("the arm failed".to_owned());
        }
        parts.join(", ")
    }

    /// The capacity in words: `12,000/s, missed at 12,600/s`.
    fn sentence(&self) -> String {
        let Bracket {
            kept,
            missed,
            limited,
            ..
        } = self.bracket;
        let lowest = self
            .tried
            .iter()
            .map(|(rate, _)| *rate)
            .fold(f64::INFINITY, f64::min);
        let mut text = match (kept, limited.or(missed)) {
            (Some(kept), None) => format!("at least {}", units::rate(kept)),
            (Some(kept), Some(_)) if limited.is_some() => format!("at least {}", units::rate(kept)),
            (Some(kept), Some(_)) => units::rate(kept),
            (None, Some(_)) => format!("none down to {}", units::rate(lowest)),
            (None, None) => "not known".to_owned(),
        };
        if let Some(missed) = missed {
            text = format!("{text}, missed at {}", units::rate(missed));
        }
        match self.between() {
            between if between.is_empty() => text,
            between => format!("{text} ({between})"),
        }
    }
}
