//! Axes of a chart: the place of a value, and the values that are labelled.

use crate::render::units;

/// Unit of the values of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Per second.
    Rate,
    /// Nanoseconds.
    Time,
    /// Bytes.
    Bytes,
    /// Index between 0 and 1.
    Index,
    /// Whole number.
    Count,
}

impl Unit {
    /// Text of a value, as in tables.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Unit::Rate => units::rate(value),
            Unit::Time => units::duration(value),
            Unit::Bytes => units::bytes(value),
            Unit::Index => format!("{value:.2}"),
            Unit::Count => units::whole(value),
        }
    }

    /// Text of a value beside an axis, without trailing zeros.
    fn tick(self, value: f64) -> String {
        let shown = match self {
            Unit::Rate if value >= 10.0 => return units::whole(value),
            // Not exactly a multiple of the step: 0.30000000000000004.
            Unit::Rate => format!("{value:.9}"),
            _ if value == 0.0 => return "0".to_owned(),
            _ => self.show(value),
        };

        let (number, unit) = shown.split_once(' ').unwrap_or((&shown, ""));
        let number = match number.split_once('.') {
            Some(_) => number.trim_end_matches('0').trim_end_matches('.'),
            None => number,
        };
        format!("{number} {unit}").trim_end().to_owned()
    }

    /// Power of 1,024 (of bytes) that round numbers of this size are multiples of; 1 for other units.
    fn base(self, value: f64) -> f64 {
        let steps: &[f64] = match self {
            Unit::Bytes => &[1.0, 1024.0, 1_048_576.0, 1_073_741_824.0],
            _ => &[1.0],
        };
        let below = steps.iter().rev().find(|step| **step <= value);
        *below.unwrap_or(&1.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    Linear,
    Log,
    /// Quantiles: each step to the right divides the remaining requests by ten.
    Nines,
}

/// Axis of a chart.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) label: String,
    pub(crate) unit: Unit,
    scale: Scale,
    low: f64,
    high: f64,
    /// Labelled values and their labels.
    pub(crate) ticks: Vec<(f64, String)>,
}

/// Ratio of the largest to the least value from which an axis is logarithmic.
const LOG_FROM: f64 = 20.0;

impl Axis {
    /// Axis for amounts: linear from zero, or logarithmic for a wide range.
    pub(crate) fn amounts(label: &str, unit: Unit, values: &[f64]) -> Axis {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(0.0, f64::max);
        if unit != Unit::Index && low > 0.0 && high / low >= LOG_FROM {
            Axis::log(label, unit, low, high)
        } else {
            Axis::from_zero(label, unit, if unit == Unit::Index { 1.0 } else { high })
        }
    }

    /// Linear axis from zero to a round number.
    pub(crate) fn from_zero(label: &str, unit: Unit, high: f64) -> Axis {
        let high = if high > 0.0 { high } else { 1.0 };
        let base = unit.base(high);

        // About four steps, each a round number.
        let rough = high / base / 4.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .map(|step| step * power * base)
            .into_iter()
            .find(|step| *step * 4.0 >= high * 0.999)
            .unwrap_or(10.0 * power * base);
        let count = (high / step * 0.999).ceil();

        let mut ticks = Vec::new();
        let mut index = 0.0;
        while index <= count {
            ticks.push((index * step, unit.tick(index * step)));
            index += 1.0;
        }

        Axis {
            label: label.to_owned(),
            unit,
            scale: Scale::Linear,
            low: 0.0,
            high: count * step,
            ticks,
        }
    }

    /// Logarithmic axis between round numbers.
    pub(crate) fn log(label: &str, unit: Unit, low: f64, high: f64) -> Axis {
        // Bytes are round in powers of two.
        let (radix, all): (f64, &[f64]) = match unit {
            Unit::Bytes => (2.0, &[1.0]),
            _ => (10.0, &[1.0, 2.0, 5.0]),
        };

        let mut round: Vec<f64> = Vec::new();
        let mut power = radix.powf(low.log(radix).floor());
        while power <= high * radix {
            round.extend(all.iter().map(|step| step * power));
            power *= radix;
        }

        let first = round.iter().rposition(|value| *value <= low).unwrap_or(0);
        let last = round.iter().position(|value| *value >= high);
        let mut round = round[first..=last.unwrap_or(round.len() - 1)].to_vec();
        let (low, high) = (round[0], round[round.len() - 1]);

        if round.len() > 7 && radix > 2.0 {
            let tens = |value: &f64| (value.log10() - value.log10().round()).abs() < 1e-9;
            round.retain(tens);
        }

        let every = round.len().div_ceil(7);
        let ticks = round.iter().step_by(every);
        Axis {
            label: label.to_owned(),
            unit,
            scale: Scale::Log,
            low,
            high,
            ticks: ticks.map(|value| (*value, unit.tick(*value))).collect(),
        }
    }

    /// Axis with a tick at each of the values, logarithmic where they are far apart.
    pub(crate) fn occurring(label: &str, values: &[f64]) -> Axis {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(0.0, f64::max);
        let log = low > 0.0 && high / low >= 8.0;

        Axis {
            label: label.to_owned(),
            unit: Unit::Count,
            scale: if log { Scale::Log } else { Scale::Linear },
            low: if log { low } else { 0.0 },
            high,
            ticks: values
                .iter()
                .map(|value| (*value, units::whole(*value)))
                .collect(),
        }
    }

    /// Axis of names at 0, 1, 2 and so on.
    pub(crate) fn steps(label: &str, names: &[&str]) -> Axis {
        let ticks = names.iter().enumerate();
        Axis {
            label: label.to_owned(),
            unit: Unit::Count,
            scale: Scale::Linear,
            low: 0.0,
            high: names.len().saturating_sub(1) as f64,
            ticks: ticks
                .map(|(index, name)| (index as f64, (*name).to_owned()))
                .collect(),
        }
    }

    /// Axis of quantiles from 0 to the highest one that is drawn.
    pub(crate) fn quantiles(highest: f64) -> Axis {
        let mut ticks = Vec::new();
        for (quantile, text) in [
            (0.5, "50 %"),
            (0.9, "90 %"),
            (0.99, "99 %"),
            (0.999, "99.9 %"),
            (0.9999, "99.99 %"),
        ] {
            if quantile <= highest + 1e-9 {
                ticks.push((quantile, text.to_owned()));
            }
        }

        Axis {
            label: "share of requests answered within".to_owned(),
            unit: Unit::Index,
            scale: Scale::Nines,
            low: 0.0,
            high: highest,
            ticks,
        }
    }

    /// Place of a value between the ends of the axis: 0 to 1.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let at = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(f64::MIN_POSITIVE).ln(),
            Scale::Nines => -(1.0 - value).ln(),
        };

        let (low, high) = (at(self.low), at(self.high));
        if high > low {
            ((at(value) - low) / (high - low)).clamp(0.0, 1.0)
        } else {
            0.5
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn linear_axes_begin_at_zero_and_end_at_a_round_number() {
        let axis = Axis::amounts("", Unit::Rate, &[98_000.0, 253_300.0]);
        assert_eq!(texts(&axis), ["0", "100,000", "200,000", "300,000"]);
        assert!((axis.place(150_000.0) - 0.5).abs() < 1e-9);
        let axis = Axis::amounts("", Unit::Bytes, &[8192.0, 95.0 * 1024.0]);
        assert_eq!(texts(&axis), ["0", "25 KiB", "50 KiB", "75 KiB", "100 KiB"]);
        assert_eq!(texts(&Axis::from_zero("", Unit::Rate, 0.0))[0], "0");
        let axis = Axis::from_zero("", Unit::Rate, 0.4);
        assert_eq!(texts(&axis), ["0", "0.1", "0.2", "0.3", "0.4"]);
    }

    #[test]
    fn wide_ranges_are_logarithmic() {
        let axis = Axis::amounts("", Unit::Time, &[5_180.0, 9_680_000.0]);
        assert_eq!(texts(&axis), ["10 µs", "100 µs", "1 ms", "10 ms"]);
        assert!(axis.place(5_180.0) < axis.place(10_000.0));
        let axis = Axis::amounts("", Unit::Time, &[9_000.0, 200_000.0]);
        assert_eq!(
            texts(&axis),
            ["5 µs", "10 µs", "20 µs", "50 µs", "100 µs", "200 µs"]
        );
    }

    #[test]
    fn nines_are_equally_far_apart() {
        let axis = Axis::quantiles(0.9999);
        let places: Vec<f64> = [0.9, 0.99, 0.999, 0.9999].map(|q| axis.place(q)).into();
        for pair in places.windows(2) {
            assert!((pair[1] - pair[0] - 0.25).abs() < 1e-6, "{places:?}");
        }
        assert_eq!(texts(&Axis::quantiles(0.99)), ["50 %", "90 %", "99 %"]);
    }

    #[test]
    fn one_value_lies_in_the_middle() {
        let axis = Axis::occurring("", &[0.0]);
        assert!((axis.place(0.0) - 0.5).abs() < 1e-9);
    }
}
