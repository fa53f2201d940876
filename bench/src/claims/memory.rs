//! Memory and zombies that connections leave in a server: C2 and C3.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use echobench_clients::{Driver, raise_file_limit};
use echobench_protocol::Work;

use super::evidence::Evidence;
use super::lab::{self, Lab};
use super::rule::{Compared, MARGIN, does_not_hold, holds, holds_only_when, inconclusive, places};
use super::{CHAPTERS, Claim, Ruling};
use crate::host::process_tree;
use crate::processes::start::Server;
use crate::results::summary::REFERENCE;

pub(super) const C2: Claim = Claim {
    id: "C2",
    claim: "threads share memory; a fork's children inherit descriptors and a copy of the memory",
    source: CHAPTERS,
    metric: "memory per idle connection (anonymous PSS, kernel stacks, page tables), over connections; \
             open descriptors that a forked child has from its parent",
    rule: "holds if a connection takes at least 1.5 times the memory with fork as with thread, and a \
           child has descriptors of its parent; does not hold if neither",
    experiment: measure_memory,
    figures: &[
        (
            "fork_over_thread_ratio",
            &["100 connections", "1000 connections"],
        ),
        ("inherited_descriptors", &["fork"]),
    ],
    decide: decide_memory,
};

fn measure_memory(lab: &Lab) -> anyhow::Result<Evidence> {
    let mut evidence = Evidence::default();
    let sizes: &[(u32, usize)] =
        lab.pick(&[(100, 8), (1000, 1)], &[(100, 12), (1000, 8), (10_000, 1)]);
    // Sizes measured once are shown, not judged.
    let judged = sizes.iter().filter(|(_, blocks)| *blocks > 1).count();
    let (largest, _) = sizes[sizes.len() - 1];
    raise_file_limit(largest)?;

    for &(connections, blocks) in sizes {
        let pool = format!("pool --workers {connections}");
        let arms = [REFERENCE, "fork", &pool, "async"];
        let values = lab.blocks(&arms, blocks, |arm| connection_bytes(arm, connections))?;
        let at = format!("{connections} connections");

        for (arm, values) in arms.iter().zip(&values) {
            let model = arm.split(' ').next().unwrap_or(arm);
            let metric = format!("{model}_connection_bytes");
            let figure = evidence.median(&metric, &at, values, judged);
            figure.headline = connections == largest;
        }
        let bytes = (&values[1][..], &values[0][..]);
        let ratio = evidence.ratio("fork_over_thread_ratio", &at, bytes, judged);
        ratio.mark_headline();
    }

    let inherited = inherited_descriptors()? as f64;
    let figure = evidence.exact("inherited_descriptors", "fork", inherited);
    figure.mark_headline();
    Ok(evidence)
}

/// Memory per idle connection that has been served before: the growth of the server's memory, in
/// the kernel as well, without sockets, which are the same for all models.
fn connection_bytes(arguments: &str, connections: u32) -> anyhow::Result<f64> {
    let server = lab::serve(arguments)?;
    let before = server_bytes(&server)?;

    let mut open = Vec::new();
    for number in 0..connections {
        let mut stream = TcpStream::connect(server.address())
            .with_context(|| format!("connection {number} of {connections} failed"))?;
        // A thread touches its stack and buffers only when it serves.
        lab::exchange(&mut stream, Work::None)?;
        open.push(stream);
    }
    let with = server_bytes(&server)?;

    drop(open);
    server.stop()?;
    Ok((with - before) / f64::from(connections))
}

/// Anonymous memory, page tables and kernel stacks of a server.
fn server_bytes(server: &Server) -> anyhow::Result<f64> {
    let memory = process_tree::memory(server.id()).context("cannot read the memory of a server")?;
    let anonymous = memory
        .pss_anon_bytes
        .context("this kernel does not report anonymous memory")?;
    Ok((anonymous + memory.page_table_bytes + memory.kernel_stack_bytes()) as f64)
}

/// Number of open files that a child of `serve fork` shares with its parent, after it has closed
/// those that it does not need.
fn inherited_descriptors() -> anyhow::Result<usize> {
    let server = lab::serve("fork")?;
    let mut connection = TcpStream::connect(server.address())?;
    // A child replies only after it has closed its spare descriptors.
    lab::exchange(&mut connection, Work::None)?;

    let children = children(&server)?;
    let child = *children.first().context("fork has no child")?;
    let of_parent = open_files(server.id())?;
    let shared = open_files(child)?
        .into_iter()
        .filter(|file| of_parent.contains(file))
        .count();

    server.stop()?;
    Ok(shared)
}

/// Open files of a process: number and target.
fn open_files(pid: u32) -> anyhow::Result<Vec<(PathBuf, PathBuf)>> {
    let folder = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))?;
    let file = |entry: fs::DirEntry| {
        let path = entry.path();
        let target = fs::read_link(&path).ok()?;
        Some((PathBuf::from(path.file_name()?), target))
    };
    Ok(entries.map_while(Result::ok).filter_map(file).collect())
}

fn decide_memory(evidence: &Evidence) -> Ruling {
    let ratios = evidence
        .all("fork_over_thread_ratio")
        .filter(|figure| figure.n > 1);
    let ratios = Compared::with(MARGIN, ratios);
    let inherits = evidence
        .sum("inherited_descriptors")
        .map(|count| count >= 1.0);

    match inherits {
        Some(true) if ratios.all_above() => holds(
            "pages that are not written to stay shared: a child costs a part of its parent, not all of it",
        ),
        Some(false) if ratios.all_below() => does_not_hold("neither memory nor descriptors"),
        Some(true) if ratios.all_below() => {
            holds_only_when("it is about descriptors, not about memory")
        }
        Some(false) if ratios.all_above() => {
            holds_only_when("it is about memory, not about descriptors")
        }
        _ => inconclusive(format!(
            "memory not resolved at {}",
            places(&ratios.unresolved)
        )),
    }
}

pub(super) const C3: Claim = Claim {
    id: "C3",
    claim: "threads leave nothing behind; processes leave zombies that have to be reaped",
    source: CHAPTERS,
    metric: "zombies after thousands of connections: of thread, of fork, and of fork with its reaper \
             switched off",
    rule: "holds if thread leaves none, fork leaves none with its reaper, and without it a zombie for \
           at least 99 % of the connections",
    experiment: measure_zombies,
    figures: &[
        ("zombies", &["thread", "fork", "fork without reaper"]),
        ("connections", &[""]),
    ],
    decide: decide_zombies,
};

/// Time limit for reaping the children that have ended.
const REAP_LIMIT: Duration = Duration::from_secs(2);

fn measure_zombies(lab: &Lab) -> anyhow::Result<Evidence> {
    let mut evidence = Evidence::default();
    let connections: u32 = lab.pick(1000, 10_000);
    evidence.exact("connections", "", f64::from(connections));

    for (arguments, at) in [
        (REFERENCE, "thread"),
        ("fork", "fork"),
        ("fork --no-reap", "fork without reaper"),
    ] {
        let server = lab::serve(arguments)?;
        let target = server.address();
        let plan = lab::churn(target, Driver::Threads, 16, u64::from(connections));
        lab::run_answered(&plan)?;

        let left = zombies_left(&server, connections)?;
        server.stop()?;
        evidence.exact("zombies", at, left as f64).mark_headline();
    }
    Ok(evidence)
}

/// Zombies of a server once no child is alive, and either none or `most` of them are left.
fn zombies_left(server: &Server, most: u32) -> anyhow::Result<usize> {
    let deadline = Instant::now() + REAP_LIMIT;
    loop {
        let children = children(server)?;
        let zombies = children.iter().filter(|&&child| is_zombie(child)).count();
        // The last children may still be exiting, or the reaper may not have run yet.
        let settled = zombies == children.len() && (zombies == 0 || zombies == most as usize);
        if settled || Instant::now() > deadline {
            return Ok(zombies);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before the state is in brackets and may hold any characters, brackets too.
    stat.rsplit_once(") ")
        .is_some_and(|(_, fields)| fields.starts_with('Z'))
}

/// Children of a server's first thread, zombies included.
fn children(server: &Server) -> anyhow::Result<Vec<u32>> {
    let pid = server.id();
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .context("cannot list the children of a server")?;
    Ok(list
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect())
}

fn decide_zombies(evidence: &Evidence) -> Ruling {
    let left = |at| evidence.value("zombies", at);
    let values = (
        left("thread"),
        left("fork"),
        left("fork without reaper"),
        evidence.value("connections", ""),
    );
    let (Some(thread), Some(fork), Some(without), Some(connections)) = values else {
        return inconclusive("zombies were not counted");
    };

    if thread > 0.0 {
        does_not_hold(format!("thread left {thread} zombies"))
    } else if without < 0.99 * connections {
        does_not_hold(format!(
            "{without} zombies after {connections} connections without a reaper"
        ))
    } else if fork > 0.0 {
        does_not_hold(format!("{fork} zombies in spite of the reaper"))
    } else {
        holds(format!("with a reaper none are left of {connections}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::ClaimVerdict;
    use crate::claims::rule::made_up::{counts, narrow, with_counts};

    #[test]
    fn c2_asks_for_a_copy_and_for_descriptors() {
        let judge = |ratio: f64, inherited: f64| {
            let figures = narrow(&[("fork_over_thread_ratio", "100 connections", ratio)]);
            decide_memory(&with_counts(
                figures,
                &[("inherited_descriptors", "fork", inherited)],
            ))
            .verdict
        };

        assert_eq!(judge(4.0, 4.0), ClaimVerdict::Holds);
        assert_eq!(judge(1.0, 4.0), ClaimVerdict::HoldsOnlyWhen);
        assert_eq!(judge(4.0, 0.0), ClaimVerdict::HoldsOnlyWhen);
        assert_eq!(judge(1.0, 0.0), ClaimVerdict::DoesNotHold);
    }

    #[test]
    fn c3_counts_zombies() {
        let judge = |thread: f64, fork: f64, without: f64| {
            let counts = counts(&[
                ("connections", "", 1000.0),
                ("zombies", "thread", thread),
                ("zombies", "fork", fork),
                ("zombies", "fork without reaper", without),
            ]);
            decide_zombies(&counts).verdict
        };

        assert_eq!(judge(0.0, 0.0, 1000.0), ClaimVerdict::Holds);
        assert_eq!(judge(0.0, 1.0, 1000.0), ClaimVerdict::DoesNotHold);
        assert_eq!(judge(0.0, 0.0, 900.0), ClaimVerdict::DoesNotHold);
        assert_eq!(judge(2.0, 0.0, 1000.0), ClaimVerdict::DoesNotHold);
    }
}
