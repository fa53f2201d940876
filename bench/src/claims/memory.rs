//! What connections leave in memory and in the table of processes: C2 and C3.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use echobench_clients::{Driver, raise_file_limit};
use echobench_protocol::Work;

use super::evidence::{Evidence, shown};
use super::lab::{self, Lab};
use crate::host::process_tree;
use crate::processes::start::Server;
use crate::results::summary::REFERENCE;

/// How long children that have ended may take to be collected.
const SETTLE: Duration = Duration::from_secs(2);

/// What a thread's stack takes in the kernel, on the architectures this runs on.
const KERNEL_STACK_BYTES: u64 = 16 * 1024;

/// C2.
pub(super) fn shared_or_copied(lab: &Lab) -> anyhow::Result<Evidence> {
    let mut evidence = Evidence::default();
    let sizes: &[(u32, usize)] =
        lab.pick(&[(100, 8), (1000, 1)], &[(100, 12), (1000, 8), (10_000, 1)]);
    // Those taken once are not judged.
    let judged = sizes.iter().filter(|(_, blocks)| *blocks > 1).count();
    let (largest, _) = sizes[sizes.len() - 1];
    raise_file_limit(largest)?;
    for &(connections, blocks) in sizes {
        let pool = format!("pool --workers {connections}");
        let arms = [REFERENCE, "fork", &pool, "async"];
        let values = lab.blocks(&arms, blocks, |arm| bytes(arm, connections))?;
        let at = format!("{connections} connections");
        for (model, values) in ["thread", "fork", "pool", "async"].iter().zip(&values) {
            let metric = format!("{model}_connection_bytes");
            let figure = evidence.median(&metric, &&at, values, judged);
            figure.headline = connections == largest;
        }
        let ratio = (&values[1][..], &values[0][..]);
        shown(evidence.ratio("fork_over_thread_ratio", &&at, ratio, judged));
    }
    shown(evidence.exact("inherited_descriptors", &"fork", inherited()? as f64));
    Ok(evidence)
}

/// The bill of one idle connection that has been served before: what the server's memory grows by, in
/// the kernel as well, but for the sockets, which are the same for all.
fn bytes(words: &str, connections: u32) -> anyhow::Result<f64> {
    let server = lab::serve(words)?;
    let before = bill(&server)?;
    let mut open = Vec::new();
    for number in 0..connections {
        let mut stream = TcpStream::connect(server.address())
            .with_context(|| format!("connection {number} of {connections} failed"))?;
        lab::exchange(&mut stream, Work::None)?;
        open.push(stream);
    }
    let with = bill(&server)?;
    drop(open);
    server.stop()?;
    Ok((with - before) / f64::from(connections))
}

/// Anonymous memory, page tables and kernel stacks of a server.
fn bill(server: &Server) -> anyhow::Result<f64> {
    let memory = process_tree::memory(server.id()).context("cannot read the memory of a server")?;
    let anonymous = memory
        .pss_anon_bytes
        .context("this kernel does not tell anonymous memory")?;
    Ok((anonymous + memory.page_table_bytes + memory.threads * KERNEL_STACK_BYTES) as f64)
}

/// How many of its open files a child of `serve fork` shares with its parent, after it has closed
/// what it does not need.
fn inherited() -> anyhow::Result<usize> {
    let server = lab::serve("fork")?;
    let mut connection = TcpStream::connect(server.address())?;
    // By its reply it has closed what it does not need.
    lab::exchange(&mut connection, Work::None)?;
    let children = children(&server)?;
    let child = *children.first().context("fork has no child")?;
    let parents = files(server.id())?;
    let shared = files(child)?
        .into_iter()
        .filter(|file| parents.contains(file))
        .count();
    server.stop()?;
    Ok(shared)
}

/// The open files of a process, by number and by what they are.
fn files(pid: u32) -> anyhow::Result<Vec<(PathBuf, PathBuf)>> {
    let folder = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))?;
    let file = |entry: fs::DirEntry| {
        let path = entry.path();
        let target = fs::read_link(&path).ok()?;
        Some((PathBuf::from(path.file_name()?), target))
    };
    Ok(entries.map_while(Result::ok).filter_map(file).collect())
}

/// C3.
pub(super) fn zombies(lab: &Lab) -> anyhow::Result<Evidence> {
    let mut evidence = Evidence::default();
    let connections: u32 = lab.pick(1000, 10_000);
    evidence.exact("connections", &"", f64::from(connections));
    for (words, at) in [
        (REFERENCE, "thread"),
        ("fork", "fork"),
        ("fork --no-reap", "fork without reaper"),
    ] {
        let server = lab::serve(words)?;
        let plan = lab::churn(
            server.address(),
            Driver::Threads,
            16,
            u64::from(connections),
        );
        lab::answered(&plan)?;
        let left = settled(&server, connections)?;
        server.stop()?;
        shown(evidence.exact("zombies", &at, left as f64));
    }
    Ok(evidence)
}

/// The zombies of a server once no child is alive any more, and no more are to come.
fn settled(server: &Server, most: u32) -> anyhow::Result<usize> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let children = children(server)?;
        let zombies = children.iter().filter(|&&child| is_zombie(child)).count();
        let over = zombies == children.len() && (zombies == 0 || zombies == most as usize);
        if over || Instant::now() > deadline {
            return Ok(zombies);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, fields)| fields.starts_with('Z'))
}

/// The children of a server, zombies included, all of its first thread.
fn children(server: &Server) -> anyhow::Result<Vec<u32>> {
    let pid = server.id();
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .context("cannot list the children of a server")?;
    Ok(list
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect())
}
