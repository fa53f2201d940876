//! The regression gate: a candidate build against a baseline build, in one experiment.
//!
//! `docs/gate.md` has the rule and its measured error rates.

pub mod builds;
pub mod export;
pub mod rule;

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde::Serialize;

use crate::experiment::condition::Condition;
use crate::experiment::observation::BlockOutcome;
use crate::results::{BlockRow, SliceRow, Writer};
use crate::scenario::arm::Arm;
use crate::scenario::{Effort, Scenario};
use crate::stats::median;
use builds::{Build, Copies};
use rule::{Comparison, Finding, LOOKS, Metric, Reason, Sample, Step, Verdict, decide, judge};

/// What is to be compared, and how.
pub struct Gate {
    /// The build that is known.
    pub baseline: Build,
    /// The build that is judged.
    pub candidate: Build,
    /// The workload.
    pub scenario: Scenario,
    /// Up to so many blocks, in slices so long.
    pub effort: Effort,
    /// Decides the orders of the arms and the clients' traffic.
    pub seed: u64,
    /// More options for the candidate's `serve`.
    pub candidate_options: Vec<String>,
}

/// What a gate came to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Rises when a field changes its name or meaning.
    pub schema_version: u32,
    /// The answer.
    pub verdict: Verdict,
    /// Why there is none.
    pub reason: Option<Reason>,
    /// The workload.
    pub scenario: String,
    /// The build that is known.
    pub baseline: Build,
    /// The build that is judged.
    pub candidate: Build,
    /// Blocks in the table.
    pub blocks: u32,
    /// Looks taken.
    pub looks: u32,
    /// The table.
    pub comparisons: Vec<Comparison>,
    /// Blocks of the run that had to confirm what looked like a regression; 0 if nothing did.
    pub confirmation_blocks: u32,
    /// What it found.
    pub confirmation: Vec<Comparison>,
}

/// What a gate reports while it runs.
pub struct Observer<'a> {
    /// Where all rows go.
    pub writer: Option<&'a mut Writer>,
    /// Who else wants to see each block of each subject.
    pub blocks: &'a mut dyn FnMut(&str, &BlockOutcome),
    /// What to tell people.
    pub progress: &'a dyn Fn(&str),
}

/// An arm gave a wrong reply, or its count of requests is not its clients'.
#[derive(Debug)]
pub struct WrongReplies(String);

impl fmt::Display for WrongReplies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongReplies {}

impl Report {
    /// Whether the second run found again what this line of the first one says.
    #[must_use]
    pub fn is_confirmed(&self, line: &Comparison) -> bool {
        self.confirmation.iter().any(|again| {
            again.finding == Finding::Slower
                && (&again.subject, again.metric) == (&line.subject, line.metric)
        })
    }
}

/// One model under one set of clients, and its values so far.
struct Subject {
    condition: Condition,
    name: String,
    samples: [Sample; 3],
}

impl Gate {
    /// Fails when a build does not know a model, and when there are too few blocks to decide anything.
    pub fn check(&self) -> anyhow::Result<()> {
        for model in &self.scenario.models {
            self.baseline.must_know("baseline", model)?;
            self.candidate.must_know("candidate", model)?;
        }
        let comparisons = self.scenario.models.len() * self.sections().len() * Metric::ALL.len();
        let needed = LOOKS * rule::blocks_needed(comparisons);
        if self.effort.blocks < needed {
            bail!(
                "{} blocks cannot decide {comparisons} comparisons: give {needed} blocks or more",
                self.effort.blocks
            );
        }
        Ok(())
    }

    /// Up to the look of this number, from 1.
    fn blocks_until(&self, look: u32) -> u32 {
        self.effort.blocks * look / LOOKS
    }

    /// Runs it to its verdict. Fails when interrupted, and when an arm could not be measured.
    pub fn run(&self, observer: &mut Observer<'_>) -> anyhow::Result<Report> {
        let copies = Copies::make(&self.baseline, &self.candidate)?;
        let mut subjects = self.subjects(&copies);
        let began = Instant::now();
        for look in 1..=LOOKS {
            let blocks = self.blocks_until(look - 1) + 1..=self.blocks_until(look);
            for block in blocks {
                for subject in &mut subjects {
                    self.run_block(subject, block, began, observer)?;
                }
            }
            let table = judge(&samples(&subjects), LOOKS);
            match decide(&table, look == LOOKS) {
                Step::Pass => return Ok(self.report(Verdict::Pass, None, look, table)),
                Step::Inconclusive(reason) => {
                    return Ok(self.report(Verdict::Inconclusive, Some(reason), look, table));
                }
                Step::Confirm => return self.confirm(look, table, began, observer),
                Step::GoOn => (observer.progress)(&format!(
                    "nothing is decided after {} blocks: going on",
                    self.blocks_until(look)
                )),
            }
        }
        unreachable!("the last look decides")
    }

    /// The slow-downs of so many blocks, without a verdict.
    pub fn measure(&self, blocks: u32) -> anyhow::Result<Vec<Sample>> {
        let copies = Copies::make(&self.baseline, &self.candidate)?;
        let mut subjects = self.subjects(&copies);
        let mut nobody = Observer {
            writer: None,
            blocks: &mut |_, _| (),
            progress: &|_| (),
        };
        for block in 1..=blocks {
            for subject in &mut subjects {
                self.run_block(subject, block, Instant::now(), &mut nobody)?;
            }
        }
        Ok(samples(&subjects))
    }

    /// What is suspected has to be found again, with new processes and new copies of the executables.
    fn confirm(
        &self,
        look: u32,
        table: Vec<Comparison>,
        began: Instant,
        observer: &mut Observer<'_>,
    ) -> anyhow::Result<Report> {
        let suspected = |subject: &str, metric| {
            let mut lines = table.iter();
            lines.any(|line| {
                line.finding == Finding::Slower
                    && (&line.subject[..], line.metric) == (subject, metric)
            })
        };
        (observer.progress)("something got slower: running again to confirm it");
        let copies = Copies::make(&self.baseline, &self.candidate)?;
        let mut subjects = self.subjects(&copies);
        subjects.retain(|subject| {
            Metric::ALL
                .into_iter()
                .any(|metric| suspected(&subject.name, metric))
        });
        let first = self.blocks_until(look) + 1;
        let blocks = self.effort.blocks;
        for block in first..first + blocks {
            for subject in &mut subjects {
                self.run_block(subject, block, began, observer)?;
            }
        }
        let mut again = samples(&subjects);
        again.retain(|sample| suspected(&sample.subject, sample.metric));
        let confirmation = judge(&again, 1);
        let (verdict, reason) = if rule::is_confirmed(&confirmation) {
            (Verdict::Regression, None)
        } else {
            (Verdict::Inconclusive, Some(Reason::NotConfirmed))
        };
        Ok(Report {
            confirmation_blocks: blocks,
            confirmation,
            ..self.report(verdict, reason, look, table)
        })
    }

    fn report(
        &self,
        verdict: Verdict,
        reason: Option<Reason>,
        looks: u32,
        comparisons: Vec<Comparison>,
    ) -> Report {
        Report {
            schema_version: 1,
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

    /// The cells without their arms, each with what tells it from the others.
    fn sections(&self) -> Vec<(Condition, String)> {
        let mut sections: Vec<_> = Condition::all_of(&self.scenario, self.effort, &[])
            .into_iter()
            .map(|condition| {
                let Condition {
                    clients,
                    driver,
                    placement,
                    ..
                } = condition;
                (condition, format!(", {clients} {driver}, {placement}"))
            })
            .collect();
        if let [(_, only)] = &mut sections[..] {
            only.clear();
        }
        sections
    }

    fn subjects(&self, copies: &Copies) -> Vec<Subject> {
        let mut subjects = Vec::new();
        for (condition, suffix) in self.sections() {
            for model in &self.scenario.models {
                let mut arms: Vec<Arm> = Copies::NAMES
                    .into_iter()
                    .enumerate()
                    .map(|(index, side)| {
                        Arm::of_build(format!("{model} {side}"), &copies.path(index), model)
                    })
                    .collect();
                arms[2].arguments.extend_from_slice(&self.candidate_options);
                let name = format!("{model}{suffix}");
                subjects.push(Subject {
                    condition: Condition {
                        arms,
                        ..condition.clone()
                    },
                    samples: Metric::ALL.map(|metric| Sample {
                        subject: name.clone(),
                        metric,
                        candidate: Vec::new(),
                        again: Vec::new(),
                    }),
                    name,
                });
            }
        }
        subjects
    }

    fn run_block(
        &self,
        subject: &mut Subject,
        block: u32,
        began: Instant,
        observer: &mut Observer<'_>,
    ) -> anyhow::Result<()> {
        // Not always in the same order: who starts first must not be who comes out first.
        let mut condition = subject.condition.clone();
        fastrand::Rng::with_seed(self.seed ^ u64::from(block)).shuffle(&mut condition.arms);
        let outcome = condition.run_block(block, self.seed)?;
        if let Some(writer) = &mut observer.writer {
            let length = condition.block_time();
            let start = began.elapsed().saturating_sub(length);
            let log = outcome.interval_log(start, length);
            writer.block(&outcome.slices, &outcome.blocks, &log)?;
        }
        must_be_sound(&outcome)?;
        (observer.blocks)(&subject.name, &outcome);
        let names: Vec<&str> = subject
            .condition
            .arms
            .iter()
            .map(|arm| &arm.name[..])
            .collect();
        for sample in &mut subject.samples {
            let [one, two, candidate] =
                [0, 1, 2].map(|arm| Values::of(&outcome, names[arm], sample.metric));
            sample.candidate.extend(slowdown(&candidate, &one));
            sample.again.extend(slowdown(&two, &one));
        }
        Ok(())
    }

    /// How long it takes at most, up to the last look and without a confirmation, roughly.
    #[must_use]
    pub fn expected_time(&self) -> Duration {
        const START: Duration = Duration::from_millis(250);
        let arms = self
            .scenario
            .models
            .iter()
            .map(|model| Arm::of_model(model));
        let arms: Vec<Arm> = arms.take(1).cycle().take(Copies::NAMES.len()).collect();
        let models = u32::try_from(self.scenario.models.len()).unwrap_or(u32::MAX);
        let sections = self.sections().into_iter();
        let blocks = sections.map(|(condition, _)| {
            let arms = arms.clone();
            Condition { arms, ..condition }.block_time() + START
        });
        blocks.sum::<Duration>() * models * self.effort.blocks
    }
}

fn samples(subjects: &[Subject]) -> Vec<Sample> {
    let samples = subjects.iter().flat_map(|subject| subject.samples.clone());
    samples.collect()
}

/// A wrong reply is no matter of speed, and figures of arms that failed are none.
fn must_be_sound(outcome: &BlockOutcome) -> anyhow::Result<()> {
    if let Some(violation) = outcome.violations.first() {
        return Err(WrongReplies(violation.clone()).into());
    }
    for row in &outcome.blocks {
        let (arm, block) = (&row.model, row.block);
        if !row.is_ok() {
            bail!("{arm}, block {block}: {}", row.status);
        }
        if row.failed > 0 {
            bail!(
                "{arm}, block {block}: {} requests failed ({})",
                row.failed,
                row.errors
            );
        }
    }
    Ok(())
}

/// The values of an arm in a block: one for each round, or one in all.
struct Values(Vec<f64>);

impl Values {
    /// As times: more is worse. A slice without a reply took for ever.
    fn of(outcome: &BlockOutcome, arm: &str, metric: Metric) -> Self {
        let each = |value: fn(&SliceRow) -> Option<f64>| {
            let mut rounds: Vec<&SliceRow> = outcome
                .slices
                .iter()
                .filter(|row| row.model == arm)
                .collect();
            rounds.sort_by_key(|row| row.round);
            let values = rounds.into_iter().map(|row| value(row).unwrap_or(f64::NAN));
            Values(values.collect())
        };
        match metric {
            Metric::Throughput => each(|row| Some(1.0 / row.throughput_per_second)),
            Metric::Cpu => each(|row| Some(row.cpu_ns? as f64 / row.answered as f64)),
            Metric::P99 => {
                let own = |row: &&BlockRow| row.model == arm;
                let p99 = outcome
                    .blocks
                    .iter()
                    .find(own)
                    .and_then(|row| row.latency_p99_ns);
                Values(vec![p99.map_or(f64::NAN, |p99| p99 as f64)])
            }
        }
    }
}

/// The logarithm of the slow-down of `arm` against `reference`: the median over the rounds, in each of
/// which both were driven within a fraction of a second. Against one arm, not against the mean of both
/// baselines: between two equal arms either is as likely to be ahead, however skewed the noise is.
fn slowdown(arm: &Values, reference: &Values) -> Option<f64> {
    let rounds = arm.0.iter().zip(&reference.0);
    let logs: Vec<f64> = rounds
        .map(|(arm, reference)| arm.ln() - reference.ln())
        .filter(|log| !log.is_nan())
        .collect();
    median(&logs)
}

#[cfg(test)]
mod tests {
    use super::*;

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
