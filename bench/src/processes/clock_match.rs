//! Matching of the clocks of two hosts by exchanged messages.

/// Bounds of the offset of a host's clock against this one's, in nanoseconds, and its shortest round trip.
///
/// A request leaves here at `t1` and arrives there at `t2`; its answer leaves there at `t3` and arrives here at
/// `t4`. No message arrives before it was sent, so the offset lies between `t3 - t4` and `t2 - t1`. Every
/// exchange bounds it, and the true offset lies in the intersection.
/// (Mills, RFC 5905; Marzullo and Owicki, *Maintaining the Time in a Distributed System*, 1983.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClockMatch {
    low_ns: i64,
    high_ns: i64,
    /// Shortest round trip, without the time at the other host.
    pub(crate) round_trip_ns: u64,
}

impl ClockMatch {
    /// The clock of this host itself.
    pub(crate) const SAME: Self = ClockMatch {
        low_ns: 0,
        high_ns: 0,
        round_trip_ns: 0,
    };

    /// No exchange yet.
    pub(crate) const UNKNOWN: Self = ClockMatch {
        low_ns: i64::MIN,
        high_ns: i64::MAX,
        round_trip_ns: u64::MAX,
    };

    /// Takes one exchange into account.
    pub(crate) fn exchange(&mut self, t1: u64, t2: u64, t3: u64, t4: u64) {
        let difference = |a: u64, b: u64| a.cast_signed() - b.cast_signed();
        self.low_ns = self.low_ns.max(difference(t3, t4));
        self.high_ns = self.high_ns.min(difference(t2, t1));
        let round_trip_ns = (t4 - t1).saturating_sub(t3.saturating_sub(t2));
        self.round_trip_ns = self.round_trip_ns.min(round_trip_ns);
    }

    /// Estimate of the offset: the middle of its bounds.
    pub(crate) fn offset_ns(&self) -> i64 {
        self.low_ns + (self.high_ns - self.low_ns) / 2
    }

    /// An instant of this host on the clock of the other.
    pub(crate) fn there(&self, here_ns: u64) -> u64 {
        here_ns.saturating_add_signed(self.offset_ns())
    }

    /// Largest error of this match's estimate, from before a block, at any time until `after` was taken:
    /// clocks drift slowly, and in one direction while a block lasts.
    pub(crate) fn bound_until_ns(&self, after: &ClockMatch) -> u64 {
        let estimate = self.offset_ns();
        let ends = [self.low_ns, self.high_ns, after.low_ns, after.high_ns];
        ends.into_iter()
            .map(|end| end.abs_diff(estimate))
            .max()
            .unwrap_or(0)
    }

    /// Largest error of the estimate at the time of the match: half the distance of its bounds.
    pub(crate) fn bound_ns(&self) -> u64 {
        self.bound_until_ns(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A match over exchanges of these delays, there and back, with a clock that is ahead by `offset` and gains
    /// `drift` nanoseconds in each exchange.
    fn matched(offset: i64, drift: i64, delays: &[(u64, u64)]) -> ClockMatch {
        let mut matched = ClockMatch::UNKNOWN;
        for (nth, (there, back)) in delays.iter().enumerate() {
            let nth = i64::try_from(nth).unwrap();
            let ahead = |now: u64| now.saturating_add_signed(offset + drift * nth);
            let sent = 5_000_000_000_000 + nth.unsigned_abs() * 1_000_000;
            let arrived = sent + there;
            let answered = arrived + 700;
            matched.exchange(sent, ahead(arrived), ahead(answered), answered + back);
        }
        matched
    }

    #[test]
    fn the_true_offset_is_never_outside_the_bounds() {
        let mut random = fastrand::Rng::with_seed(1);
        for offset in [0, 1_000_000_000_000, -100_000_000_000, 17] {
            for _ in 0..200 {
                let delays: Vec<(u64, u64)> = (0..30)
                    .map(|_| (random.u64(20_000..900_000), random.u64(20_000..900_000)))
                    .collect();
                let matched = matched(offset, 0, &delays);
                let error = matched.offset_ns().abs_diff(offset);
                assert!(error <= matched.bound_ns(), "{error} {matched:?}");
                assert!(matched.bound_ns() < 450_000, "{matched:?}");
            }
        }
    }

    #[test]
    fn the_bound_is_half_of_the_shortest_delays_together() {
        // The shortest delay of each direction counts, though they belong to different exchanges.
        let both = matched(-100, 0, &[(50_000, 400_000), (300_000, 70_000)]);
        assert_eq!(both.offset_ns(), -100 - 10_000);
        assert_eq!(both.bound_ns(), 60_000);
        assert_eq!(both.round_trip_ns, 370_000);
        assert_eq!(both.there(1_000_000), 1_000_000 - 10_100);
    }

    #[test]
    fn drift_during_a_block_widens_its_bound() {
        let delays = [(50_000, 50_000)];
        let before = matched(1_000, 0, &delays);
        let after = matched(21_000, 0, &delays);
        assert_eq!(before.bound_ns(), 50_000);
        assert_eq!(before.bound_until_ns(&after), 70_000);
        assert_eq!(before.bound_until_ns(&before), 50_000);
    }

    #[test]
    fn a_clock_is_matched_with_itself() {
        assert_eq!(ClockMatch::SAME.there(42), 42);
        assert_eq!(ClockMatch::SAME.bound_until_ns(&ClockMatch::SAME), 0);
    }
}
