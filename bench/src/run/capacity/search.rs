//! Search for the highest rate that keeps an objective: doubling until a rate is not kept, then halving.
//!
//! It knows rates and answers only, so that it can be tested against queueing theory, and a resumed run repeats it
//! from the rows on disk.

/// Answer to the question whether an arm keeps the objective at a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It does.
    Kept,
    /// It does not.
    Missed,
    /// The blocks do not decide it.
    Unresolved,
    /// The load generator was the limit, whatever the server could do.
    Limited,
    /// The machine was disturbed in too many blocks.
    NotJudged,
    /// The arm failed in every block.
    Failed,
}

/// A rate with its answer.
pub(super) type Tried = (f64, Answer);

/// Steps at one rate before a disturbed machine counts as an answer.
const REPEATS: usize = 3;
/// Lowest share of the first rate that is tried.
const LOWEST: f64 = 1.0 / 1024.0;

/// The rates between which the highest rate that is kept lies.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Bracket {
    /// Highest rate that is kept, as are all rates tried below it.
    pub(super) kept: Option<f64>,
    /// Lowest rate above it that is not kept, whatever the reason.
    pub(super) first_not_kept: Option<f64>,
    /// Highest rate that is neither kept nor missed, below the next.
    pub(super) last_open: Option<f64>,
    /// Lowest rate that is missed.
    pub(super) missed: Option<f64>,
    /// Lowest rate at which the load generator was the limit, if it is below `missed`.
    pub(super) limited: Option<f64>,
}

impl Bracket {
    /// The bracket that answers leave. A rate kept above one that is not kept does not count.
    pub(super) fn of(tried: &[Tried]) -> Self {
        let lowest = |is_wanted: &dyn Fn(Answer) -> bool| {
            let rates = tried.iter().filter(|(_, answer)| is_wanted(*answer));
            rates.map(|(rate, _)| *rate).min_by(f64::total_cmp)
        };
        let highest_below = |limit: Option<f64>, is_wanted: &dyn Fn(Answer) -> bool| {
            let below = |rate: f64| limit.is_none_or(|limit| rate < limit);
            let rates = tried
                .iter()
                .filter(|(rate, answer)| below(*rate) && is_wanted(*answer));
            rates.map(|(rate, _)| *rate).max_by(f64::total_cmp)
        };

        let first_not_kept = lowest(&|answer| answer != Answer::Kept);
        let missed = lowest(&|answer| matches!(answer, Answer::Missed | Answer::Failed));
        let limited = lowest(&|answer| answer == Answer::Limited);
        let limited = limited.filter(|rate| missed.is_none_or(|missed| *rate < missed));
        let is_open = |answer| matches!(answer, Answer::Unresolved | Answer::NotJudged);
        Bracket {
            kept: highest_below(first_not_kept, &|answer| answer == Answer::Kept),
            first_not_kept,
            last_open: highest_below(limited.or(missed), &is_open),
            missed,
            limited,
        }
    }

    /// The gaps in which a rate would narrow the bracket: below and above the rates that are not resolved.
    fn gaps(&self) -> Vec<(f64, f64)> {
        let below = self.kept.zip(self.first_not_kept);
        let above = self.last_open.zip(self.limited.or(self.missed));
        below.into_iter().chain(above).collect()
    }
}

/// A search with the answers so far.
#[derive(Clone, Debug)]
pub(super) struct Search {
    /// The first rate.
    pub(super) start: f64,
    /// Width of a gap that is not divided further, as a share of its lower end.
    pub(super) precision: f64,
    /// Rates in the order in which they were tried; a rate that was tried again has the answer of all its blocks.
    pub(super) tried: Vec<Tried>,
}

impl Search {
    /// Whether the bracket is as narrow as it needs to be, or cannot be narrowed.
    pub(super) fn is_done(&self) -> bool {
        match self.next() {
            None => true,
            Some(Next::Repeat(_) | Next::Bracket(_)) => false,
            Some(Next::Divide(low, high)) => high <= low * (1.0 + self.precision),
        }
    }

    /// The rate of the next step. A search that is done goes on as long as others do: its rates narrow the bracket
    /// further.
    pub(super) fn next_rate(&self) -> f64 {
        match self.next() {
            None => self.tried.last().map_or(self.start, |(rate, _)| *rate),
            Some(Next::Repeat(rate) | Next::Bracket(rate)) => rate,
            Some(Next::Divide(low, high)) => (low * high).sqrt(),
        }
    }

    fn next(&self) -> Option<Next> {
        let Some(&(last, answer)) = self.tried.last() else {
            return Some(Next::Bracket(self.start));
        };
        if answer == Answer::Failed {
            return None;
        }
        let same = self.tried.iter().rev();
        let same = same.take_while(|(rate, _)| rate.to_bits() == last.to_bits());
        let repeats = same.count();
        if answer == Answer::NotJudged && repeats < REPEATS {
            return Some(Next::Repeat(last));
        }

        let bracket = Bracket::of(&self.tried);
        let rates = || self.tried.iter().map(|(rate, _)| *rate);
        if bracket.kept.is_none() {
            let lower = rates().fold(f64::INFINITY, f64::min) / 2.0;
            return (lower >= self.start * LOWEST).then_some(Next::Bracket(lower));
        }
        if bracket.limited.or(bracket.missed).is_none() {
            return Some(Next::Bracket(rates().fold(0.0, f64::max) * 2.0));
        }

        let gaps = bracket.gaps().into_iter();
        let widest = gaps.max_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
        widest.map(|(low, high)| Next::Divide(low, high))
    }
}

/// Kind of the next step.
enum Next {
    /// The same rate again.
    Repeat(f64),
    /// A rate beyond all others.
    Bracket(f64),
    /// A rate between these.
    Divide(f64, f64),
}
