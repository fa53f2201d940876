//! What an experiment has found: named figures, each with its interval.

use crate::stats::{median, sign_interval};

/// The confidence with which the intervals of all figures that decide one claim cover together.
const CONFIDENCE: f64 = 0.95;

/// One figure.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figure {
    /// What was measured, its unit last, as in `fork_start_ns`; `a_over_b_ratio` for a ratio.
    pub metric: String,
    /// Where on a curve or in a table, as in `64 MiB`; may be empty.
    pub at: String,
    /// The figure: a median over blocks, or a count.
    pub value: Option<f64>,
    /// The lower end of its interval.
    pub low: Option<f64>,
    /// The upper end of its interval.
    pub high: Option<f64>,
    /// The confidence of the interval.
    pub level: Option<f64>,
    /// Independent observations: blocks, each with fresh processes.
    pub n: usize,
    /// Whether it stands in the table of verdicts, not only in the file and the curves.
    pub headline: bool,
}

impl Figure {
    /// Whether it is resolved to be at least `margin`: by its interval, or by itself if it is a
    /// count, which has none. `None` if neither yes nor no is resolved.
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
pub struct Evidence {
    /// In the order in which they are to be read.
    pub figures: Vec<Figure>,
}

impl Evidence {
    /// Adds the median of one value for each block. `of` such figures decide the claim together, so
    /// each interval errs with so much smaller a probability (Bonferroni's correction): rules hold
    /// them against margins, for which the intervals have to cover all at once, as those of Holm's
    /// procedure do not.
    pub(super) fn median(
        &mut self,
        metric: &str,
        at: &impl ToString,
        values: &[f64],
        of: usize,
    ) -> &mut Figure {
        let confidence = 1.0 - (1.0 - CONFIDENCE) / of.max(1) as f64;
        let interval = sign_interval(values, confidence);
        self.add(Figure {
            metric: metric.to_owned(),
            at: at.to_string(),
            value: median(values),
            low: interval.map(|interval| interval.low),
            high: interval.map(|interval| interval.high),
            level: interval.map(|interval| interval.level),
            n: values.len(),
            headline: false,
        })
    }

    /// Adds the ratio of two values for each block.
    pub(super) fn ratio(
        &mut self,
        metric: &str,
        at: &impl ToString,
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

    /// Adds a count, or another figure that has no interval.
    pub(super) fn exact(&mut self, metric: &str, at: &impl ToString, value: f64) -> &mut Figure {
        self.add(Figure {
            metric: metric.to_owned(),
            at: at.to_string(),
            value: Some(value),
            n: 1,
            ..Figure::default()
        })
    }

    fn add(&mut self, figure: Figure) -> &mut Figure {
        self.figures.push(figure);
        let last = self.figures.len() - 1;
        &mut self.figures[last]
    }

    /// The figures of a metric.
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

    /// The value of one figure.
    pub(super) fn value(&self, metric: &str, at: &str) -> Option<f64> {
        self.at(metric, at)?.value
    }

    /// The sum of a metric's values; `None` if one is missing, or there are none.
    pub(super) fn sum(&self, metric: &str) -> Option<f64> {
        let values: Option<Vec<f64>> = self.all(metric).map(|figure| figure.value).collect();
        values
            .filter(|values| !values.is_empty())
            .map(|values| values.iter().sum())
    }
}

/// Shows a figure in the table of verdicts.
pub(super) fn shown(figure: &mut Figure) {
    figure.headline = true;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_held_against_a_margin_by_its_interval() {
        let mut evidence = Evidence::default();
        let figure = evidence.median("x_ratio", &"", &[2.0, 2.1, 2.2, 2.3, 2.4, 2.5], 1);
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
        assert_eq!(
            evidence.median("x", &"", &[9.0, 9.0], 1).at_least(1.0),
            None
        );
        // More comparisons ask for more blocks.
        assert_eq!(evidence.median("x", &"", &[9.0; 6], 3).at_least(1.0), None);
        assert_eq!(
            evidence.exact("zombies", &"", 0.0).at_least(1.0),
            Some(false)
        );
    }

    #[test]
    fn ratios_are_taken_within_blocks() {
        let mut evidence = Evidence::default();
        let under = [1.0, 10.0, 100.0, 1.0, 1.0, 1.0];
        let over = under.map(|value| 2.0 * value);
        let figure = evidence.ratio("a_over_b_ratio", &"", (&over, &under), 1);
        for end in [figure.value, figure.low, figure.high] {
            assert!((end.unwrap() - 2.0).abs() < 1e-9);
        }
    }
}
