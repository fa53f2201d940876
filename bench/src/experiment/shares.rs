//! Division of the clients of a condition among load hosts.

/// The clients of one load host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// The load host, from 0.
    pub(crate) host: usize,
    /// Number of its first client, from 0.
    pub(crate) first: u32,
    pub(crate) clients: u32,
}

/// The shares of load hosts with these weights, in the order of the hosts. They add up to all clients, and none
/// differs by a whole client from what its weight entitles it to. A host without a client has no share.
///
/// (The method of largest remainders; of equal ones, the first host's is the largest.)
pub(super) fn shares(clients: u32, weights: &[u32]) -> Vec<Share> {
    let all = u64::from(clients);
    let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let sum = sum.max(1);
    let exact = weights.iter().map(|weight| all * u64::from(*weight));
    let (mut counts, remainders): (Vec<u64>, Vec<u64>) =
        exact.map(|exact| (exact / sum, exact % sum)).unzip();

    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|host| std::cmp::Reverse(remainders[*host]));
    let missing = all - counts.iter().sum::<u64>();
    for host in by_remainder
        .into_iter()
        .zip(0..missing)
        .map(|(host, _)| host)
    {
        counts[host] += 1;
    }

    let mut first = 0;
    let mut shares = Vec::new();
    for (host, count) in counts.into_iter().enumerate() {
        let clients = u32::try_from(count).expect("no more than all clients");
        if clients > 0 {
            shares.push(Share {
                host,
                first,
                clients,
            });
        }
        first += clients;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(clients: u32, weights: &[u32]) -> Vec<(usize, u32)> {
        let shares = shares(clients, weights).into_iter();
        shares.map(|share| (share.host, share.clients)).collect()
    }

    #[test]
    fn equal_weights_make_even_shares() {
        assert_eq!(counts(10, &[1, 1, 1]), [(0, 4), (1, 3), (2, 3)]);
        assert_eq!(counts(64, &[7]), [(0, 64)]);
        assert_eq!(counts(1, &[1, 1]), [(0, 1)]);
    }

    #[test]
    fn weights_divide_the_clients() {
        assert_eq!(counts(5, &[1, 3]), [(0, 1), (1, 4)]);
        assert_eq!(counts(100, &[1, 2, 1]), [(0, 25), (1, 50), (2, 25)]);
        // A host in the middle may be left without.
        assert_eq!(counts(4, &[3, 1, 3]), [(0, 2), (2, 2)]);
    }

    #[test]
    fn shares_are_complete_and_within_one_client_of_their_weights() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..2_000 {
            let weights: Vec<u32> = (0..random.usize(1..40))
                .map(|_| random.u32(1..=1_000))
                .collect();
            let clients = random.u32(1..=1_000_000);
            let sum: u32 = weights.iter().sum();

            let mut next = 0;
            let mut counts = vec![0; weights.len()];
            for share in shares(clients, &weights) {
                assert_eq!(share.first, next);
                assert!(share.clients > 0);
                next += share.clients;
                counts[share.host] = share.clients;
            }
            assert_eq!(next, clients);
            for (count, weight) in counts.into_iter().zip(weights) {
                let exact = f64::from(clients) * f64::from(weight) / f64::from(sum);
                assert!((f64::from(count) - exact).abs() < 1.0, "{count} {exact}");
            }
        }
    }
}
