//! The textbook's claims: for each an experiment, and a rule, fixed beforehand, that turns what was
//! measured into a verdict.
//!
//! A rule sees nothing but [`Evidence`] and decides on ratios, shares and counts, never on times.
//! Its margins are far from the effects they tell apart, so that another run comes to the same
//! verdicts; what lies between them is inconclusive.

mod evidence;
mod ipc;
mod lab;
mod memory;
pub(crate) mod page;
mod portability;
pub mod roll_call;
mod rules;
mod serving;
mod signals;
mod spawn;
pub mod table;

pub use crate::results::ClaimVerdict;
use anyhow::bail;
pub use evidence::{Evidence, Figure};
pub use lab::Lab;

/// What a rule says about the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// The verdict.
    pub verdict: ClaimVerdict,
    /// Under which condition it holds, what has to be known beside it, or why nothing is decided.
    pub condition: String,
}

/// One entry of the ledger.
pub struct Claim {
    /// C1 to C13.
    pub id: &'static str,
    /// The claim, in our words.
    pub claim: &'static str,
    /// Where it is made.
    pub source: &'static str,
    /// What is measured.
    pub metric: &'static str,
    /// The rule, fixed before anything was measured.
    pub rule: &'static str,
    /// Measures. To be called on the main thread: processes live as long as the thread that starts
    /// them.
    pub experiment: fn(&Lab) -> anyhow::Result<Evidence>,
    /// The rule as code.
    pub decide: fn(&Evidence) -> Ruling,
}

const CHAPTER_5: &str = "Programming Python, 4th ed., ch. 5";
const CHAPTER_12: &str = "Programming Python, 4th ed., ch. 12";
const CHAPTERS: &str = "Programming Python, 4th ed., ch. 5 and 12";
const TUTORIAL: &str = "a web tutorial on a socket time server and client";

/// The ledger, in the order of every list and table.
pub const CLAIMS: &[Claim] = &[
    Claim {
        id: "C1",
        claim: "threads are cheaper to start than processes",
        source: CHAPTERS,
        metric: "start and end of a thread, of a forked process and of a new program, on one CPU, over the resident \
                 memory of the one that starts them; connections per second of fork and thread, each \
                 with a new connection for every request",
        rule: "holds if fork and spawn take at least 1.5 times a thread at every size (those measured \
               once are shown, not judged); only when, if at some sizes; does not hold if at none; \
               what it means for a server is shown, not judged",
        experiment: spawn::cheaper_to_start,
        decide: rules::cheaper_to_start,
    },
    Claim {
        id: "C2",
        claim: "threads share one memory; a fork's children get descriptors and a copy",
        source: CHAPTERS,
        metric: "memory per idle connection (anonymous PSS, kernel stacks, page tables), over connections; \
                 open descriptors that a forked child has from its parent",
        rule: "holds if a connection takes at least 1.5 times the memory with fork as with thread, and a \
               child has descriptors of its parent; does not hold if neither",
        experiment: memory::shared_or_copied,
        decide: rules::shared_or_copied,
    },
    Claim {
        id: "C3",
        claim: "threads end without a trace; processes leave zombies to be collected",
        source: CHAPTERS,
        metric: "zombies after thousands of connections: of thread, of fork, and of fork with its reaper \
                 switched off",
        rule: "holds if thread leaves none, fork none with its reaper, and one for at least 99 % of the \
               connections without",
        experiment: memory::zombies,
        decide: rules::zombies,
    },
    Claim {
        id: "C4",
        claim: "a server that handles one client at a time makes the others wait; threads and processes do not",
        source: CHAPTER_12,
        metric: "time until 5 clients have their replies, with a handler that blocks for 40 ms, over that \
                 of a thread for each",
        rule: "holds if the iterative server takes at least 2.5 times as long as each of the others, and a \
               pool of 2 workers at most 1.25 times as long as a thread for each; only when, if that \
               pool takes at least 1.5 times as long",
        experiment: serving::makes_others_wait,
        decide: rules::makes_others_wait,
    },
    Claim {
        id: "C5",
        claim: "a backlog of 5 lets up to 5 clients wait",
        source: CHAPTERS,
        metric: "of a burst of connects to a busy server: those that are connected at once, those that \
                 were dropped and tried again (more than 0.9 s), those refused; over backlog and burst",
        rule: "holds if every burst larger than the backlog of 5 has 5 or 6 connected while the server is \
               busy (Linux takes one more than the backlog), and a burst of 5 has 5; does not hold \
               if it is other numbers",
        experiment: serving::backlog,
        decide: rules::backlog,
    },
    Claim {
        id: "C6",
        claim: "the order in which parallel clients are served is random",
        source: CHAPTER_5,
        metric: "5 clients started one after another: share of runs in which they are served in another \
                 order, and rank correlation (Kendall's tau) of the two orders; threads and processes",
        rule: "holds if at least 5 % of runs are out of order and tau is below 0.1, for both; only when \
               random means not fixed, if tau is above; does not hold if under 1 % are out of order",
        experiment: serving::random_order,
        decide: rules::random_order,
    },
    Claim {
        id: "C7",
        claim: "a socket server serves threads and processes alike",
        source: CHAPTERS,
        metric: "throughput and median latency of process clients over those of thread clients, in turns \
                 on the same server, 8 of each; failed requests",
        rule: "holds if nothing fails and every ratio lies between 2/3 and 3/2; does not hold if \
               something fails or a ratio lies outside",
        experiment: serving::alike,
        decide: rules::alike,
    },
    Claim {
        id: "C8",
        claim: "between threads, queues do; between processes, sockets; fifos and sockets serve both",
        source: CHAPTER_5,
        metric: "round-trip time of channel, mpsc, pipe, fifo, Unix stream and TCP, on one CPU, between threads and \
                 between processes",
        rule: "holds if no queue takes more than 1.5 times as long as TCP between threads, and fifo, Unix \
               stream and TCP work in both places; does not hold if a queue takes longer, or one of \
               them does not work",
        experiment: ipc::ladder,
        decide: rules::ladder,
    },
    Claim {
        id: "C9",
        claim: "send may take only part of the data; the application must send the rest",
        source: TUTORIAL,
        metric: "share of send calls that take less than they are offered, of 1 MiB through a buffer of \
                 4 KiB: on a blocking socket, on one interrupted by signals, on a non-blocking one; \
                 bytes lost when the rest is sent",
        rule: "holds if short sends occur in every way and no byte is lost; only when, if not in every \
               way; does not hold if in none, or if bytes are lost",
        experiment: ipc::short_sends,
        decide: rules::short_sends,
    },
    Claim {
        id: "C10",
        claim: "pausing for a signal leaves the CPU alone; a busy loop squanders it",
        source: CHAPTER_5,
        metric: "CPU time over waiting time, and time to wake up, of a wait for a signal, of sleeping 1 ms \
                 between looks, and of looking all the time",
        rule: "holds if the busy loop uses at least 10 times the CPU time of the wait for a signal; does \
               not hold below 2 times",
        experiment: signals::pausing,
        decide: rules::pausing,
    },
    Claim {
        id: "C11",
        claim: "some system calls do not react well to signals",
        source: CHAPTER_5,
        metric: "share of calls that a signal breaks off, with and without restart; wrong, failed or lost \
                 replies of every model while every thread of server and clients gets 1,000 signals a \
                 second, and throughput over that without",
        rule: "holds if signals break calls off and replies are lost; only when a program does not try \
               again, if calls are broken off and no reply is lost; does not hold if none is broken off",
        experiment: signals::storm,
        decide: rules::storm,
    },
    Claim {
        id: "C12",
        claim: "threads are more portable than fork",
        source: CHAPTER_5,
        metric: "requests answered by each model where the kernel refuses to fork (a seccomp filter), and \
                 whether serve fork says so and lives on",
        rule: "holds if every model but fork answers everything, and fork refuses every client, says why \
               and lives on; does not hold if another model fails too",
        experiment: portability::without_fork,
        decide: rules::without_fork,
    },
    Claim {
        id: "C13",
        claim: "several clients at once, served by threads, finish no later than by processes",
        source: CHAPTER_12,
        metric: "time until many jobs are done, a connection for each and 8 at a time: fork over thread, \
                 over the CPU time of a job",
        rule: "holds if no length has fork resolved below 0.8 times thread, and every interval lies above \
               that; does not hold if some length lies below; the crossover is the shortest length \
               from which on the interval reaches 1.1 or less",
        experiment: spawn::short_jobs,
        decide: rules::short_jobs,
    },
];

/// The entries with these ids, in the order of the ledger; all of them for no ids.
///
/// Fails when there is no such entry, or one is named twice.
pub fn find(ids: &[String]) -> anyhow::Result<Vec<&'static Claim>> {
    for (index, id) in ids.iter().enumerate() {
        if !CLAIMS.iter().any(|claim| claim.id.eq_ignore_ascii_case(id)) {
            let known: Vec<_> = CLAIMS.iter().map(|claim| claim.id).collect();
            bail!("unknown claim '{id}' ({})", known.join(", "));
        }
        if ids[..index]
            .iter()
            .any(|other| other.eq_ignore_ascii_case(id))
        {
            bail!("claim '{id}' is named twice");
        }
    }
    let wanted =
        |claim: &&Claim| ids.is_empty() || ids.iter().any(|id| id.eq_ignore_ascii_case(claim.id));
    Ok(CLAIMS.iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_is_numbered_through() {
        for (number, claim) in (1..).zip(CLAIMS) {
            assert_eq!(claim.id, format!("C{number}"));
        }
        assert_eq!(CLAIMS.len(), 13);
    }

    #[test]
    fn claims_are_found_by_id() {
        let ids = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        let found = find(&ids("c9 C3")).unwrap();
        assert_eq!(
            found.iter().map(|claim| claim.id).collect::<Vec<_>>(),
            ["C3", "C9"]
        );
        assert_eq!(find(&[]).unwrap().len(), CLAIMS.len());
        let unknown = find(&ids("C3 C14")).err().unwrap().to_string();
        assert!(
            unknown.starts_with("unknown claim 'C14' (C1, C2, "),
            "{unknown}"
        );
        let twice = find(&ids("C3 c3")).err().unwrap().to_string();
        assert_eq!(twice, "claim 'c3' is named twice");
    }
}
