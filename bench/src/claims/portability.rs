//! Models where the system has no fork: C12.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use anyhow::Context;
use echobench_clients::{Driver, ErrorKind};
use echobench_servers::textbook_models;
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

use super::evidence::{Evidence, Figure};
use super::lab::{self, Lab};
use super::rule::{does_not_hold, holds, inconclusive, places};
use super::{CHAPTER_5, Claim, Ruling};
use crate::processes::start::Server;

pub(super) const C12: Claim = Claim {
    id: "C12",
    claim: "threads are more portable than fork",
    source: CHAPTER_5,
    metric: "requests answered by each model where the kernel refuses to fork (a seccomp filter), and \
             whether serve fork reports that and keeps running",
    rule: "holds if every model but fork answers everything, and fork refuses every client, reports why \
           and keeps running; does not hold if another model fails too",
    experiment: measure_without_fork,
    figures: &[
        (
            "answered_share",
            &["thread", "fork", "pool", "async", "iterative"],
        ),
        ("told_so_share", &[FORK]),
        ("errors_that_say_why", &[FORK]),
    ],
    decide: decide_without_fork,
};

/// The model that the textbook compares with threads.
const FORK: &str = "fork";

fn measure_without_fork(lab: &Lab) -> anyhow::Result<Evidence> {
    let mut evidence = Evidence::default();
    let requests = lab.pick(400, 4000);

    for model in textbook_models() {
        let server = serve_without_fork(model.name)?;
        let plan = lab::churn(server.address(), Driver::Threads, 8, requests);
        let total = lab::run(&plan)?.total();
        // Fails if the server has ended.
        let errors = server.stop()?;

        let share = |count: u64| count as f64 / total.planned as f64;
        let figure = evidence.exact("answered_share", model.name, share(total.answered));
        figure.mark_headline();

        if model.family.forks() {
            let refused = share(total.errors.count(ErrorKind::Overloaded));
            let figure = evidence.exact("told_so_share", model.name, refused);
            figure.mark_headline();

            let says_why = f64::from(u8::from(errors.contains("cannot fork for a connection")));
            evidence.exact("errors_that_say_why", model.name, says_why);
        }
    }
    Ok(evidence)
}

/// Starts a server for which the kernel has no fork.
fn serve_without_fork(model: &str) -> anyhow::Result<Server> {
    let filter = no_fork().context("cannot make a filter that refuses to fork")?;

    Server::start(&["serve", model], |command| {
        command.stderr(Stdio::piped());
        let refuse = move || apply_filter(&filter).map_err(std::io::Error::other);
        #[expect(
            unsafe_code,
            reason = "code between fork and exec must be async-signal-safe"
        )]
        // SAFETY: the closure makes two system calls; it allocates only if they fail, in a process
        // of one thread whose parent then gives up.
        unsafe {
            command.pre_exec(refuse)
        };
        Ok(())
    })
}

/// Filter that refuses every call that starts a process, as unknown, and none that starts a thread.
fn no_fork() -> anyhow::Result<BpfProgram> {
    let thread = u64::try_from(libc::CLONE_THREAD)?;
    let is_no_thread = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Qword,
        SeccompCmpOp::MaskedEq(thread),
        0,
    )?;
    let mut rules = BTreeMap::from([
        (libc::SYS_clone, vec![SeccompRule::new(vec![is_no_thread])?]),
        // Its flags are in memory, out of reach of a filter; libraries then fall back to `clone`.
        (libc::SYS_clone3, Vec::new()),
    ]);
    // Newer architectures have only `clone`.
    #[cfg(target_arch = "x86_64")]
    rules.extend([(libc::SYS_fork, Vec::new()), (libc::SYS_vfork, Vec::new())]);

    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.cast_unsigned()),
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?;
    Ok(filter.try_into()?)
}

fn decide_without_fork(evidence: &Evidence) -> Ruling {
    let (answered, told, says_why) = ("answered_share", "told_so_share", "errors_that_say_why");
    let is_measured = |metric: &&str| evidence.value(metric, FORK).is_some();
    if ![answered, told, says_why].iter().all(is_measured) {
        return inconclusive("fork was not measured");
    }
    // Only models that fork have this figure.
    let forking: Vec<&str> = evidence
        .all(told)
        .map(|figure| figure.at.as_str())
        .collect();
    let any_forking = |metric: &str, is: fn(f64) -> bool| {
        let mut values = forking.iter().map(|at| evidence.value(metric, at));
        values.any(|value| value.is_none_or(is))
    };
    let failed: Vec<&Figure> = evidence
        .all(answered)
        .filter(|figure| !forking.contains(&figure.at.as_str()) && figure.value != Some(1.0))
        .collect();

    if !failed.is_empty() {
        does_not_hold(format!("{} failed without fork as well", places(&failed)))
    } else if any_forking(answered, |share| share > 0.0) {
        inconclusive("fork was not refused")
    } else if any_forking(told, |share| share < 1.0) || any_forking(says_why, |said| said < 1.0) {
        inconclusive("serve fork does not tell every client, or does not say why")
    } else {
        holds("measured on Linux with fork refused by the kernel; other systems were not measured")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::ClaimVerdict;
    use crate::claims::rule::made_up::counts;

    #[test]
    fn c12_asks_who_serves_without_fork() {
        let judge = |thread: f64, fork: f64, told: f64| {
            let counts = counts(&[
                ("answered_share", "thread", thread),
                ("answered_share", "fork", fork),
                ("told_so_share", "fork", told),
                ("errors_that_say_why", "fork", 1.0),
            ]);
            decide_without_fork(&counts).verdict
        };

        assert_eq!(judge(1.0, 0.0, 1.0), ClaimVerdict::Holds);
        assert_eq!(judge(0.9, 0.0, 1.0), ClaimVerdict::DoesNotHold);
        assert_eq!(judge(1.0, 1.0, 0.0), ClaimVerdict::Inconclusive);
        assert_eq!(judge(1.0, 0.0, 0.5), ClaimVerdict::Inconclusive);
    }
}
