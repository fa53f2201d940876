//! Balanced random orders of the arms in a block.

/// The order of the arms in each of `rounds` rounds: one slice per arm and round.
///
/// The rounds come in squares of as many rounds as there are arms, each square freshly randomised:
/// a Latin square, so every arm takes every position once. Its arms are labelled at random and
/// its rows shuffled. For two arms that is ABBA or BAAB. For an even number of arms every arm also
/// directly follows every other one once per square; for an odd number that holds on average.
/// Source: Williams, "Experimental designs balanced for the estimation of residual effects of
/// treatments", *Australian Journal of Scientific Research* A 2 (1949).
#[must_use]
pub fn rounds(arms: usize, rounds: usize, rng: &mut fastrand::Rng) -> Vec<Vec<usize>> {
    let mut orders = Vec::with_capacity(balanced_rounds(arms, rounds));
    while orders.len() < rounds {
        orders.extend(square(arms, rng));
    }
    orders.truncate(rounds);
    orders
}

/// The least number of rounds, and at least `at_least`, in which every arm takes every position
/// equally often: the next multiple of the number of arms.
#[must_use]
pub fn balanced_rounds(arms: usize, at_least: usize) -> usize {
    at_least.next_multiple_of(arms.max(1))
}

/// One row per arm. The first zigzags (0, 1, last, 2, last but one, …), so that its steps are all
/// different; each row after it is one further, modulo the number of arms.
fn square(arms: usize, rng: &mut fastrand::Rng) -> Vec<Vec<usize>> {
    if arms == 0 {
        return vec![Vec::new()];
    }

    let zigzag = (0..arms).map(|i| match i % 2 {
        0 => (arms - i / 2) % arms,
        _ => i / 2 + 1,
    });

    let mut labels: Vec<usize> = (0..arms).collect();
    rng.shuffle(&mut labels);
    let mut rows: Vec<Vec<usize>> = (0..arms)
        .map(|row| {
            let arms_of_row = zigzag.clone().map(|arm| labels[(arm + row) % arms]);
            arms_of_row.collect()
        })
        .collect();
    rng.shuffle(&mut rows);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Number of occurrences of each pair of numbers below `arms`.
    fn tally(arms: usize, pairs: impl Iterator<Item = (usize, usize)>) -> Vec<usize> {
        let mut counts = vec![0; arms * arms];
        for (a, b) in pairs {
            counts[a * arms + b] += 1;
        }
        counts
    }

    #[test]
    fn every_arm_takes_every_position_equally_often() {
        let mut rng = fastrand::Rng::with_seed(1);
        for arms in 1..=9 {
            for squares in 1..=5 {
                let orders = rounds(arms, arms * squares, &mut rng);
                assert_eq!(orders.len(), arms * squares);
                let places = orders
                    .iter()
                    .flat_map(|order| order.iter().copied().enumerate());
                assert!(tally(arms, places).iter().all(|&count| count == squares));
            }
        }
    }

    #[test]
    fn every_round_holds_every_arm_once() {
        let mut rng = fastrand::Rng::with_seed(2);
        for (arms, n) in [(1, 3), (2, 5), (3, 7), (4, 9), (8, 1)] {
            let orders = rounds(arms, n, &mut rng);
            assert_eq!(orders.len(), n);
            for mut order in orders {
                order.sort_unstable();
                assert!(order.into_iter().eq(0..arms));
            }
        }
        assert_eq!(rounds(0, 2, &mut rng), [[0; 0]; 2]);
        assert!(rounds(3, 0, &mut rng).is_empty());
    }

    #[test]
    fn an_even_number_of_arms_balances_who_follows_whom() {
        let mut rng = fastrand::Rng::with_seed(3);
        for arms in [2, 4, 6, 8] {
            let orders = rounds(arms, arms, &mut rng);
            let steps = orders
                .iter()
                .flat_map(|o| o.windows(2).map(|w| (w[0], w[1])));
            for (pair, count) in tally(arms, steps).into_iter().enumerate() {
                assert_eq!(count, usize::from(pair / arms != pair % arms), "{arms}");
            }
        }
    }

    #[test]
    fn an_odd_number_of_arms_balances_who_follows_whom_on_average() {
        let mut rng = fastrand::Rng::with_seed(4);
        let orders = rounds(3, 3_000, &mut rng);
        let steps = orders
            .iter()
            .flat_map(|o| o.windows(2).map(|w| (w[0], w[1])));
        for (pair, count) in tally(3, steps).into_iter().enumerate() {
            let expected = if pair / 3 == pair % 3 { 0 } else { 1_000 };
            assert!(count.abs_diff(expected) < 120, "{pair}: {count}");
        }
    }

    #[test]
    fn two_arms_run_abba_or_baab_and_both_come_up() {
        let mut rng = fastrand::Rng::with_seed(5);
        let orders = rounds(2, 400, &mut rng);
        let starts = orders.chunks(2).filter(|pair| pair[0][0] == 0).count();
        assert!(orders.chunks(2).all(|pair| pair[0][0] == pair[1][1]));
        assert!((70..=130).contains(&starts), "{starts}");
    }

    #[test]
    fn the_seed_decides() {
        let orders = |seed| rounds(5, 20, &mut fastrand::Rng::with_seed(seed));
        assert_eq!(orders(6), orders(6));
        assert_ne!(orders(6), orders(7));
    }

    #[test]
    fn rounds_are_rounded_up_to_whole_squares() {
        assert_eq!(balanced_rounds(2, 5), 6);
        assert_eq!(balanced_rounds(3, 9), 9);
        assert_eq!(balanced_rounds(4, 1), 4);
        assert_eq!(balanced_rounds(1, 7), 7);
        assert_eq!(balanced_rounds(0, 7), 7);
    }
}
