//! Measurement of a gate: three arms of each model, block by block, until the rule decides.

use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use echobench_clients::ErrorKind;

use super::report::GateReport;
use super::rule::{
    self, Finding, GateComparison, GateMetric, GateVerdict, InconclusiveReason, LOOKS, Sample,
    Step, decide, judge,
};
use super::server::{ArmProgram, GateServer};
use crate::experiment::condition::Condition;
use crate::experiment::hosts::Hosts;
use crate::experiment::observation::BlockOutcome;
use crate::render::units::duration;
use crate::results::{BlockRow, SCHEMA_VERSION, SliceRow, Writer};
use crate::scenario::arm::{Arm, unavailable};
use crate::scenario::{Effort, Scenario, Span};
use crate::stats::median_log_ratio;

/// The names of the arms of each subject, in order.
pub const ARMS: [&str; 3] = ["baseline1", "baseline2", "candidate"];

/// Length of the slice in which a server of another project has to show that it echoes, and of the gap after it.
const REHEARSAL: Span = Span(Duration::from_millis(50));

/// Two servers to compare, and the workload.
#[derive(Clone)]
pub struct Gate {
    /// The server to compare with.
    pub baseline: GateServer,
    /// The server to judge.
    pub candidate: GateServer,
    /// The workload. Its arms are the models of two builds, or one server of another project.
    pub scenario: Scenario,
    /// The largest number of blocks, and their form.
    pub effort: Effort,
    /// Seed of the orders of the arms and of the clients' traffic.
    pub seed: u64,
    /// Additional arguments of the candidate.
    pub candidate_options: Vec<String>,
    /// The hosts of servers and clients.
    pub hosts: Rc<Hosts>,
}

/// Receivers of what a gate measures.
pub struct Observer<'a> {
    /// Results folder for all rows.
    pub writer: Option<&'a mut Writer>,
    /// Called with the name of each subject and each of its blocks.
    pub blocks: &'a mut dyn FnMut(&str, &BlockOutcome),
    /// Called with messages on the progress.
    pub progress: &'a dyn Fn(&str),
}

/// Error of a gate in which an arm gave a wrong reply, or counted other requests than its clients.
#[derive(Debug)]
pub struct WrongReplies(String);

impl fmt::Display for WrongReplies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongReplies {}

/// One model, or one other server, under one condition, and its values so far.
struct Subject {
    condition: Condition,
    name: String,
    samples: Vec<Sample>,
}

/// Blocks measured in turn: the subjects, and the programs that they run.
struct Session<'g> {
    gate: &'g Gate,
    subjects: Vec<Subject>,
    // Dropped last: the subjects name its files.
    _programs: [ArmProgram; 3],
}

impl Gate {
    /// Fails if a build does not know a model, if this host cannot serve it, and if the blocks are too few for any decision.
    pub fn check(&self) -> anyhow::Result<()> {
        for model in &self.scenario.models {
            for (side, server) in self.sides() {
                if let GateServer::Build(build) = server {
                    build.check_model(side, model)?;
                }
            }
            // Left out, it would be part of a gate that passed.
            if let Some(reason) = unavailable(model) {
                bail!("cannot measure {model}: {reason}");
            }
        }

        let subjects = self.servers().count() * self.conditions().len();
        let comparisons = subjects * GateMetric::ALL.len();
        let needed = LOOKS * rule::blocks_needed(comparisons);

        if self.effort.blocks < needed {
            bail!(
                "{} blocks cannot decide {comparisons} comparisons: give {needed} blocks or more",
                self.effort.blocks
            );
        }

        Ok(())
    }

    /// Runs servers of another project for a moment. Fails unless each of them starts, listens and echoes.
    pub fn rehearse(&self) -> anyhow::Result<()> {
        let effort = Effort {
            rounds: 1,
            slice: REHEARSAL,
            gap: REHEARSAL,
            ..self.effort
        };
        let conditions = Condition::all_of(&self.scenario, effort);
        let condition = conditions.first().context("a scenario has a condition")?;

        for (side, server) in self.sides() {
            let GateServer::External(external) = server else {
                continue;
            };
            let arm = Arm::of_external(external)?;
            let outcome = condition
                .with_arms(vec![arm])
                .run_block(&self.hosts, 1, self.seed)?;
            let row = outcome.blocks.first().context("a row of the arm")?;
            if let Some(problem) = problem_of_stranger(row, self.effort.gap) {
                let place = self.hosts.server_in_words();
                bail!(
                    "cannot measure the {side} {}{place}: {problem}",
                    server.title()
                );
            }
        }
        Ok(())
    }

    fn sides(&self) -> [(&'static str, &GateServer); 2] {
        [("baseline", &self.baseline), ("candidate", &self.candidate)]
    }

    /// Measures up to the verdict. Fails when interrupted, and when an arm could not be measured.
    pub fn run(&self, observer: &mut Observer<'_>) -> anyhow::Result<GateReport> {
        let mut session = Session::new(self)?;
        let began = Instant::now();

        for look in 1..=LOOKS {
            for block in self.blocks_until(look - 1) + 1..=self.blocks_until(look) {
                session.run_block(block, began, observer)?;
            }

            let table = judge(&session.samples(), LOOKS);
            match decide(&table, look == LOOKS) {
                Step::Pass => return Ok(self.report(GateVerdict::Pass, None, look, table)),
                Step::Inconclusive(reason) => {
                    let verdict = GateVerdict::Inconclusive;
                    return Ok(self.report(verdict, Some(reason), look, table));
                }
                Step::Confirm => {
                    drop(session);
                    return self.confirm(look, table, began, observer);
                }
                Step::GoOn => (observer.progress)(&format!(
                    "nothing is decided after {} blocks: measuring more",
                    self.blocks_until(look)
                )),
            }
        }
        unreachable!("the last look decides")
    }

    /// Slow-downs of so many blocks, without a verdict.
    pub fn measure(&self, blocks: u32) -> anyhow::Result<Vec<Sample>> {
        let mut session = Session::new(self)?;
        let mut nobody = Observer {
            writer: None,
            blocks: &mut |_, _| (),
            progress: &|_| (),
        };

        for block in 1..=blocks {
            session.run_block(block, Instant::now(), &mut nobody)?;
        }
        Ok(session.samples())
    }

    /// Measures the suspected regressions again, with new processes and new copies of the executables.
    fn confirm(
        &self,
        look: u32,
        table: Vec<GateComparison>,
        began: Instant,
        observer: &mut Observer<'_>,
    ) -> anyhow::Result<GateReport> {
        let suspected = |subject: &str, metric| {
            let mut lines = table.iter();
            lines.any(|line| {
                line.finding == Finding::Slower
                    && (&line.subject[..], line.metric) == (subject, metric)
            })
        };

        (observer.progress)("something got slower: measuring again to confirm it");

        let mut session = Session::new(self)?;
        session.subjects.retain(|subject| {
            let mut metrics = GateMetric::ALL.iter();
            metrics.any(|&metric| suspected(&subject.name, metric))
        });

        let first = self.blocks_until(look) + 1;
        let blocks = self.effort.blocks;
        for block in first..first + blocks {
            session.run_block(block, began, observer)?;
        }

        let mut again = session.samples();
        again.retain(|sample| suspected(&sample.subject, sample.metric));
        let confirmation = judge(&again, 1);
        let (verdict, reason) = if rule::is_confirmed(&confirmation) {
            (GateVerdict::Regression, None)
        } else {
            let reason = InconclusiveReason::NotConfirmed;
            (GateVerdict::Inconclusive, Some(reason))
        };

        Ok(GateReport {
            confirmation_blocks: blocks,
            confirmation,
            ..self.report(verdict, reason, look, table)
        })
    }

    fn report(
        &self,
        verdict: GateVerdict,
        reason: Option<InconclusiveReason>,
        looks: u32,
        comparisons: Vec<GateComparison>,
    ) -> GateReport {
        GateReport {
            schema_version: SCHEMA_VERSION,
            verdict,
            reason,
            scenario: self.scenario.name.clone(),
            baseline: self.baseline.clone(),
            candidate: self.candidate.clone(),
            blocks: self.blocks_until(looks),
            looks,
            comparisons,
            confirmation_blocks: 0,
            confirmation: Vec::new(),
        }
    }

    /// Number of blocks up to the look of this number, from 1.
    fn blocks_until(&self, look: u32) -> u32 {
        self.effort.blocks * look / LOOKS
    }

    /// The conditions without their arms, each with a suffix for the names of its subjects; empty if there
    /// is only one.
    fn conditions(&self) -> Vec<(Condition, String)> {
        let named = |condition: Condition| {
            let Condition {
                clients,
                driver,
                placement,
                ..
            } = condition;
            (condition, format!(", {clients} {driver}, {placement}"))
        };
        let conditions = Condition::all_of(&self.scenario, self.effort);
        let mut conditions: Vec<_> = conditions.into_iter().map(named).collect();

        if let [(_, only)] = &mut conditions[..] {
            only.clear();
        }
        conditions
    }

    /// The names of what is compared: models, or one server of another project.
    pub fn servers(&self) -> impl Iterator<Item = &String> {
        let external = self.scenario.external.iter();
        let external = external.map(|external| &external.name);
        self.scenario.models.iter().chain(external)
    }

    /// The subject of a server under a condition: two arms of the baseline and one of the candidate.
    fn subject(
        &self,
        condition: &Condition,
        suffix: &str,
        server: &str,
        programs: &[ArmProgram; 3],
    ) -> anyhow::Result<Subject> {
        let sides = ARMS.iter().zip(programs);
        let arms = sides.map(|(side, program)| program.arm(format!("{server} {side}"), server));
        let mut arms: Vec<Arm> = arms.collect::<anyhow::Result<_>>()?;
        arms[2].arguments.extend_from_slice(&self.candidate_options);

        let name = format!("{server}{suffix}");
        Ok(Subject {
            condition: condition.with_arms(arms),
            samples: GateMetric::ALL
                .iter()
                .map(|&metric| Sample::empty(&name, metric))
                .collect(),
            name,
        })
    }

    /// Rough time up to the last look, without a confirmation.
    #[must_use]
    pub fn expected_time(&self) -> Duration {
        // Start and end of the processes of a block.
        const OVERHEAD: Duration = Duration::from_millis(250);

        let servers = u32::try_from(self.servers().count()).unwrap_or(u32::MAX);
        let arms: Vec<Arm> = ARMS.iter().map(|name| Arm::of_model(name)).collect();
        let blocks = self
            .conditions()
            .into_iter()
            .map(|(condition, _)| condition.with_arms(arms.clone()).block_time() + OVERHEAD);

        blocks.sum::<Duration>() * servers * self.effort.blocks
    }
}

impl<'g> Session<'g> {
    fn new(gate: &'g Gate) -> anyhow::Result<Self> {
        let programs = [
            gate.baseline.program()?,
            gate.baseline.program()?,
            gate.candidate.program()?,
        ];

        let mut subjects = Vec::new();
        for (condition, suffix) in gate.conditions() {
            for server in gate.servers() {
                subjects.push(gate.subject(&condition, &suffix, server, &programs)?);
            }
        }
        Ok(Session {
            gate,
            subjects,
            _programs: programs,
        })
    }

    /// Runs a block of each subject.
    fn run_block(
        &mut self,
        block: u32,
        began: Instant,
        observer: &mut Observer<'_>,
    ) -> anyhow::Result<()> {
        for subject in &mut self.subjects {
            subject.run_block(block, self.gate, began, observer)?;
        }
        Ok(())
    }

    fn samples(&self) -> Vec<Sample> {
        let subjects = self.subjects.iter();
        subjects
            .flat_map(|subject| subject.samples.clone())
            .collect()
    }
}

impl Subject {
    fn run_block(
        &mut self,
        block: u32,
        gate: &Gate,
        began: Instant,
        observer: &mut Observer<'_>,
    ) -> anyhow::Result<()> {
        // Shuffled: the place in the start order may favour an arm.
        let mut condition = self.condition.clone();
        fastrand::Rng::with_seed(gate.seed ^ u64::from(block)).shuffle(&mut condition.arms);
        let outcome = condition.run_block(&gate.hosts, block, gate.seed)?;

        if let Some(writer) = &mut observer.writer {
            let length = condition.block_time();
            let start = began.elapsed().saturating_sub(length);
            let log = outcome.interval_log(start, length);
            writer.block(&outcome.slices, &outcome.blocks, &outcome.hosts, &log)?;
        }
        check_sound(&outcome)?;
        (observer.blocks)(&self.name, &outcome);

        let arms = self.condition.arms.iter();
        let names: Vec<&str> = arms.map(|arm| &arm.name[..]).collect();
        for sample in &mut self.samples {
            let against_first = |arm| log_slowdown(&outcome, sample.metric, arm, names[0]);
            sample.candidate.extend(against_first(names[2]));
            sample.again.extend(against_first(names[1]));
        }
        Ok(())
    }
}

/// Fails if a reply was wrong, or if an arm or a request failed: the figures would mean nothing.
fn check_sound(outcome: &BlockOutcome) -> anyhow::Result<()> {
    if let Some(violation) = outcome.violations.first() {
        return Err(WrongReplies(violation.clone()).into());
    }

    for row in &outcome.blocks {
        let (arm, block) = (&row.model, row.block);
        if !row.is_ok() {
            bail!("{arm}, block {block}: {}", row.status);
        }
        if has_failed(outcome, row) {
            bail!(
                "{arm}, block {block}: {} requests failed ({})",
                row.failed,
                row.errors
            );
        }
    }

    Ok(())
}

/// Whether an arm failed to answer requests. Those that it was still working on when the block ended did not fail: a
/// process that gets no CPU for some time just then leaves one for each client, begun in the last slice or, if the time
/// was longer, in one before. They stay in the percentiles, as slower than all others.
fn has_failed(outcome: &BlockOutcome, row: &BlockRow) -> bool {
    let own = outcome
        .slices
        .iter()
        .filter(|slice| slice.model == row.model);
    let timed_out: u64 = own
        .map(|slice| slice.errors.count(ErrorKind::TimedOut))
        .sum();
    row.failed > timed_out.min(u64::from(row.clients))
}

/// The reason why a server of another project cannot be measured in slices with this gap, from its first block.
fn problem_of_stranger(row: &BlockRow, gap: Span) -> Option<String> {
    let problem = if !row.is_ok() {
        row.status.to_string()
    } else if row.failed > 0 {
        format!("{} requests failed ({})", row.failed, row.errors)
    } else {
        // Few replies have no median.
        let reply_ns = row.latency_p50_ns.or(row.latency_max_ns)?;
        let is_slow = reply_ns > gap.ns();
        return is_slow.then(|| {
            format!(
                "its replies take {}, and scenario '{}' leaves {} after each slice for the last one: give a --scenario \
                 with longer slices and gaps",
                duration(reply_ns as f64),
                row.scenario,
                duration(gap.ns() as f64)
            )
        });
    };

    // It was sent something, so it listens.
    let advice = if row.planned > 0 {
        "; it has to send every frame back as it came (docs/protocol.md), which `echobench verify --external` checks"
    } else {
        ""
    };
    Some(problem + advice)
}

/// Natural logarithm of the slow-down of an arm of a block against another; `None` where one has no value.
#[must_use]
pub fn log_slowdown(
    outcome: &BlockOutcome,
    metric: GateMetric,
    arm: &str,
    reference: &str,
) -> Option<f64> {
    let values = |arm| Values::of(outcome, arm, metric);
    slowdown(&values(arm), &values(reference))
}

/// Values of an arm in a block as times, so that more is worse: one for each round, or one in all.
struct Values(Vec<f64>);

impl Values {
    /// A slice without a reply took infinitely long.
    fn of(outcome: &BlockOutcome, arm: &str, metric: GateMetric) -> Self {
        let each = |value: fn(&SliceRow) -> Option<f64>| {
            let slices = outcome.slices.iter();
            let mut rounds: Vec<&SliceRow> = slices.filter(|row| row.model == arm).collect();
            rounds.sort_by_key(|row| row.round);
            let values = rounds.into_iter().map(|row| value(row).unwrap_or(f64::NAN));
            Values(values.collect())
        };

        match metric {
            GateMetric::Throughput => each(|row| Some(1.0 / row.throughput_per_second)),
            GateMetric::Cpu => each(|row| Some(row.cpu_ns? as f64 / row.answered as f64)),
            GateMetric::P99 => {
                let own = |row: &&BlockRow| row.model == arm;
                let row = outcome.blocks.iter().find(own);
                let p99 = row.and_then(|row| row.latency_p99_ns);
                Values(vec![p99.map_or(f64::NAN, |p99| p99 as f64)])
            }
            GateMetric::SliceP99 => each(|row| row.latency_p99_ns.map(|p99| p99 as f64)),
        }
    }
}

/// Natural logarithm of the slow-down of `arm` against `reference`: the median over the rounds, in each of
/// which both were driven within a fraction of a second.
///
/// The reference is one arm, not the mean of both baselines: of two equal arms either is as likely to be
/// ahead, however skewed the noise is.
fn slowdown(arm: &Values, reference: &Values) -> Option<f64> {
    let rounds = arm.0.iter().copied().zip(reference.0.iter().copied());
    median_log_ratio(rounds)
}

#[cfg(test)]
mod tests {
    use echobench_clients::ErrorCounts;

    use super::*;

    /// A block of one arm with two slices, in which requests failed.
    fn block(first: &[ErrorKind], last: &[ErrorKind]) -> BlockOutcome {
        let slices = [(1, first), (2, last)].map(|(round, kinds)| {
            let mut errors = ErrorCounts::default();
            for &kind in kinds {
                errors.add(kind, 1);
            }
            SliceRow {
                model: "echo".to_owned(),
                round,
                failed: errors.total(),
                errors,
                ..SliceRow::default()
            }
        });
        let row = BlockRow {
            model: "echo".to_owned(),
            clients: 2,
            failed: slices.iter().map(|slice| slice.failed).sum(),
            ..BlockRow::default()
        };
        BlockOutcome {
            slices: slices.into(),
            blocks: vec![row],
            ..BlockOutcome::default()
        }
    }

    #[test]
    fn only_what_is_unanswered_at_the_end_of_a_block_has_not_failed() {
        let late = ErrorKind::TimedOut;
        for (first, last, is_sound) in [
            (&[][..], &[][..], true),
            (&[], &[late, late], true),
            (&[late], &[late], true),
            (&[late, late], &[late], false),
            (&[], &[ErrorKind::Reset], false),
            (&[], &[late, ErrorKind::EarlyClose], false),
        ] {
            let sound = check_sound(&block(first, last));
            assert_eq!(sound.is_ok(), is_sound, "{first:?}, {last:?}: {sound:?}");
        }
    }

    #[test]
    fn slow_downs_are_paired_within_rounds() {
        // The machine is twice as fast in the second round, and does nothing in the third.
        let one = Values(vec![100.0, 50.0, f64::INFINITY]);
        let candidate = Values(vec![110.0, 55.0, f64::INFINITY]);
        let slower = slowdown(&candidate, &one).unwrap();
        assert!((slower - 1.1_f64.ln()).abs() < 1e-12);
        assert_eq!(slowdown(&one, &one), Some(0.0));
    }

    #[test]
    fn an_arm_that_stands_still_is_infinitely_slow() {
        let (one, still) = (Values(vec![100.0]), Values(vec![f64::INFINITY]));
        assert_eq!(slowdown(&still, &one), Some(f64::INFINITY));
        assert_eq!(slowdown(&Values(vec![f64::NAN]), &one), None);
    }
}
