//! The same arm against itself: what a comparison can resolve, and how often it finds a difference
//! where there is none.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use echobench_clients::Driver;
use echobench_servers::Settings;
use serde::Serialize;

use super::report::{align, lines, plain};
use crate::host::signals::{catch_interrupts, interrupted, unless_interrupted};

use crate::experiment::condition::Condition;
use crate::experiment::observation::BlockOutcome;
use crate::host::files::write_file;
use crate::host::machine::Machine;
use crate::render::units::or_unknown;
use crate::results::summary::summarize;
use crate::results::{Metric, SCHEMA_VERSION, csv_text};
use crate::scenario::arm::Arm;
use crate::scenario::{Placement, Scenario};
use crate::stats::{sign_interval, sign_test};

/// The models that are compared with themselves.
const MODELS: [&str; 2] = ["thread", "async"];
/// Two committed scenarios in which they are: many clients wherever the scheduler puts them, and the
/// form of the regression gate.
const FORMS: [Form; 2] = [
    Form {
        scenario: "steady",
        clients: 64,
        placement: Placement::None,
    },
    Form {
        scenario: "gate",
        clients: 2,
        placement: Placement::Same,
    },
];
/// The confidence of a run's interval.
const CONFIDENCE: f64 = 0.95;
/// The wall time for which standard errors are given.
const WALL: Duration = Duration::from_secs(60);
/// How many times blocks are drawn to find a standard error.
const DRAWS: u32 = 2_000;
/// A sign balance less likely than this, over all rows together, is a bias and not chance.
const BIAS: f64 = 0.01;

/// What the bare loop is called among the models.
const BARE_LOOP: &str = "bare loop";
/// The bare loop needs no processes, so its blocks are short, and this part of the time is enough.
const BARE_LOOP_SHARE: u32 = 4;
/// Multiplications between two looks at the clock, some microseconds.
const BARE_LOOP_STEPS: u64 = 4_096;

/// The metrics, and the standard error of a ratio in 60 s of wall time that they should keep to.
const METRICS: [(Metric, Option<f64>); 4] = [
    (Metric::Throughput, Some(0.005)),
    (Metric::LatencyP50, None),
    (Metric::LatencyP99, Some(0.015)),
    (Metric::CpuPerRequest, Some(0.003)),
];

/// What an arm is measured under.
#[derive(Clone, Copy)]
struct Form {
    scenario: &'static str,
    clients: u32,
    placement: Placement,
}

/// One metric of one pair.
#[derive(Clone, Debug, Serialize)]
pub struct AaRow {
    /// Rises when a column changes its name or meaning.
    pub schema_version: u32,
    /// The committed scenario, in its long form.
    pub scenario: &'static str,
    /// Both arms.
    pub model: &'static str,
    /// Number of clients; none beside the bare loop.
    pub clients: u32,
    /// The CPUs of servers and clients.
    pub placement: Placement,
    /// How they are run.
    pub driver: Driver,
    /// The metric.
    pub metric: &'static str,
    /// Blocks with a value.
    pub blocks: usize,
    /// Wall time of a block, with the start and the end of its processes.
    pub block_wall_seconds: f64,
    /// Median over all blocks of the ratio of the second arm to the first.
    pub ratio: Option<f64>,
    /// Standard deviation of the log-ratios of single blocks.
    pub block_standard_deviation: Option<f64>,
    /// Standard error of the log-ratio in 60 s of wall time.
    pub standard_error_60s: Option<f64>,
    /// What it should be at most.
    pub standard_error_target: Option<f64>,
    /// Blocks in each of the runs that follow.
    pub run_blocks: usize,
    /// Runs of consecutive blocks, overlapping.
    pub runs: usize,
    /// Of these, how many have an interval at 95 % that excludes equality.
    pub false_differences: usize,
    /// How many of independent runs may have.
    pub false_share_nominal: Option<f64>,
    /// Blocks in which the second arm had the higher value.
    pub higher: usize,
    /// Blocks in which it had the lower one.
    pub lower: usize,
    /// The probability of a balance of these at least as uneven.
    pub sign_p: f64,
    /// Load average before.
    pub load_average_before: Option<f64>,
    /// Load average after.
    pub load_average_after: Option<f64>,
}

/// What comparing arms with themselves came to.
#[derive(Debug, Serialize)]
pub struct AaReport {
    /// A row for each pair and metric.
    pub rows: Vec<AaRow>,
}

/// Compares arms with themselves, each pair for so long.
pub fn run(seconds: u32, seed: u64, progress: impl Fn(&str)) -> anyhow::Result<AaReport> {
    catch_interrupts().context("cannot catch interrupts")?;
    let mut report = AaReport { rows: Vec::new() };
    for form in &FORMS {
        form.placement.cpus()?;
        let scenario = form.scenario;
        let short = seconds.div_ceil(BARE_LOOP_SHARE);
        progress(&format!(
            "{scenario}: a bare loop against itself for {short} s"
        ));
        report.rows.push(form.bare_loop(short)?);
        for model in MODELS {
            if interrupted() {
                return Ok(report);
            }
            progress(&format!(
                "{scenario}: {model} against itself for {seconds} s"
            ));
            report.rows.extend(form.pair(model, seconds, seed)?);
        }
    }
    Ok(report)
}

impl Form {
    /// The committed scenario, in its long form, with two arms that differ in nothing but their name: the
    /// second is given as an option what the first has by default.
    fn condition(&self, model: &str) -> anyhow::Result<Condition> {
        let scenario = Scenario::find(self.scenario)?;
        let same = format!("{model} --backlog {}", Settings::BACKLOG);
        let arms = vec![Arm::of_model(model), Arm::of_model(&same)];
        let load = (self.clients, Driver::Threads, self.placement);
        Ok(Condition::new(&scenario, scenario.full, arms, load))
    }

    /// What the machine itself allows: one thread that only counts, measured in the same slices, rounds and
    /// blocks as servers are. No comparison of servers is sharper than this.
    fn bare_loop(&self, seconds: u32) -> anyhow::Result<AaRow> {
        let condition = self.condition(MODELS[0])?;
        let before = Machine::read();
        let began = Instant::now();
        let mut ratios = Vec::new();
        while began.elapsed() < Duration::from_secs(u64::from(seconds)) && !interrupted() {
            let rounds: Vec<f64> = (0..condition.effort.rounds)
                .map(|round| {
                    let (one, other) = (
                        count(condition.effort.slice.0),
                        count(condition.effort.slice.0),
                    );
                    let ratio = (other / one).ln();
                    // ABBA: a drift of the machine favours neither.
                    if round % 2 == 0 { ratio } else { -ratio }
                })
                .collect();
            ratios.extend(crate::stats::median(&rounds));
        }
        let wall = began.elapsed().as_secs_f64() / ratios.len().max(1) as f64;
        let run_blocks = condition.scenario.quick.blocks as usize;
        Ok(AaRow {
            clients: 0,
            placement: Placement::None,
            load_average_before: before.load_average,
            load_average_after: Machine::read().load_average,
            ..self.judge(
                BARE_LOOP,
                ("loops_per_second", None),
                &ratios,
                wall,
                run_blocks,
            )
        })
    }

    fn pair(&self, model: &'static str, seconds: u32, seed: u64) -> anyhow::Result<Vec<AaRow>> {
        let condition = self.condition(model)?;
        let before = Machine::read();
        let began = Instant::now();
        let length = Duration::from_secs(u64::from(seconds));
        let mut blocks: Vec<BlockOutcome> = Vec::new();
        for number in 1.. {
            let Some(block) = unless_interrupted(condition.run_block(number, seed))? else {
                break;
            };
            blocks.push(block);
            if let Some(violation) = blocks.iter().find_map(|block| block.violations.first()) {
                bail!("{violation}");
            }
            let rows = blocks.iter().flat_map(|block| &block.blocks);
            if let Some(row) = rows.into_iter().find(|row| !row.is_ok()) {
                bail!("{}, block {}: {}", row.model, row.block, row.status);
            }
            let each = began.elapsed() / number;
            if began.elapsed() + each > length {
                break;
            }
        }
        let wall = began.elapsed().as_secs_f64() / blocks.len().max(1) as f64;
        let run_blocks = condition.scenario.quick.blocks as usize;
        let after = Machine::read();
        let rows = METRICS.into_iter().map(|(metric, target)| {
            let ratios = log_ratios(&blocks, metric);
            AaRow {
                load_average_before: before.load_average,
                load_average_after: after.load_average,
                ..self.judge(model, (metric.name(), target), &ratios, wall, run_blocks)
            }
        });
        Ok(rows.collect())
    }

    fn judge(
        &self,
        model: &'static str,
        (metric, target): (&'static str, Option<f64>),
        ratios: &[f64],
        wall: f64,
        run_blocks: usize,
    ) -> AaRow {
        let excludes = |run: &&[f64]| {
            let interval = sign_interval(run, CONFIDENCE);
            interval.is_some_and(|interval| interval.low > 0.0 || interval.high < 0.0)
        };
        let runs = || ratios.windows(run_blocks);
        let level = runs().find_map(|run| Some(sign_interval(run, CONFIDENCE)?.level));
        AaRow {
            schema_version: SCHEMA_VERSION,
            scenario: self.scenario,
            model,
            clients: self.clients,
            placement: self.placement,
            driver: Driver::Threads,
            metric,
            blocks: ratios.len(),
            block_wall_seconds: wall,
            ratio: crate::stats::median(ratios).map(f64::exp),
            block_standard_deviation: standard_deviation(ratios),
            standard_error_60s: standard_error(ratios, WALL.as_secs_f64() / wall),
            standard_error_target: target,
            run_blocks,
            runs: runs().count(),
            false_differences: runs().filter(excludes).count(),
            false_share_nominal: level.map(|level| 1.0 - level),
            higher: ratios.iter().filter(|&&ratio| ratio > 0.0).count(),
            lower: ratios.iter().filter(|&&ratio| ratio < 0.0).count(),
            sign_p: sign_test(ratios, 0.0),
            load_average_before: None,
            load_average_after: None,
        }
    }
}

/// Turns of a loop in so much time.
fn count(length: Duration) -> f64 {
    let began = Instant::now();
    let (mut turns, mut value) = (0_u32, 1_u64);
    while began.elapsed() < length {
        for step in 0..BARE_LOOP_STEPS {
            value = std::hint::black_box(value.wrapping_mul(step | 1));
        }
        turns += 1;
    }
    f64::from(turns)
}

/// The log-ratio of each block, as the summary of a run of that block alone has it.
fn log_ratios(blocks: &[BlockOutcome], metric: Metric) -> Vec<f64> {
    let ratios = blocks.iter().filter_map(|block| {
        let rows = summarize(&block.slices, &block.blocks);
        rows.into_iter()
            .find_map(|row| row.ratio.filter(|_| row.metric == metric))
    });
    ratios.map(f64::ln).collect()
}

fn standard_deviation(values: &[f64]) -> Option<f64> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt())
}

/// The standard error of what a comparison reports, the median over blocks, with so many blocks: its
/// spread over draws of blocks with replacement. Nothing for so few that they say nothing.
fn standard_error(ratios: &[f64], blocks: f64) -> Option<f64> {
    if ratios.len() < 6 {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of blocks"
    )]
    let blocks = blocks.round().max(1.0) as usize;
    let mut random = fastrand::Rng::with_seed(1);
    let medians: Option<Vec<f64>> = (0..DRAWS)
        .map(|_| {
            let drawn: Vec<f64> = (0..blocks)
                .map(|_| ratios[random.usize(..ratios.len())])
                .collect();
            crate::stats::median(&drawn)
        })
        .collect();
    standard_deviation(&medians?)
}

impl AaRow {
    fn misses_target(&self) -> bool {
        let both = self.standard_error_60s.zip(self.standard_error_target);
        both.is_some_and(|(error, target)| error > target)
    }
}

impl AaReport {
    /// The p-value below which a sign balance is a bias: the error rate shared among all rows.
    fn bias_limit(&self) -> f64 {
        BIAS / self.rows.len().max(1) as f64
    }

    fn is_biased(&self) -> bool {
        let limit = self.bias_limit();
        self.rows.iter().any(|row| row.sign_p < limit)
    }

    fn misses_target(&self) -> bool {
        self.rows.iter().any(AaRow::misses_target)
    }

    /// 2 when one of two equal arms came out faster too often to be chance; 3 when differences that
    /// should be resolved would not be; else 0.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.is_biased() {
            2
        } else if self.misses_target() || self.rows.iter().any(|row| row.blocks < row.run_blocks) {
            3
        } else {
            0
        }
    }

    /// As people read it.
    #[must_use]
    pub fn for_people(&self) -> String {
        let mut table = plain(&[
            "scenario",
            "model",
            "metric",
            "blocks",
            "ratio",
            "error in 60 s",
            "target",
            "false differences",
            "higher : lower",
            "p",
        ]);
        let percent =
            |share: Option<f64>| or_unknown(share, |share| format!("{:.2} %", 100.0 * share));
        for row in &self.rows {
            let missed = if row.misses_target() { " missed" } else { "" };
            table.add_row([
                row.scenario.to_owned(),
                row.model.to_owned(),
                row.metric.to_owned(),
                row.blocks.to_string(),
                or_unknown(row.ratio, |ratio| format!("{ratio:.4}")),
                percent(row.standard_error_60s),
                row.standard_error_target
                    .map_or_else(String::new, |target| {
                        format!("≤ {}{missed}", percent(Some(target)))
                    }),
                format!(
                    "{} of {} runs of {}",
                    row.false_differences, row.runs, row.run_blocks
                ),
                format!("{} : {}", row.higher, row.lower),
                format!("{:.3}", row.sign_p),
            ]);
        }
        align(&mut table, &[3, 4, 5, 7, 8, 9]);
        [lines(&table), self.conclusion() + "\n"].join("\n")
    }

    fn conclusion(&self) -> String {
        let Some(row) = self.rows.last() else {
            return "interrupted before the first block".to_owned();
        };
        let load = |load: Option<f64>| or_unknown(load, |load| format!("{load:.2}"));
        let verdict = match self.exit_code() {
            0 => "equal arms come out equal, and the errors keep to their targets",
            2 => "one of two equal arms came out ahead too often to be chance",
            _ if self.misses_target() => {
                "some errors are above their targets on this machine at this time"
            }
            _ => "too few blocks; give more --seconds",
        };
        format!(
            "{verdict}; load average {} before, {} after",
            load(self.rows[0].load_average_before),
            load(row.load_average_after),
        )
    }
}

/// Writes the rows as CSV, so that the file appears whole or not at all.
pub fn write(path: &Path, report: &AaReport) -> anyhow::Result<()> {
    write_file(path, &csv_text(&report.rows, true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ratios: &[f64]) -> AaRow {
        FORMS[0].judge("thread", ("latency_p50_ns", Some(0.01)), ratios, 2.0, 11)
    }

    fn noise(count: usize, mut shape: impl FnMut(f64) -> f64) -> Vec<f64> {
        let mut random = fastrand::Rng::with_seed(3);
        (0..count).map(|_| shape(random.f64() - 0.5)).collect()
    }

    #[test]
    fn equal_arms_come_out_equal() {
        let row = row(&noise(200, |noise| 0.01 * noise));
        assert_eq!((row.blocks, row.runs), (200, 190));
        assert!(row.sign_p > 0.01, "{row:?}");
        assert!(row.false_differences < 30, "{row:?}");
        // Of a uniform distribution of width w it is w / (2 sqrt(n)), here with n = 30; that of a
        // sample of it is a matter of how many lie close to its median.
        let error = row.standard_error_60s.unwrap() / (0.005 / 30_f64.sqrt());
        assert!((0.6..1.5).contains(&error), "{row:?}");
    }

    #[test]
    fn a_bias_is_found() {
        let row = row(&noise(60, |noise| 0.01 * (noise + 0.45)));
        assert_eq!(row.false_differences, row.runs);
        let report = AaReport { rows: vec![row] };
        assert_eq!(report.exit_code(), 2);
    }

    #[test]
    fn few_blocks_give_no_error() {
        let row = row(&[0.1, -0.1, 0.2]);
        assert_eq!((row.standard_error_60s, row.runs), (None, 0));
        assert_eq!(AaReport { rows: vec![row] }.exit_code(), 3);
    }
}
