//! Workers that accept for themselves, in every way in which they can.

use crate::common::{Server, echo};
use echobench_servers::MODELS;

const WORKERS: &str = "8";

/// Models whose workers accept, with each way.
fn ways() -> Vec<Vec<&'static str>> {
    let accepting = MODELS.iter().flat_map(|model| {
        let ways = model.accept.iter();
        ways.map(|way| vec![model.name, "--workers", WORKERS, "--accept", way.name()])
    });
    let per_core = vec!["async", "--workers", WORKERS, "--runtime", "per-core"];
    accepting.chain([per_core]).collect()
}

#[test]
fn the_counts_of_the_workers_add_up() {
    for arguments in ways() {
        println!("{}", arguments.join(" "));
        let server = Server::start(&arguments);
        for sequence in 0..40 {
            server.connect().exchange(&echo(sequence));
        }

        let ended = server.stop();
        assert_eq!(ended.counters.get("requests"), 40);
        assert_eq!(ended.counters.get("accepted"), 40);
        assert_eq!(ended.counters.get("workers"), 40);
        assert_eq!(ended.counters.get("active"), 0);
        assert_eq!(ended.counters.get("waiting"), 0);
    }
}
