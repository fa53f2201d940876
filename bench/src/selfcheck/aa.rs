//! A/A comparison, an arm against itself: the smallest difference that a comparison can resolve, and the
//! rate at which it finds a difference where there is none.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use echobench_clients::Driver;
use echobench_servers::Settings;
use serde::Serialize;

use crate::experiment::condition::Condition;
use crate::experiment::hosts::Hosts;
use crate::experiment::observation::BlockOutcome;
use crate::host::files::ResultFile;
use crate::host::machine::Machine;
use crate::host::signals::{catch_interrupts, interrupted, unless_interrupted};
use crate::render::Style;
use crate::render::units::or_unknown;
use crate::results::summary::summarize;
use crate::results::{Metric, SCHEMA_VERSION, csv_text};
use crate::scenario::arm::Arm;
use crate::scenario::{Effort, Placement, Scenario, Views};
use crate::stats::{sign_interval, sign_test};

/// Models that are compared with themselves.
const MODELS: [&str; 4] = ["thread", "fork", "pool", "async"];
/// Committed scenarios of the comparisons: the headline of `scripts/compare.sh`, and the form of the regression
/// gate.
const FORMS: [Form; 2] = [
    Form {
        scenario: "steady",
        effort: |scenario| scenario.quick,
        clients: 64,
        driver: Driver::Tasks,
        placement: Placement::Split,
    },
    Form {
        scenario: "gate",
        effort: |scenario| scenario.full,
        clients: 2,
        driver: Driver::Threads,
        placement: Placement::Same,
    },
];
/// Confidence of a run's interval.
const CONFIDENCE: f64 = 0.95;
/// Wall time for which standard errors are given.
const WALL: Duration = Duration::from_secs(60);
/// Bootstrap draws of blocks for a standard error.
const DRAWS: u32 = 2_000;
/// Lag-1 autocorrelation of blocks above which they are not independent enough for the error rates of a run.
const CORRELATED: f64 = 0.2;
/// Error rate of all sign tests together: a sign balance less likely than its share is a bias.
const BIAS: f64 = 0.01;

/// Name of the bare loop among the models.
const BARE_LOOP: &str = "bare loop";
/// Divisor of the time for the bare loop: it needs no processes, so its blocks are short.
const BARE_LOOP_SHARE: u32 = 4;
/// Multiplications between two readings of the clock, some microseconds.
const BARE_LOOP_STEPS: u64 = 4_096;

/// Metrics, each with the target for the standard error of its ratio in 60 s of wall time.
const METRICS: [(Metric, Option<f64>); 5] = [
    (Metric::Throughput, Some(0.005)),
    (Metric::LatencyP50, None),
    (Metric::LatencyP99, Some(0.015)),
    (Metric::SliceLatencyP99, None),
    (Metric::CpuPerRequest, Some(0.003)),
];

/// Scenario, effort, clients and placement of a comparison.
#[derive(Clone, Copy)]
struct Form {
    scenario: &'static str,
    effort: fn(&Scenario) -> Effort,
    clients: u32,
    driver: Driver,
    placement: Placement,
}

/// One metric of one pair of equal arms.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AaRow {
    /// Version of the columns' names and meanings.
    schema_version: u32,
    /// The committed scenario.
    scenario: &'static str,
    /// Model of both arms.
    model: &'static str,
    /// Number of clients; 0 for the bare loop.
    clients: u32,
    /// CPUs of servers and clients.
    placement: Placement,
    /// Kind of client.
    driver: Driver,
    /// The metric.
    metric: &'static str,
    /// Blocks with a value.
    blocks: usize,
    /// Wall time of a block, with the start and the end of its processes.
    block_wall_seconds: f64,
    /// Median over all blocks of the ratio of the second arm to the first.
    ratio: Option<f64>,
    /// Lag-1 autocorrelation of the log-ratios of successive blocks.
    lag1_autocorrelation: Option<f64>,
    /// Standard deviation of the log-ratios of single blocks.
    block_standard_deviation: Option<f64>,
    /// Standard error of the log-ratio in 60 s of wall time.
    standard_error_60s: Option<f64>,
    /// Target for the standard error.
    standard_error_target: Option<f64>,
    /// Blocks in each of the runs that follow.
    run_blocks: usize,
    /// Runs of consecutive blocks, overlapping.
    runs: usize,
    /// Runs whose interval at 95 % excludes equality.
    false_differences: usize,
    /// Share of such runs that chance allows among independent runs.
    false_share_nominal: Option<f64>,
    /// Blocks in which the second arm had the higher value.
    higher: usize,
    /// Blocks in which it had the lower one.
    lower: usize,
    /// Probability of a balance of these at least as uneven.
    sign_p: f64,
    /// Load average before.
    load_average_before: Option<f64>,
    /// Load average after.
    load_average_after: Option<f64>,
}

/// Report of all A/A comparisons.
#[derive(Debug, Serialize)]
pub(crate) struct AaReport {
    /// A row for each pair and metric.
    rows: Vec<AaRow>,
    /// Whether a signal ended it before all pairs were compared.
    interrupted: bool,
}

/// Options of the A/A comparisons.
pub(crate) struct AaOptions {
    /// Time for each pair of arms.
    pub(crate) seconds: u32,
    /// Seed of orders and traffic.
    pub(crate) seed: u64,
}

/// Compares arms with themselves. Pairs that are complete before an interrupt are kept.
pub(crate) fn run(options: &AaOptions, progress: impl Fn(&str)) -> anyhow::Result<AaReport> {
    catch_interrupts().context("cannot catch interrupts")?;
    let seconds = options.seconds;
    let mut report = AaReport {
        rows: Vec::new(),
        interrupted: false,
    };

    for mut form in FORMS {
        if interrupted() {
            break;
        }
        // As in a run: with one CPU there is no placement split.
        if form.placement.cpus().is_err() {
            form.placement = Placement::None;
        }
        let scenario = form.scenario;
        let short = seconds.div_ceil(BARE_LOOP_SHARE);
        progress(&format!(
            "{scenario}: a bare loop against itself for {short} s"
        ));
        report.rows.push(form.bare_loop(short)?);

        for model in MODELS {
            if interrupted() {
                break;
            }
            progress(&format!(
                "{scenario}: {model} against itself for {seconds} s"
            ));
            report.rows.extend(form.pair(model, seconds, options.seed)?);
        }
    }

    report.interrupted = interrupted();
    Ok(report)
}

impl Form {
    /// Condition of the committed scenario with two arms that differ only in their
    /// name: an option of the second states a default of the first.
    fn condition(&self, model: &str) -> anyhow::Result<Condition> {
        let scenario = Scenario::find(self.scenario)?;
        let same = format!("{model} --backlog {}", Settings::BACKLOG);
        let arms = vec![Arm::of_model(model), Arm::of_model(&same)];
        let load = (self.clients, self.driver, self.placement);
        Ok(Condition::new(
            &scenario,
            (self.effort)(&scenario),
            arms,
            load,
        ))
    }

    /// Resolution of the machine itself: one thread that only counts, measured in the same slices, rounds
    /// and blocks as servers are. No comparison of servers is sharper than this.
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
            let rows = blocks.iter().flat_map(|block| &block.blocks);
            let next = condition.after(rows);
            let Some(block) = unless_interrupted(next.run_block(&Hosts::here(), number, seed))?
            else {
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
        // Every run has as many blocks, so all have the same level.
        let level = runs().find_map(|run| Some(sign_interval(run, CONFIDENCE)?.level));

        AaRow {
            schema_version: SCHEMA_VERSION,
            scenario: self.scenario,
            model,
            clients: self.clients,
            placement: self.placement,
            driver: self.driver,
            metric,
            blocks: ratios.len(),
            block_wall_seconds: wall,
            ratio: crate::stats::median(ratios).map(f64::exp),
            lag1_autocorrelation: lag1_autocorrelation(ratios),
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

/// Iterations of a counting loop in so much time.
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

/// Log-ratio of each block, computed as the summary of a run with this block alone.
fn log_ratios(blocks: &[BlockOutcome], metric: Metric) -> Vec<f64> {
    let ratios = blocks.iter().filter_map(|block| {
        let rows = summarize(&block.slices, &block.blocks, &Views::default());
        rows.into_iter()
            .find_map(|row| row.ratio.filter(|_| row.metric == metric))
    });
    ratios.map(f64::ln).collect()
}

fn standard_deviation(values: &[f64]) -> Option<f64> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let deviation = (squares / (count - 1.0)).sqrt();
    (values.len() > 1 && deviation.is_finite()).then_some(deviation)
}

/// Correlation of each value with its successor: their mean product of deviations from the mean, relative to the
/// variance. `None` for fewer than three values, without a variance, and where a value is not finite.
fn lag1_autocorrelation(values: &[f64]) -> Option<f64> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let products: f64 = values
        .windows(2)
        .map(|pair| (pair[0] - mean) * (pair[1] - mean))
        .sum();

    let correlation = products / squares;
    (values.len() > 2 && correlation.is_finite()).then_some(correlation)
}

/// Standard error of the median over so many blocks, which is the figure that a comparison reports, by the
/// bootstrap: draws of blocks with replacement. `None` for fewer than six blocks.
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

    // A fixed seed: the same ratios always have the same standard error.
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
    fn cells(&self) -> Vec<String> {
        let percent =
            |share: Option<f64>| or_unknown(share, |share| format!("{:.2} %", 100.0 * share));
        let missed = if self.misses_target() { " missed" } else { "" };
        let target = self
            .standard_error_target
            .map_or_else(String::new, |target| {
                format!("≤ {}{missed}", percent(Some(target)))
            });

        vec![
            self.scenario.to_owned(),
            self.model.to_owned(),
            self.metric.to_owned(),
            self.blocks.to_string(),
            or_unknown(self.ratio, |ratio| format!("{ratio:.4}")),
            percent(self.standard_error_60s),
            target,
            format!(
                "{} of {} runs of {}",
                self.false_differences, self.runs, self.run_blocks
            ),
            format!("{} : {}", self.higher, self.lower),
            format!("{:.3}", self.sign_p),
            or_unknown(self.lag1_autocorrelation, |lag| {
                let mark = if self.is_correlated() { " high" } else { "" };
                format!("{lag:+.2}{mark}")
            }),
        ]
    }

    /// Whether there are enough blocks for a run, and all of them gave a ratio.
    fn is_measured(&self) -> bool {
        self.blocks >= self.run_blocks.max(1)
            && self.ratio.is_some_and(f64::is_finite)
            && self.standard_error_60s.is_some_and(f64::is_finite)
    }

    fn is_correlated(&self) -> bool {
        self.lag1_autocorrelation
            .is_some_and(|lag| lag > CORRELATED)
    }

    fn misses_target(&self) -> bool {
        let both = self.standard_error_60s.zip(self.standard_error_target);
        both.is_some_and(|(error, target)| error > target)
    }
}

impl AaReport {
    /// P-value below which a sign balance is a bias: the error rate shared among all rows.
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

    /// Exit code of the command: 1 after an interrupt, 2 if one of two equal arms came out faster too often
    /// to be chance, 3 if standard errors miss their targets or are not known, else 0.
    pub(crate) fn exit_code(&self) -> u8 {
        if self.interrupted {
            1
        } else if self.is_biased() {
            2
        } else if self.misses_target() || !self.rows.iter().all(AaRow::is_measured) {
            3
        } else {
            0
        }
    }

    /// The report as text.
    pub(crate) fn text(&self) -> String {
        let names = [
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
            "lag 1",
        ];

        let rows = self.rows.iter().map(AaRow::cells).collect();
        let table = Style::Plain.table(&names, rows, &[0, 1, 2, 6]);
        let parts = [Some(table), self.warning(), Some(self.conclusion())];
        parts.into_iter().flatten().collect::<Vec<_>>().join("\n\n") + "\n"
    }

    /// Warning about blocks that depend on each other.
    fn warning(&self) -> Option<String> {
        let correlated = self.rows.iter().filter(|row| row.is_correlated());
        let names: Vec<String> = correlated
            .map(|row| format!("{} {} {}", row.scenario, row.model, row.metric))
            .collect();
        (!names.is_empty()).then(|| {
            format!(
                "warning: successive blocks are correlated by more than {CORRELATED}, and intervals are too narrow: {}",
                names.join(", ")
            )
        })
    }

    fn conclusion(&self) -> String {
        let Some(row) = self.rows.last() else {
            return "interrupted before the first block".to_owned();
        };

        let load = |load: Option<f64>| or_unknown(load, |load| format!("{load:.2}"));
        let verdict = match self.exit_code() {
            _ if self.interrupted => "interrupted",
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

/// Writes the rows as CSV.
pub(crate) fn write(file: &ResultFile, report: &AaReport) -> anyhow::Result<()> {
    file.write(csv_text(&report.rows, true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ratios: &[f64]) -> AaRow {
        FORMS[0].judge("thread", ("latency_p50_ns", Some(0.01)), ratios, 2.0, 11)
    }

    fn report(row: AaRow) -> AaReport {
        AaReport {
            rows: vec![row],
            interrupted: false,
        }
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
        assert_eq!(report(row).exit_code(), 2);
    }

    /// Each value of the series is half of the one before, and noise.
    #[test]
    fn correlated_blocks_are_warned_of() {
        let mut last = 0.0;
        let correlated = noise(200, |noise| {
            last = 0.5 * last + noise;
            0.01 * last
        });
        let independent = noise(200, |noise| 0.01 * noise);
        let alternating: Vec<f64> = (0..200).map(|i| 0.01 * f64::from(i % 2)).collect();

        let lag = |series: &[f64]| row(series).lag1_autocorrelation.unwrap();
        assert!(
            (0.35..0.65).contains(&lag(&correlated)),
            "{}",
            lag(&correlated)
        );
        assert!(lag(&independent).abs() < 0.2, "{}", lag(&independent));
        assert!(lag(&alternating) < -0.9, "{}", lag(&alternating));

        let text = report(row(&correlated)).text();
        let warning = "warning: successive blocks are correlated by more than 0.2, and intervals are too narrow: \
                       steady thread latency_p50_ns";
        assert!(text.contains(warning), "{text}");
        assert!(!report(row(&independent)).text().contains("warning"));
        assert!(!report(row(&alternating)).text().contains("warning"));
    }

    /// By hand: deviations of −1, 0, 1 and of −1, 1, −1, 1.
    #[test]
    fn the_autocorrelation_is_that_of_the_textbook() {
        assert_eq!(lag1_autocorrelation(&[1.0, 2.0, 3.0]), Some(0.0));
        assert_eq!(lag1_autocorrelation(&[1.0, 3.0, 1.0, 3.0]), Some(-0.75));
        for unknown in [&[1.0, 2.0][..], &[1.0; 5], &[1.0, f64::INFINITY, 2.0]] {
            assert_eq!(lag1_autocorrelation(unknown), None);
        }
    }

    #[test]
    fn few_blocks_give_no_error() {
        let row = row(&[0.1, -0.1, 0.2]);
        assert_eq!((row.standard_error_60s, row.runs), (None, 0));
        assert_eq!(report(row).exit_code(), 3);
    }

    #[test]
    fn a_ratio_that_could_not_be_measured_is_no_pass() {
        let mut ratios = noise(200, |noise| 0.001 * noise);
        assert_eq!(report(row(&ratios)).exit_code(), 0);
        ratios[7] = f64::NAN;
        assert_eq!(report(row(&ratios)).exit_code(), 3);
        ratios.fill(f64::INFINITY);
        assert_ne!(report(row(&ratios)).exit_code(), 0);
    }

    #[test]
    fn an_interrupted_comparison_is_no_pass() {
        let mut report = report(row(&noise(200, |noise| 0.001 * noise)));
        report.interrupted = true;
        assert_eq!(report.exit_code(), 1);
        assert!(report.text().contains("interrupted; load average"));
    }
}
