//! Rule of the gate: from the slow-downs of single blocks to a verdict.

use echobench_protocol::{serde_by_name, textual_enum};
use serde::{Deserialize, Serialize};

use crate::stats::{self, compare_family, median, rises_in_family, upper_bound};

/// Probability of a regression anywhere in the table of equal builds, at most.
pub const ALPHA: f64 = 0.01;
/// Probability of a pass although one comparison is slower by its floor or more, at most.
pub const MISS: f64 = 0.05;
/// Number of looks at the data; both error rates are split between them.
pub const LOOKS: u32 = 2;

/// A metric of a gate. Its slow-down is a ratio of times: above 1 the candidate is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GateMetric {
    /// Time for each reply, the inverse of throughput.
    Throughput,
    /// CPU time of the server for each request.
    Cpu,
    /// The 99th percentile of the latency of all requests of a block.
    P99,
    /// The 99th percentile of latency in a typical slice.
    SliceP99,
}

textual_enum!(GateMetric, "metric", {
    Throughput => "throughput",
    Cpu => "cpu",
    P99 => "p99",
    SliceP99 => "slice_p99",
});

serde_by_name!(GateMetric);

impl GateMetric {
    /// The name for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            GateMetric::Throughput => "throughput",
            GateMetric::Cpu => "CPU/request",
            GateMetric::P99 => "p99 latency",
            GateMetric::SliceP99 => "p99 of a slice",
        }
    }

    /// The smallest slow-down that is a regression, as a share.
    #[must_use]
    pub fn floor(self) -> f64 {
        match self {
            GateMetric::Throughput | GateMetric::Cpu => 0.03,
            GateMetric::P99 | GateMetric::SliceP99 => 0.05,
        }
    }

    /// Whether a pass has to rule out a slow-down in it. A percentile is too noisy for that on some machines: it can
    /// show a regression or its absence, and where it shows neither the verdict says so.
    #[must_use]
    pub fn is_required(self) -> bool {
        matches!(self, GateMetric::Throughput | GateMetric::Cpu)
    }
}

/// One metric of one model: for each block the natural logarithm of the slow-down.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The model, with its condition if there are several.
    pub subject: String,
    /// The metric.
    pub metric: GateMetric,
    /// The candidate against the first arm of the baseline.
    pub candidate: Vec<f64>,
    /// The second arm of the baseline against the first.
    pub again: Vec<f64>,
}

impl Sample {
    /// A sample without blocks.
    #[must_use]
    pub fn empty(subject: &str, metric: GateMetric) -> Self {
        Sample {
            subject: subject.to_owned(),
            metric,
            candidate: Vec::new(),
            again: Vec::new(),
        }
    }
}

/// Finding of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// Slower beyond chance, and by the floor or more.
    Slower,
    /// Not slower by as much as the floor.
    Within,
    /// Neither is shown.
    Unresolved,
    /// The two arms of the baseline differ: a difference of the candidate would mean nothing.
    Contaminated,
}

/// One line of the gate's table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GateComparison {
    /// The model, with its condition if there are several.
    pub subject: String,
    /// The metric.
    pub metric: GateMetric,
    /// Blocks with a value.
    pub blocks: usize,
    /// Median over the blocks of the candidate's slow-down; 1.05 is 5 % slower.
    pub slowdown: Option<f64>,
    /// Its lower bound, one-sided, corrected over the table.
    pub low: Option<f64>,
    /// Its upper bound, one-sided.
    pub high: Option<f64>,
    /// One-sided p-value of "not slower", before the correction.
    pub p: f64,
    /// Median over the blocks of the slow-down of the baseline's second arm.
    pub again: Option<f64>,
    /// Whether that is within chance, and less than the floor.
    pub clean: bool,
    /// The smallest slow-down that is a regression.
    pub floor: f64,
    /// The finding.
    pub finding: Finding,
}

/// The step after a look at the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing got slower by as much as its floor.
    Pass,
    /// Something did: a second run has to confirm it.
    Confirm,
    /// Measure more blocks.
    GoOn,
    /// Stop without a decision.
    Inconclusive(InconclusiveReason),
}

/// Reason for an inconclusive verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InconclusiveReason {
    /// Equal arms differed.
    Contaminated,
    /// The bounds are too wide.
    TooNoisy,
    /// The second run did not find what the first one had found.
    NotConfirmed,
}

/// Verdict of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateVerdict {
    /// No model got slower by as much as the floor, in the metrics that are required.
    Pass,
    /// One did, in two runs.
    Regression,
    /// Neither is shown.
    Inconclusive,
}

textual_enum!(GateVerdict, "verdict", {
    Pass => "pass",
    Regression => "regression",
    Inconclusive => "inconclusive",
});

serde_by_name!(GateVerdict);

/// Judges a table, allowing `looks` looks at it.
#[must_use]
pub fn judge(samples: &[Sample], looks: u32) -> Vec<GateComparison> {
    let share = |rate: f64| rate / f64::from(looks);
    let candidates: Vec<_> = samples.iter().map(|s| s.candidate.clone()).collect();
    let again: Vec<_> = samples.iter().map(|s| s.again.clone()).collect();
    let rises = rises_in_family(&candidates, share(ALPHA));
    let controls = compare_family(&again, share(ALPHA));
    let judged = samples.iter().zip(rises).zip(controls);
    judged
        .map(|((sample, rise), control)| {
            let floor = sample.metric.floor();
            // To a millionth: more is not known, and every machine writes it alike.
            let ratio = |log: Option<f64>| log.map(|log| (log.exp() * 1e6).round() / 1e6);
            let slowdown = ratio(median(&sample.candidate));
            let high = ratio(upper_bound(&sample.candidate, 1.0 - share(MISS)));
            let apart = control.low.is_some_and(|low| low > 1.0)
                || control.high.is_some_and(|high| high < 1.0);
            let small = control
                .ratio
                .is_some_and(|ratio| ratio.ln().abs() < floor.ln_1p());
            let suspect = rise.low.is_some_and(|low| low > 0.0)
                && slowdown.is_some_and(|slowdown| slowdown >= 1.0 + floor);
            let within = high.is_some_and(|high| high < 1.0 + floor);
            let clean = small && !apart;
            let matters = suspect || sample.metric.is_required();
            GateComparison {
                subject: sample.subject.clone(),
                metric: sample.metric,
                blocks: sample.candidate.len(),
                slowdown,
                low: ratio(rise.low),
                high,
                p: rise.p,
                again: ratio(control.ratio.map(f64::ln)),
                clean,
                floor,
                finding: match (suspect, within) {
                    // Too many blocks have no value: nothing differs from anything.
                    _ if control.low.is_none() => Finding::Unresolved,
                    _ if !clean && matters => Finding::Contaminated,
                    (true, _) => Finding::Slower,
                    (false, true) if clean => Finding::Within,
                    _ => Finding::Unresolved,
                },
            }
        })
        .collect()
}

/// The step after a table; `last` for the last look.
#[must_use]
pub fn decide(table: &[GateComparison], last: bool) -> Step {
    let any = |finding| table.iter().any(|line| line.finding == finding);
    let required = || table.iter().filter(|line| line.metric.is_required());
    if any(Finding::Slower) {
        Step::Confirm
    } else if !any(Finding::Contaminated) && required().all(|line| line.finding == Finding::Within)
    {
        Step::Pass
    } else if !last {
        Step::GoOn
    } else if any(Finding::Contaminated) {
        Step::Inconclusive(InconclusiveReason::Contaminated)
    } else {
        Step::Inconclusive(InconclusiveReason::TooNoisy)
    }
}

/// Whether the second run confirmed what the first one suspected.
#[must_use]
pub fn is_confirmed(confirmation: &[GateComparison]) -> bool {
    confirmation
        .iter()
        .any(|line| line.finding == Finding::Slower)
}

/// The least number of blocks up to the first look with which every comparison of a table of this
/// size can be decided.
#[must_use]
pub fn blocks_needed(comparisons: usize) -> u32 {
    // The two-sided intervals of the controls need more blocks than the one-sided tests.
    let blocks = stats::blocks_needed(comparisons, ALPHA / f64::from(LOOKS));
    u32::try_from(blocks).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks up to the first look, and as many again up to the second; the confirmation has both.
    const BLOCKS: usize = 16;

    /// Noise of a metric of one arm in one block, as on virtual machines: disturbances only slow down,
    /// and a few of them are large.
    struct Noise {
        spread: f64,
        random: fastrand::Rng,
    }

    impl Noise {
        fn new(spread: f64, seed: u64) -> Self {
            let random = fastrand::Rng::with_seed(seed);
            Noise { spread, random }
        }

        fn normal(&mut self) -> f64 {
            let radius = (-2.0 * (1.0 - self.random.f64()).ln()).sqrt();
            radius * (std::f64::consts::TAU * self.random.f64()).cos()
        }

        /// One block in ten is five times as noisy.
        fn arm(&mut self) -> f64 {
            let wild = if self.random.u32(..10) == 0 { 5.0 } else { 1.0 };
            wild * self.spread * self.normal().abs()
        }
    }

    /// A gate of as many models over simulated blocks, its metrics slower by these shares.
    fn gate(models: usize, slower: [f64; 4], noise: &mut Noise) -> GateVerdict {
        let mut samples: Vec<Sample> = (0..models)
            .flat_map(|model| {
                let metrics = GateMetric::ALL.iter();
                metrics.map(move |&metric| Sample::empty(&model.to_string(), metric))
            })
            .collect();

        let add_blocks = |samples: &mut [Sample], noise: &mut Noise| {
            for (index, sample) in samples.iter_mut().enumerate() {
                for _ in 0..BLOCKS {
                    let [one, two, three] = [0; 3].map(|_| noise.arm());
                    let slower = slower[index % 4].ln_1p();
                    sample.candidate.push(slower + one - two);
                    sample.again.push(three - two);
                }
            }
        };

        for last in [false, true] {
            add_blocks(&mut samples, noise);
            let table = judge(&samples, LOOKS);
            match decide(&table, last) {
                Step::Pass => return GateVerdict::Pass,
                Step::Inconclusive(_) => return GateVerdict::Inconclusive,
                Step::GoOn => {}
                Step::Confirm => {
                    let lines = samples.into_iter().zip(&table);
                    let mut again: Vec<Sample> = lines
                        .filter(|(_, line)| line.finding == Finding::Slower)
                        .map(|(sample, _)| Sample {
                            candidate: Vec::new(),
                            again: Vec::new(),
                            ..sample
                        })
                        .collect();
                    add_blocks(&mut again, noise);
                    add_blocks(&mut again, noise);
                    return if is_confirmed(&judge(&again, 1)) {
                        GateVerdict::Regression
                    } else {
                        GateVerdict::Inconclusive
                    };
                }
            }
        }

        unreachable!("the last look ends a gate");
    }

    fn share(of: GateVerdict, gates: u32, mut gate: impl FnMut() -> GateVerdict) -> f64 {
        let seen = (0..gates).filter(|_| gate() == of).count();
        seen as f64 / f64::from(gates)
    }

    #[test]
    fn equal_builds_are_a_regression_no_more_often_than_promised() {
        for spread in [0.005, 0.03, 0.3] {
            let mut noise = Noise::new(spread, 1);
            let alarms = share(GateVerdict::Regression, 2_000, || {
                gate(4, [0.0; 4], &mut noise)
            });
            assert!(alarms <= ALPHA, "{spread}: {alarms}");
        }
    }

    /// Without floors and confirmation, which only make alarms rarer: the tests alone keep the rate
    /// over both looks and the whole table.
    #[test]
    fn the_bounds_of_both_looks_keep_the_error_rate() {
        let mut noise = Noise::new(0.03, 2);
        let gates = 4_000;
        let wrong = (0..gates)
            .filter(|_| {
                let mut blocks = vec![Vec::new(); 16];
                (0..LOOKS).any(|_| {
                    for sample in &mut blocks {
                        sample.extend((0..BLOCKS).map(|_| noise.arm() - noise.arm()));
                    }
                    let rises = rises_in_family(&blocks, ALPHA / f64::from(LOOKS));
                    rises.iter().any(|rise| rise.low > Some(0.0))
                })
            })
            .count();

        // Three standard errors above the promise.
        let limit = ALPHA + 3.0 * (ALPHA / f64::from(gates)).sqrt();
        assert!((wrong as f64) <= limit * f64::from(gates), "{wrong}");
    }

    #[test]
    fn a_true_slow_down_of_5_percent_is_found() {
        let mut noise = Noise::new(0.012, 3);
        for slower in [
            [0.05, 0.0, 0.0, 0.0],
            [0.0, 0.05, 0.0, 0.0],
            [0.025, 0.05, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.2],
        ] {
            let power = share(GateVerdict::Regression, 1_000, || {
                gate(4, slower, &mut noise)
            });
            assert!(power >= 0.95, "{slower:?}: {power}");
        }
    }

    #[test]
    fn a_slow_down_by_the_floor_seldom_passes() {
        for spread in [0.005, 0.015, 0.04] {
            let mut noise = Noise::new(spread, 4);
            let passed = share(GateVerdict::Pass, 1_000, || {
                gate(1, [0.03, 0.0, 0.0, 0.0], &mut noise)
            });
            assert!(passed <= MISS + 0.02, "{spread}: {passed}");
        }
    }

    #[test]
    fn too_much_noise_is_inconclusive_and_never_passes() {
        let mut noise = Noise::new(0.5, 5);
        let passed = share(GateVerdict::Pass, 200, || gate(4, [0.0; 4], &mut noise));
        let known = share(GateVerdict::Regression, 200, || {
            gate(4, [0.0; 4], &mut noise)
        });
        assert_eq!((passed, known), (0.0, 0.0));
    }

    fn sample(metric: GateMetric, candidate: f64, again: f64) -> Sample {
        let around = |middle: f64| (0..20).map(|i| middle + 1e-4 * f64::from(i - 10)).collect();
        Sample {
            subject: "thread".to_owned(),
            metric,
            candidate: around(candidate),
            again: around(again),
        }
    }

    #[test]
    fn each_condition_of_a_regression_is_needed() {
        let step = |samples: &[Sample]| decide(&judge(samples, LOOKS), true);
        let throughput = |candidate, again| [sample(GateMetric::Throughput, candidate, again)];
        assert_eq!(step(&throughput(0.06, 0.0)), Step::Confirm);
        // Beyond chance, but small.
        assert_eq!(step(&throughput(0.01, 0.0)), Step::Pass);
        // Large, but the baseline differs from itself.
        let contaminated = Step::Inconclusive(InconclusiveReason::Contaminated);

        assert_eq!(step(&throughput(0.06, 0.05)), contaminated);
        // Nothing found, and nothing to be found with such a baseline.
        assert_eq!(step(&throughput(0.0, 0.05)), contaminated);
        // Large, but not beyond chance.
        let mut wild = throughput(0.06, 0.0);
        for value in wild[0].candidate.iter_mut().take(8) {
            *value = -0.5;
        }

        assert_eq!(
            step(&wild),
            Step::Inconclusive(InconclusiveReason::TooNoisy)
        );

        assert_eq!(decide(&judge(&wild, LOOKS), false), Step::GoOn);
    }

    #[test]
    fn a_percentile_can_convict_or_acquit_and_need_not() {
        let good = sample(GateMetric::Cpu, 0.0, 0.0);
        let mut unclear = sample(GateMetric::P99, 0.0, 0.0);
        for (index, value) in unclear.candidate.iter_mut().enumerate() {
            *value = if index % 2 == 0 { 0.3 } else { -0.3 };
        }
        let table = judge(&[good.clone(), unclear], LOOKS);
        assert_eq!(table[1].finding, Finding::Unresolved);
        assert_eq!(decide(&table, true), Step::Pass);

        for metric in [GateMetric::P99, GateMetric::SliceP99] {
            let table = judge(&[good.clone(), sample(metric, 0.2, 0.0)], LOOKS);
            assert_eq!(decide(&table, true), Step::Confirm);
            let table = judge(&[good.clone(), sample(metric, 0.01, 0.0)], LOOKS);
            assert_eq!(table[1].finding, Finding::Within);
        }
    }

    #[test]
    fn a_server_that_stands_still_is_slower() {
        let mut stalled = sample(GateMetric::Throughput, 0.0, 0.0);
        stalled.candidate.fill(f64::INFINITY);
        let table = judge(&[stalled], LOOKS);
        assert_eq!(table[0].finding, Finding::Slower);
    }

    #[test]
    fn the_first_look_needs_enough_blocks_to_decide() {
        assert_eq!((blocks_needed(4), blocks_needed(16)), (11, 13));
        for comparisons in [1, 4, 16, 40] {
            let needed = blocks_needed(comparisons) as usize;
            let samples = |blocks: usize| {
                let one = sample(GateMetric::Throughput, 0.1, 0.0);
                let (candidate, again) = (vec![0.1; blocks], vec![0.0; blocks]);
                let one = Sample {
                    candidate,
                    again,
                    ..one
                };
                vec![one; comparisons]
            };
            let known = |blocks| judge(&samples(blocks), LOOKS)[0].low.is_some();
            assert!(known(needed), "{comparisons}");
            assert!(!known(needed - 2), "{comparisons}");
        }
    }
}
