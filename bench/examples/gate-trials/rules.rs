//! Rules of other tools over the same blocks: they compare a candidate with a baseline that was measured
//! before it, or at another time.

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

use echobench::stats::median;

/// Slow-down from which the rules that look at ratios alone call a candidate slower.
const RATIO: f64 = 0.10;
/// Level of the tests, the usual one: for each metric by itself.
const SIGNIFICANT: f64 = 0.05;

/// Values of one metric, one for each block in order of time; more is worse.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Series {
    pub(crate) baseline: Vec<f64>,
    pub(crate) candidate: Vec<f64>,
    /// The baseline of the gate before; empty for the first.
    pub(crate) stored: Vec<f64>,
}

/// Another tool's rule for a regression.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OtherRule {
    pub(crate) name: &'static str,
    /// Whether it calls the candidate slower in this metric; `None` without the data it needs.
    pub(crate) says_slower: fn(&Series) -> Option<bool>,
}

/// All of them.
pub(crate) const OTHER_RULES: [OtherRule; 5] = [
    OtherRule {
        name: "10 % ratio, one run after the other",
        says_slower: |series| {
            let (baseline, candidate) = series.one_after_the_other();
            ratio(baseline, candidate)
        },
    },
    OtherRule {
        name: "Welch's t-test, one run after the other",
        says_slower: |series| {
            let (baseline, candidate) = series.one_after_the_other();
            Some(welch(baseline, candidate)? < SIGNIFICANT)
        },
    },
    OtherRule {
        name: "Mann-Whitney, one run after the other",
        says_slower: |series| {
            let (baseline, candidate) = series.one_after_the_other();
            Some(mann_whitney(baseline, candidate)? < SIGNIFICANT)
        },
    },
    OtherRule {
        name: "10 % ratio, stored baseline",
        says_slower: |series| ratio(&series.stored, &series.candidate),
    },
    OtherRule {
        name: "Welch's t-test, stored baseline",
        says_slower: |series| Some(welch(&series.stored, &series.candidate)? < SIGNIFICANT),
    },
];

impl Series {
    /// The baseline of the first half of the time and the candidate of the second, as if one had been
    /// measured after the other.
    fn one_after_the_other(&self) -> (&[f64], &[f64]) {
        let middle = self.baseline.len() / 2;
        let begin = middle.min(self.candidate.len());
        (&self.baseline[..middle], &self.candidate[begin..])
    }
}

fn ratio(baseline: &[f64], candidate: &[f64]) -> Option<bool> {
    Some(median(candidate)? > (1.0 + RATIO) * median(baseline)?)
}

fn mean_and_variance(values: &[f64]) -> Option<(f64, f64)> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (mean, squares / (count - 1.0)))
}

/// The one-sided p-value of "the candidate's mean is not higher". Source: Welch, "The generalization of
/// Student's problem when several different population variances are involved", *Biometrika* 34 (1947).
fn welch(baseline: &[f64], candidate: &[f64]) -> Option<f64> {
    let (mean, variance) = mean_and_variance(baseline)?;
    let (other_mean, other_variance) = mean_and_variance(candidate)?;
    let (count, other_count) = (baseline.len() as f64, candidate.len() as f64);
    let (error, other_error) = (variance / count, other_variance / other_count);

    let freedom = (error + other_error).powi(2)
        / (error.powi(2) / (count - 1.0) + other_error.powi(2) / (other_count - 1.0));

    let t = (other_mean - mean) / (error + other_error).sqrt();
    Some(StudentsT::new(0.0, 1.0, freedom).ok()?.sf(t))
}

/// The one-sided p-value of "the candidate's values are not higher", by the normal approximation with
/// its correction for continuity. Source: Mann and Whitney, "On a test of whether one of two random
/// variables is stochastically larger than the other", *Annals of Mathematical Statistics* 18 (1947).
fn mann_whitney(baseline: &[f64], candidate: &[f64]) -> Option<f64> {
    if baseline.is_empty() || candidate.is_empty() {
        return None;
    }
    let above: f64 = baseline
        .iter()
        .flat_map(|low| candidate.iter().map(move |high| (low, high)))
        .map(|(low, high)| match low.total_cmp(high) {
            std::cmp::Ordering::Less => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Greater => 0.0,
        })
        .sum();

    let (n, m) = (baseline.len() as f64, candidate.len() as f64);
    let deviation = (n * m * (n + m + 1.0) / 12.0).sqrt();
    let z = (above - n * m / 2.0 - 0.5) / deviation;
    Some(Normal::standard().sf(z))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: Option<f64>, expected: f64) -> bool {
        value.is_some_and(|value| (value - expected).abs() < 5e-4)
    }

    /// By hand: t = 2 with 8 degrees of freedom, and a U of 20 out of 25.
    #[test]
    fn the_tests_give_what_the_tables_have() {
        let (low, high) = ([1.0, 2.0, 3.0, 4.0, 5.0], [3.0, 4.0, 5.0, 6.0, 7.0]);
        assert!(near(welch(&low, &high), 0.0403), "{:?}", welch(&low, &high));
        // z = (20.5 - 12.5 - 0.5) / sqrt(275 / 12) = 1.567
        assert!(
            near(mann_whitney(&low, &high), 0.0586),
            "{:?}",
            mann_whitney(&low, &high)
        );
        assert_eq!(welch(&low, &[1.0]), None);
    }

    #[test]
    fn a_drift_deceives_those_who_measure_one_after_the_other() {
        let drift: Vec<f64> = (0..20)
            .map(|block| 100.0 + 2.0 * f64::from(block))
            .collect();
        let series = Series {
            baseline: drift.clone(),
            candidate: drift,
            stored: Vec::new(),
        };
        let said: Vec<_> = OTHER_RULES
            .iter()
            .map(|rule| (rule.says_slower)(&series))
            .collect();
        assert_eq!(said, [Some(true), Some(true), Some(true), None, None]);
    }
}
