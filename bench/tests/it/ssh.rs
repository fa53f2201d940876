//! Runs on hosts of a network that are reached by ssh, and what becomes of them when a session or a link is cut.

use std::thread;
use std::time::Duration;

use crate::common::place::Place;
use crate::common::rig::Rig;
use crate::common::{HANG, Running, eventually, finish};
use crate::hosts::{SCENARIO, assert_counts_agree, one_block_is_kept};
use nix::sys::signal::{Signal, kill};

/// Longest time from the end of a link until an agent behind it ends: that of its lease, for which see `Hosts::lease`.
const LEASE: Duration = Duration::from_secs(60);

/// A whole run on the hosts of a rig.
pub(crate) fn counts_agree_and_nothing_is_left(rig: &Rig) {
    let place = Place::with(SCENARIO);
    let finished = finish(rig.run(&place, &[]));

    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_counts_agree(&place, 6);
    rig.is_left_within(HANG);
}

#[test]
fn counts_agree_over_ssh_with_clocks_apart() {
    if let Some(rig) = Rig::with_ssh() {
        counts_agree_and_nothing_is_left(&rig);
    }
}

#[test]
fn a_session_of_ssh_that_is_killed_ends_the_run() {
    let Some(rig) = Rig::with_ssh() else { return };
    let place = Place::with(SCENARIO);
    let running = Running::start(rig.run(&place, &["--blocks", "60"]));
    one_block_is_kept(&place);

    let sessions = rig.processes("h3").into_iter();
    for (pid, _) in sessions.filter(|(_, words)| words.starts_with("sshd: ")) {
        let _ = kill(pid, Signal::SIGKILL);
    }
    let finished = running.end();
    assert_eq!(finished.code, Some(1), "{finished:?}");
    for words in ["load host 2", "h3", "--resume"] {
        assert!(finished.stderr.contains(words), "{words}: {finished:?}");
    }
    assert!(place.rows("blocks.csv").len().is_multiple_of(2));
    rig.is_left_within(HANG);
}

/// A run whose link to a host is cut while a block is measured ends with the name of the host, and finished blocks are kept.
/// Returns its hosts: the agent behind the link ends with its lease, for nothing tells it that the run is gone.
fn a_cut_link_ends_the_run(host: &str, role: &str) -> Option<Rig> {
    let rig = Rig::with_ssh()?;
    // Slices of two seconds in all.
    let place = Place::with(&SCENARIO.replace("rounds = 6", "rounds = 30"));
    let running = Running::start(rig.run(&place, &["--blocks", "60"]));
    one_block_is_kept(&place);
    let kept = place.rows("blocks.csv").len();

    // The next block is under way once its clients are there, and lasts for two seconds from then on.
    let clients = || {
        let mut all = rig.own_processes("h3");
        all.retain(|(_, words)| words.contains("echobench drive"));
        all.len() == 2
    };
    eventually(|| (!clients()).then_some(()), || "a block without an end");
    eventually(|| clients().then_some(()), || "no further block");
    thread::sleep(Duration::from_millis(700));
    rig.cut(host);

    let finished = running.end();
    println!("{}", finished.stderr);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let named = format!("{role} (ssh -F ");
    for words in [&named[..], &format!("config {host}): "), "--resume"] {
        assert!(finished.stderr.contains(words), "{words}: {finished:?}");
    }
    let rows = place.rows("blocks.csv");
    assert!(rows.len() >= kept && rows.len().is_multiple_of(2));
    assert!(rows.iter().all(|row| row["status"] == "ok"));
    assert!(place.status().contains(role), "{}", place.status());

    Some(rig)
}

/// A load host, and the host of the servers. The leases of both run out side by side.
#[test]
fn a_cut_link_ends_the_run_and_what_runs_behind_it() {
    let Some(load) = a_cut_link_ends_the_run("h3", "load host 2") else {
        return;
    };
    let servers = a_cut_link_ends_the_run("h1", "server host").expect("hosts as before");

    load.is_left_within(LEASE + HANG);
    servers.is_left_within(LEASE + HANG);
}
