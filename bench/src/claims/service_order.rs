//! Order in which parallel clients are served: C6.

use echobench_clients::Driver;

use super::evidence::Evidence;
use super::lab::{self, Lab};
use super::rule::{Compared, does_not_hold, holds, holds_only_when, inconclusive, places};
use super::start_order::service_orders;
use super::{CHAPTER_5, Claim, Ruling};
use crate::results::summary::REFERENCE;

pub(super) const C6: Claim = Claim {
    id: "C6",
    claim: "the order in which parallel clients are served is random",
    source: CHAPTER_5,
    metric: "5 clients started one after another: share of runs in which they are served in another \
             order, and rank correlation (Kendall's tau) of the two orders; threads and processes",
    rule: "holds if at least 5 % of runs are out of order and tau is below 0.1, for both; only when \
           random means not fixed, if tau is above; does not hold if under 1 % are out of order",
    experiment: measure_order,
    figures: &[
        ("out_of_order_share", &["threads", "processes"]),
        ("tau", &["threads", "processes"]),
    ],
    decide: decide_order,
};

/// Number of clients, as in the textbook.
const CLIENTS: u32 = 5;

fn measure_order(lab: &Lab) -> anyhow::Result<Evidence> {
    let runs = lab.pick(50, 200);
    let drivers = [Driver::Threads, Driver::Processes];
    let values = lab.blocks(&drivers, lab.pick(10, 20), |&driver| {
        let server = lab::serve(REFERENCE)?;
        let orders = service_orders(server.address(), driver, CLIENTS, runs)?;
        server.stop()?;

        let moved = orders.iter().filter(|order| !order.is_sorted()).count();
        let taus: f64 = orders.iter().map(|order| kendall_tau(order)).sum();
        // A block gives one value per figure, so that its interval is over independent servers.
        let all = orders.len() as f64;
        Ok((moved as f64 / all, taus / all))
    })?;

    let mut evidence = Evidence::default();
    for (driver, values) in drivers.iter().zip(values) {
        let at = driver.to_string();
        let (moved, taus): (Vec<f64>, Vec<f64>) = values.into_iter().unzip();
        let figure = evidence.median("out_of_order_share", &at, &moved, 4);
        figure.mark_headline();
        evidence.median("tau", &at, &taus, 4).mark_headline();
    }
    Ok(evidence)
}

/// Kendall's rank correlation of an order with the ascending one: the share of pairs in order minus
/// that of pairs out of order. Source: Kendall, "A new measure of rank correlation", *Biometrika* 30
/// (1938).
fn kendall_tau(order: &[u32]) -> f64 {
    let mut sum = 0.0;
    let mut pairs = 0.0;
    for (index, first) in order.iter().enumerate() {
        for second in &order[index + 1..] {
            sum += if first < second { 1.0 } else { -1.0 };
            pairs += 1.0;
        }
    }
    sum / pairs
}

fn decide_order(evidence: &Evidence) -> Ruling {
    const OFTEN: f64 = 0.05;
    const SELDOM: f64 = 0.01;
    const CORRELATED: f64 = 0.1;
    let moved = Compared::with(OFTEN, evidence.all("out_of_order_share"));
    let fixed = Compared::with(SELDOM, evidence.all("out_of_order_share"));
    let ordered = Compared::with(CORRELATED, evidence.all("tau"));

    if !fixed.below.is_empty() {
        does_not_hold(format!("{} are served as they start", places(&fixed.below)))
    } else if !moved.all_above() {
        inconclusive("not resolved how often the order changes")
    } else if ordered.all_below() {
        holds("")
    } else if ordered.above.is_empty() {
        inconclusive("not resolved how far the orders agree")
    } else {
        holds_only_when(
            "random means not fixed: who starts earlier is still served earlier more often than not",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::ClaimVerdict;
    use crate::claims::rule::made_up::narrow;

    #[test]
    fn tau_tells_the_same_order_from_the_reverse_and_from_neither() {
        let close = |order: &[u32], tau: f64| (kendall_tau(order) - tau).abs() < 1e-12;
        assert!(close(&[0, 1, 2, 3, 4], 1.0));
        assert!(close(&[4, 3, 2, 1, 0], -1.0));
        // One pair of ten swapped.
        assert!(close(&[1, 0, 2, 3, 4], 0.8));
    }

    #[test]
    fn c6_tells_random_from_not_fixed() {
        let judge = |share: f64, tau: f64| {
            let at = "threads";
            decide_order(&narrow(&[
                ("out_of_order_share", at, share),
                ("tau", at, tau),
            ]))
            .verdict
        };

        assert_eq!(judge(0.9, 0.01), ClaimVerdict::Holds);
        assert_eq!(judge(0.9, 0.6), ClaimVerdict::HoldsOnlyWhen);
        assert_eq!(judge(0.001, 0.99), ClaimVerdict::DoesNotHold);
        assert_eq!(judge(0.02, 0.9), ClaimVerdict::Inconclusive);
    }
}
