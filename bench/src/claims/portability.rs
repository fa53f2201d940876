//! What is left where a system has no fork: C12.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use anyhow::Context;
use echobench_clients::{Driver, ErrorKind};
use echobench_servers::MODELS;
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

use super::evidence::{Evidence, shown};
use super::lab::{self, Lab};
use crate::processes::start::Server;

/// C12.
pub(super) fn without_fork(lab: &Lab) -> anyhow::Result<Evidence> {
    let mut evidence = Evidence::default();
    let requests = lab.pick(400, 4000);
    for model in MODELS {
        let server = serve_without_fork(model.name)?;
        let plan = lab::churn(server.address(), Driver::Threads, 8, requests);
        let total = lab::attempted(&plan)?.total();
        // It fails if the server is gone.
        let said = server.stop()?;
        let share = |count: u64| count as f64 / total.planned as f64;
        shown(evidence.exact("answered_share", &model.name, share(total.answered)));
        if model.name == "fork" {
            let refused = share(total.errors.count(ErrorKind::ProtocolError));
            shown(evidence.exact("told_so_share", &model.name, refused));
            let says_why = said.contains("cannot fork for a connection");
            evidence.exact(
                "errors_that_say_why",
                &model.name,
                f64::from(u8::from(says_why)),
            );
        }
    }
    Ok(evidence)
}

/// A server to which the kernel says that there is no such call as fork.
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

/// Refuses every call that starts a process, as unknown, and no call that starts a thread.
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
