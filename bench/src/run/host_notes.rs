//! Notes on the hosts of a run: those that were disturbed or a limit, and those that depart from the others.

use super::notes::cause_and_advice;
use super::scenario_report::fixed;
use crate::render::units::plural;
use crate::results::ordered::entry;
use crate::results::{HostRecord, HostRow};
use crate::stats::{Comparison, compare_family};

/// Error rate of the comparisons of all load hosts.
const ALPHA: f64 = 0.05;
/// Ratio to the other load hosts from which on a difference matters.
const RELEVANT: f64 = 1.05;

/// A note on a host.
pub(super) struct HostNote {
    /// Its number among all hosts.
    pub(super) host: usize,
    /// The note, which begins with its duty.
    pub(super) text: String,
}

/// All notes, in the order of the hosts.
pub(super) fn host_notes(rows: &[HostRow], hosts: &[HostRecord]) -> Vec<HostNote> {
    let mut notes = invalid_hosts(rows);
    notes.extend(departing_hosts(rows, hosts.len()));
    notes.sort_by_key(|note| note.host);
    for note in &mut notes {
        let role = hosts
            .get(note.host)
            .map_or("a host", |host| host.role.as_str());
        note.text = format!("HOST: {role}: {}", note.text);
    }
    notes
}

/// The notes as a paragraph below tables; empty without any.
pub(super) fn host_paragraph(notes: &[HostNote]) -> String {
    let lines: Vec<&str> = notes.iter().map(|note| note.text.as_str()).collect();
    match lines.join("\n") {
        text if text.is_empty() => text,
        text => format!("\n{text}\n"),
    }
}

/// Hosts that marked blocks as not valid.
fn invalid_hosts(rows: &[HostRow]) -> Vec<HostNote> {
    let mut causes: Vec<((usize, &str), Vec<&HostRow>)> = Vec::new();
    for row in rows {
        let known = row.validity.flags().map(|flag| cause_and_advice(flag).0);
        for cause in known.chain(row.validity.unknown()) {
            entry(&mut causes, (row.host as usize, cause)).push(row);
        }
    }

    let note = |((host, cause), marked): ((usize, &str), Vec<&HostRow>)| {
        let blocks = marked.len();
        let all = rows.iter().filter(|row| row.host as usize == host).count();
        HostNote {
            host,
            text: format!("{cause} in {blocks} of {}.", plural(all, "block")),
        }
    };
    causes.into_iter().map(note).collect()
}

/// Load hosts that depart from the others: by sign tests over blocks, corrected over all hosts and both figures,
/// and by more than 5 %. A difference that is only resolved may be that of two network cables.
fn departing_hosts(rows: &[HostRow], hosts: usize) -> Vec<HostNote> {
    let loads: Vec<usize> = (1..hosts).collect();
    let logs = |host: usize, ratio: fn(&HostRow) -> Option<f64>| -> Vec<f64> {
        let own = rows.iter().filter(|row| row.host as usize == host);
        own.filter_map(ratio).map(f64::ln).collect()
    };
    let figures: Vec<Vec<f64>> = loads
        .iter()
        .flat_map(|&host| {
            [
                logs(host, |row| row.throughput_ratio),
                logs(host, |row| row.latency_p99_ratio),
            ]
        })
        .collect();

    let compared = compare_family(&figures, ALPHA);
    let mut notes = Vec::new();
    for (host, figures) in loads.iter().zip(compared.chunks(2)) {
        let [throughput, p99] = figures else { continue };
        // Of two hosts that differ, the worse one is named.
        let [is_slower, is_later] = [Side::Below, Side::Above];
        let is_one_of_two = loads.len() == 2;
        let words = [
            ("requests per client", throughput, is_slower),
            ("p99", p99, is_later),
        ]
        .into_iter()
        .filter_map(|(name, comparison, worse)| {
            let side = Side::of(comparison)?;
            (!is_one_of_two || side == worse).then(|| in_words(name, comparison))
        })
        .collect::<Vec<_>>();
        if !words.is_empty() {
            notes.push(HostNote {
                host: *host,
                text: format!(
                    "it departs from the other load hosts: {}.",
                    words.join("; ")
                ),
            });
        }
    }
    notes
}

/// The side of 1 on which a ratio is, by more than what matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Below,
    Above,
}

impl Side {
    fn of(comparison: &Comparison) -> Option<Self> {
        let (low, high) = comparison.low.zip(comparison.high)?;
        if low > RELEVANT {
            Some(Side::Above)
        } else if high < 1.0 / RELEVANT {
            Some(Side::Below)
        } else {
            None
        }
    }
}

fn in_words(name: &str, comparison: &Comparison) -> String {
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| fixed(value, 2));
    format!(
        "{name} {} times theirs [{}, {}]",
        number(comparison.ratio),
        number(comparison.low),
        number(comparison.high)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::environment::Environment;
    use crate::results::ValidityFlag;

    fn records(loads: usize) -> Vec<HostRecord> {
        let role = |host: usize| match host {
            0 => "server host".to_owned(),
            host => format!("load host {host}"),
        };
        let record = |host| HostRecord {
            role: role(host),
            environment: Environment::capture(),
            network_card: None,
            mtu_bytes: None,
            congestion_control: None,
            network_rtt_ns: None,
        };
        (0..=loads).map(record).collect()
    }

    /// Rows of ten blocks; each load host has these ratios of throughput and p99, give or take a percent.
    fn rows(ratios: &[(f64, f64)]) -> Vec<HostRow> {
        let mut random = fastrand::Rng::with_seed(1);
        let mut rows = Vec::new();
        for block in 1..=10 {
            for (host, (throughput, p99)) in (1..).zip(ratios) {
                let mut near = |ratio: f64| Some(ratio * (0.99 + 0.02 * random.f64()));
                rows.push(HostRow {
                    block,
                    host,
                    throughput_ratio: near(*throughput),
                    latency_p99_ratio: near(*p99),
                    ..HostRow::default()
                });
            }
        }
        rows
    }

    fn texts(rows: &[HostRow], loads: usize) -> Vec<String> {
        let notes = host_notes(rows, &records(loads)).into_iter();
        notes.map(|note| note.text).collect()
    }

    #[test]
    fn a_host_that_departs_in_every_block_is_named() {
        let notes = texts(&rows(&[(1.0, 1.0), (0.8, 1.0), (1.0, 1.0)]), 3);
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(
            notes[0].starts_with("HOST: load host 2: it departs"),
            "{notes:?}"
        );
        assert!(
            notes[0].contains("requests per client 0.80 times theirs [0."),
            "{notes:?}"
        );
    }

    #[test]
    fn of_two_hosts_the_worse_one_is_named() {
        let notes = texts(&rows(&[(1.25, 0.5), (0.8, 2.0)]), 2);
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(
            notes[0].contains("load host 2") && notes[0].contains("p99 2.0"),
            "{notes:?}"
        );
    }

    #[test]
    fn small_or_unresolved_differences_are_not_named() {
        // Resolved, but of two percent.
        assert!(texts(&rows(&[(1.02, 1.0), (0.98, 1.0)]), 2).is_empty());
        // Large, but in too few blocks.
        let few: Vec<HostRow> = rows(&[(1.25, 1.0), (0.8, 1.0)])
            .into_iter()
            .take(8)
            .collect();
        assert!(texts(&few, 2).is_empty());
        assert!(texts(&[], 2).is_empty());
    }

    #[test]
    fn equal_hosts_are_seldom_named() {
        let mut random = fastrand::Rng::with_seed(2);
        let mut named = 0;
        for _ in 0..400 {
            let mut rows = rows(&[(1.0, 1.0); 4]);
            for row in &mut rows {
                for ratio in [&mut row.throughput_ratio, &mut row.latency_p99_ratio] {
                    *ratio = Some((random.f64() - 0.5).exp());
                }
            }
            named += usize::from(!texts(&rows, 4).is_empty());
        }
        assert!(named <= 20, "{named} of 400");
    }

    #[test]
    fn disturbed_hosts_are_named_with_their_blocks() {
        let mut rows = rows(&[(1.0, 1.0), (1.0, 1.0)]);
        for row in rows.iter_mut().filter(|row| row.host == 2).take(3) {
            row.validity.insert(ValidityFlag::Disturbed);
        }
        let notes = texts(&rows, 2);
        assert_eq!(
            notes,
            ["HOST: load host 2: the machine was disturbed in 3 of 10 blocks."]
        );
    }
}
