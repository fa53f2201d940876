//! Service-level objectives: a percentile of latency within a limit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use echobench_clients::parse_duration;
use echobench_protocol::textual_enum;
use serde::{Deserialize, Serialize};

/// A percentile of latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Percentile {
    /// The median.
    P50,
    /// The 99th percentile.
    P99,
    /// The 99.9th percentile.
    P999,
    /// The 99.99th percentile.
    P9999,
}

textual_enum!(Percentile, "percentile", { P50 => "p50", P99 => "p99", P999 => "p99.9", P9999 => "p99.99" });

impl Percentile {
    /// Share of the requests that it is not below.
    #[must_use]
    pub fn fraction(self) -> f64 {
        match self {
            Percentile::P50 => 0.5,
            Percentile::P99 => 0.99,
            Percentile::P999 => 0.999,
            Percentile::P9999 => 0.9999,
        }
    }

    /// Least number of requests that carries it in one block.
    #[must_use]
    pub fn least_requests(self) -> u32 {
        match self {
            Percentile::P50 | Percentile::P99 => 368,
            Percentile::P999 => 3_688,
            Percentile::P9999 => 36_888,
        }
    }
}

/// Service-level objective: a percentile of latency within a limit, as in `p99=1ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Slo {
    /// The percentile.
    pub percentile: Percentile,
    /// The longest time that it may have.
    pub limit: Duration,
}

impl Default for Slo {
    fn default() -> Self {
        Slo {
            percentile: Percentile::P99,
            limit: Duration::from_millis(1),
        }
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={:?}", self.percentile, self.limit)
    }
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            || format!("'{text}' is not an objective such as p99=1ms (p50, p99, p99.9, p99.99)");
        let (percentile, limit) = text.split_once('=').ok_or_else(wrong)?;
        let slo = Slo {
            percentile: percentile.trim().parse().map_err(|_| wrong())?,
            limit: parse_duration(limit).map_err(|_| wrong())?,
        };
        if slo.limit.is_zero() {
            return Err(wrong());
        }
        Ok(slo)
    }
}

impl TryFrom<String> for Slo {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Slo> for String {
    fn from(slo: Slo) -> Self {
        slo.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_are_read_back() {
        for text in [
            "p99=1ms",
            "p50=250µs",
            "p99.9=1.5ms",
            "p99.99=2s",
            "p99=1ns",
        ] {
            let slo: Slo = text.parse().unwrap();
            assert_eq!(slo.to_string(), text);
        }
        assert_eq!(
            "p99 = 1.50 ms".parse::<Slo>().unwrap().to_string(),
            "p99=1.5ms"
        );
        for text in ["p99", "p98=1ms", "p99=fast", "p99=0s", ""] {
            let error = text.parse::<Slo>().unwrap_err();
            assert!(error.contains("p99=1ms"), "{error}");
        }
    }
}
