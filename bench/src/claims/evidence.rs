//! Evidence of a claim: named figures, each with its interval.

use anyhow::bail;

use crate::stats::{median, sign_interval};

/// Joint confidence of the intervals that decide one claim.
const CONFIDENCE: f64 = 0.95;

/// One measured figure.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figure {
    /// Name with the unit last, as in `fork_start_ns`; `a_over_b_ratio` for a ratio.
    pub(super) metric: String,
    /// Place on a curve or in a table, as in `64 MiB`; may be empty.
    pub(super) at: String,
    /// Median over blocks, or a count; `None` if it could not be measured.
    pub(super) value: Option<f64>,
    /// Lower end of the interval.
    pub(super) low: Option<f64>,
    /// Upper end of the interval.
    pub(super) high: Option<f64>,
    /// Confidence of the interval.
    pub(super) level: Option<f64>,
    /// Number of independent observations: blocks, each with fresh processes.
    pub(super) n: usize,
    /// Whether the table of verdicts shows it; the file and the curves always do.
    pub(super) headline: bool,
}

impl Figure {
    /// Compares the figure with a margin: by its interval, or by its value if it is a count, which has
    /// no interval. `None` if the comparison is not resolved.
    pub(super) fn at_least(&self, margin: f64) -> Option<bool> {
        let (low, high) = self.ends()?;

        if low >= margin {
            Some(true)
        } else if high < margin {
            Some(false)
        } else {
            None
        }
    }

    /// Shows the figure in the table of verdicts.
    pub(super) fn mark_headline(&mut self) {
        self.headline = true;
    }

    fn ends(&self) -> Option<(f64, f64)> {
        match (self.low, self.high) {
            (Some(low), Some(high)) => Some((low, high)),
            _ if self.n == 1 => self.value.map(|value| (value, value)),
            _ => None,
        }
    }
}

/// All figures of one claim.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    /// The figures in reading order.
    pub(super) figures: Vec<Figure>,
}

impl Evidence {
    /// Adds the median of one value per block. `of` such figures decide the claim together, so each
    /// interval gets its share of the error rate (Bonferroni's correction): rules compare intervals
    /// with margins, for which all of them have to cover at once, as those of Holm's procedure do not.
    pub(super) fn median(
        &mut self,
        metric: &str,
        at: &str,
        values: &[f64],
        of: usize,
    ) -> &mut Figure {
        let confidence = 1.0 - (1.0 - CONFIDENCE) / of.max(1) as f64;
        let interval = sign_interval(values, confidence);

        self.add(Figure {
            metric: metric.to_owned(),
            at: at.to_owned(),
            value: median(values),
            low: interval.map(|interval| interval.low),
            high: interval.map(|interval| interval.high),
            level: interval.map(|interval| interval.level),
            n: values.len(),
            headline: false,
        })
    }

    /// Adds the median ratio of two values per block.
    pub(super) fn ratio(
        &mut self,
        metric: &str,
        at: &str,
        (over, under): (&[f64], &[f64]),
        of: usize,
    ) -> &mut Figure {
        let logs: Vec<f64> = over
            .iter()
            .zip(under)
            .map(|(over, under)| (over / under).ln())
            .collect();

        let figure = self.median(metric, at, &logs, of);
        for end in [&mut figure.value, &mut figure.low, &mut figure.high] {
            *end = end.map(f64::exp);
        }
        figure
    }

    /// Adds a count, or another figure without an interval.
    pub(super) fn exact(&mut self, metric: &str, at: &str, value: f64) -> &mut Figure {
        self.add(Figure {
            metric: metric.to_owned(),
            at: at.to_owned(),
            value: Some(value),
            n: 1,
            ..Figure::default()
        })
    }

    /// Fails if a figure could not be measured: a rule must not decide by what is left.
    pub(super) fn complete(self) -> anyhow::Result<Self> {
        match self.missing(&[]) {
            None => Ok(self),
            Some(reason) => bail!(reason),
        }
    }

    /// A figure that could not be measured, in words: one of all figures, or one of those that are `required`, metrics
    /// with their places.
    pub(super) fn missing(&self, required: &[(&str, &[&str])]) -> Option<String> {
        if self.figures.is_empty() {
            return Some("nothing was measured".to_owned());
        }

        let is_measured = |figure: &Figure| figure.value.is_some_and(f64::is_finite);
        let unmeasured = self.figures.iter().find(|figure| !is_measured(figure));
        let unmeasured = unmeasured.map(|figure| (&figure.metric[..], &figure.at[..]));

        let mut required = required
            .iter()
            .flat_map(|(metric, places)| places.iter().map(move |at| (*metric, *at)));
        let absent = required.find(|(metric, at)| self.at(metric, at).is_none());

        let (metric, at) = unmeasured.or(absent)?;
        let place = match at {
            "" => String::new(),
            at => format!(" at '{at}'"),
        };
        Some(format!("{metric}{place} could not be measured"))
    }

    fn add(&mut self, figure: Figure) -> &mut Figure {
        self.figures.push(figure);
        let last = self.figures.len() - 1;
        &mut self.figures[last]
    }

    /// All figures of a metric.
    pub(super) fn all<'a>(&'a self, metric: &'a str) -> impl Iterator<Item = &'a Figure> {
        self.figures
            .iter()
            .filter(move |figure| figure.metric == metric)
    }

    /// One figure of a metric.
    pub(super) fn at(&self, metric: &str, at: &str) -> Option<&Figure> {
        self.figures
            .iter()
            .find(|figure| figure.metric == metric && figure.at == at)
    }

    /// Value of one figure.
    pub(super) fn value(&self, metric: &str, at: &str) -> Option<f64> {
        self.at(metric, at)?.value
    }

    /// Sum of a metric's values; `None` if one is missing, or there are none.
    pub(super) fn sum(&self, metric: &str) -> Option<f64> {
        let values: Option<Vec<f64>> = self.all(metric).map(|figure| figure.value).collect();
        values
            .filter(|values| !values.is_empty())
            .map(|values| values.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_held_against_a_margin_by_its_interval() {
        let mut evidence = Evidence::default();
        let figure = evidence.median("x_ratio", "", &[2.0, 2.1, 2.2, 2.3, 2.4, 2.5], 1);
        assert_eq!(
            (figure.low, figure.high, figure.n),
            (Some(2.0), Some(2.5), 6)
        );
        assert_eq!(figure.at_least(1.5), Some(true));
        assert_eq!(figure.at_least(3.0), Some(false));
        assert_eq!(figure.at_least(2.2), None);
    }

    #[test]
    fn too_few_blocks_resolve_nothing_and_a_count_is_what_it_is() {
        let mut evidence = Evidence::default();
        assert_eq!(evidence.median("x", "", &[9.0, 9.0], 1).at_least(1.0), None);
        // More comparisons ask for more blocks.
        assert_eq!(evidence.median("x", "", &[9.0; 6], 3).at_least(1.0), None);
        assert_eq!(
            evidence.exact("zombies", "", 0.0).at_least(1.0),
            Some(false)
        );
    }

    #[test]
    fn evidence_without_a_measured_value_is_not_complete() {
        let with = |values: &[f64], count: f64| {
            let mut evidence = Evidence::default();
            evidence.ratio("a_over_b_ratio", "8 clients", (values, &[1.0; 6]), 1);
            evidence.exact("share", "", count);
            evidence.complete()
        };
        let good = [1.0, 2.0, 3.0, 1.0, 2.0, 3.0];
        assert!(with(&good, 0.0).is_ok());

        let negative = [1.0, -2.0, 3.0, 1.0, 2.0, 3.0];
        let error = with(&negative, 0.0).unwrap_err().to_string();
        assert_eq!(error, "a_over_b_ratio at '8 clients' could not be measured");
        // Nothing of nothing, and something of nothing.
        assert!(with(&good, f64::NAN).is_err() && with(&good, f64::INFINITY).is_err());
        assert!(with(&[], 0.0).is_err());
        assert!(Evidence::default().complete().is_err());
    }

    #[test]
    fn ratios_are_taken_within_blocks() {
        let mut evidence = Evidence::default();
        let under = [1.0, 10.0, 100.0, 1.0, 1.0, 1.0];
        let over = under.map(|value| 2.0 * value);
        let figure = evidence.ratio("a_over_b_ratio", "", (&over, &under), 1);
        for end in [figure.value, figure.low, figure.high] {
            assert!((end.unwrap() - 2.0).abs() < 1e-9);
        }
    }
}
