//! The state machine, driven by a clock that jumps and a scripted server.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use echobench_protocol::{HEADER_LEN, Header, Limits, Reason, Work, error_frame};

use super::Action::{Close, Connect, Done, Exchange};
use super::*;
use crate::failure::ErrorKind;
use crate::plan::{Arrivals, RequestKind, Spacing, Workload};
use crate::report::WindowReport;

const MS: u64 = 1_000_000;
/// Start of the windows: the monotonic clock never shows 0.
const START: u64 = 1_000 * MS;

fn window(start: u64, measure: u64, end: u64) -> Window {
    Window {
        start_ns: start * MS,
        measure_ns: measure * MS,
        end_ns: end * MS,
        requests: None,
    }
}

fn quota(requests: u64) -> Window {
    Window {
        start_ns: 0,
        measure_ns: 0,
        end_ns: u64::MAX,
        requests: Some(requests),
    }
}

fn plan(windows: Vec<Window>) -> Plan {
    Plan {
        target: "127.0.0.1:7".parse().unwrap(),
        driver: Driver::Threads,
        clients: 1,
        part: None,
        source_addresses: Vec::new(),
        task_threads: 1,
        workload: Workload {
            timeout_ns: 50 * MS,
            ..Workload::default()
        },
        windows,
        end_ns: None,
    }
}

fn shared(plan: &Plan) -> Mutex<LoadReport> {
    Mutex::new(LoadReport::empty(plan.windows.len()))
}

/// Result of an attempt to connect or to exchange, and its duration.
#[derive(Clone, Copy)]
enum Fate {
    Works(u64),
    Fails(u64),
}

/// Plays the driver of a client, with a clock that jumps and a server that follows `fate`. Returns every
/// action and its time.
fn play(
    client: &mut Client<'_>,
    mut now: u64,
    mut fate: impl FnMut(Action) -> Fate,
) -> Vec<(u64, Action)> {
    let mut script = Vec::new();
    loop {
        let action = client.next(now);
        script.push((now, action));
        assert!(script.len() < 100_000, "an endless client");
        match action {
            Action::SleepUntil(instant) | Action::Pace(instant) => {
                assert!(instant > now, "nothing to sleep for");
                now = instant;
            }
            Connect | Exchange => {
                if action == Exchange {
                    client.request();
                }

                now = attempt(client, action, now, fate(action));
            }
            Close => {}
            Done => return script,
        }
    }
}

fn attempt(client: &mut Client<'_>, action: Action, began: u64, fate: Fate) -> u64 {
    match (fate, action) {
        (Fate::Fails(ns), _) => {
            let failure = Failure::new(ErrorKind::Reset, "scripted");
            client.failed(began, began + ns, failure);
            began + ns
        }
        (Fate::Works(ns), Connect) => {
            client.connected(began, began + ns);
            began + ns
        }
        (Fate::Works(ns), _) => {
            client.answered(began, began + ns);
            began + ns
        }
    }
}

/// Plays one client from the start; returns its actions and its report.
fn whole(plan: &Plan, index: u32, fate: impl FnMut(Action) -> Fate) -> (Script, LoadReport) {
    let shared = shared(plan);
    let mut client = Client::new(plan, index, &shared);
    client.start(START);
    let script = play(&mut client, START, fate);
    client.finish(0);
    (script, shared.into_inner().unwrap())
}

type Script = Vec<(u64, Action)>;

fn works(_: Action) -> Fate {
    Fate::Works(MS)
}

fn actions(script: &Script) -> Vec<Action> {
    script.iter().map(|&(_, action)| action).collect()
}

fn moments(script: &Script, of: Action) -> Vec<u64> {
    let moments = script.iter().filter(|&&(_, action)| action == of);
    moments.map(|&(at, _)| at).collect()
}

fn balanced(window: &WindowReport) {
    let accounted = window.answered + window.failed() + window.unsent;
    assert_eq!(window.planned, accounted, "{window:?}");
}

#[test]
fn a_connection_is_reused() {
    let (script, report) = whole(&plan(vec![quota(3)]), 0, works);
    assert_eq!(
        actions(&script),
        [Connect, Exchange, Exchange, Exchange, Done]
    );

    let window = &report.windows[0];
    assert_eq!((window.planned, window.answered, window.unsent), (3, 3, 0));
    assert_eq!((window.connections, window.connect.len()), (1, 1));
    assert_eq!(window.bytes, 3 * (HEADER_LEN as u64 + 64));
    assert_eq!(window.first_ns, START + MS);
    assert_eq!(window.last_ns, START + 4 * MS);
}

#[test]
fn churn_connects_exchanges_and_closes() {
    let mut plan = plan(vec![quota(3)]);
    plan.workload.requests_per_connection = Some(1);
    let (script, report) = whole(&plan, 0, works);
    let one = [Connect, Exchange, Close];
    let expected = [&one[..], &one, &one, &[Done]].concat();
    assert_eq!(actions(&script), expected);
    assert_eq!(report.windows[0].connections, 3);

    plan.workload.requests_per_connection = Some(2);
    let (script, report) = whole(&plan, 0, works);
    assert_eq!(
        actions(&script),
        [Connect, Exchange, Exchange, Close, Connect, Exchange, Done]
    );
    assert_eq!(report.windows[0].connections, 2);
}

#[test]
fn clients_share_the_requests() {
    let mut plan = plan(vec![quota(7)]);
    plan.clients = 3;

    let shared = shared(&plan);
    for index in 0..3 {
        let mut client = Client::new(&plan, index, &shared);
        client.start(START);
        let script = play(&mut client, START, works);
        let share = if index == 0 { 3 } else { 2 };
        assert_eq!(moments(&script, Exchange).len(), share);
        client.finish(0);
    }

    let report = shared.into_inner().unwrap();
    assert_eq!(report.windows[0].planned, 7);
    assert_eq!(report.windows[0].answered, 7);
    assert_eq!(report.windows[0].latency.len(), 7);
    let by_client: Vec<_> = report.answered_by_client.into_iter().collect();
    assert_eq!(by_client, [(0, 3), (1, 2), (2, 2)]);
}

#[test]
fn a_client_without_a_share_does_not_connect() {
    let mut plan = plan(vec![quota(1)]);
    plan.clients = 2;

    let shared = shared(&plan);
    let mut client = Client::new(&plan, 1, &shared);
    assert!(!client.connects_before_start());
    assert_eq!(client.first_connect_ns(5), None);
    client.start(START);
    assert_eq!(actions(&play(&mut client, START, works)), [Done]);
    client.finish(0);

    let report = shared.into_inner().unwrap();
    assert_eq!(report.windows[0].planned, 0);
    assert_eq!(report.clients_never_served(), 0);
    assert!(Client::new(&plan, 0, &Mutex::default()).connects_before_start());
}

/// Begin of a client in each of its windows, and the work it asks for.
fn traffic(seed: u64, index: u32) -> (Vec<u64>, Vec<Work>) {
    let mut plan = plan(
        (0..20)
            .map(|n| window(n * 30, n * 30 + 10, n * 30 + 20))
            .collect(),
    );
    plan.clients = 2;
    plan.workload.seed = seed;
    plan.workload.work = "none=1,block:1ms=1".parse().unwrap();

    let shared = shared(&plan);
    let mut client = Client::new(&plan, index, &shared);
    client.start(START);
    client.connected(START, START);
    let mut opened = Vec::new();
    while let Action::SleepUntil(at) = client.next(opened.last().copied().unwrap_or(START)) {
        opened.push(at);
        client.schedule.enter_next();
    }

    let work = (0..200).map(|_| {
        client.request();
        let header = client.message().frame().first_chunk().unwrap();
        Header::decode(header, &Limits::default()).unwrap().work
    });
    (opened, work.collect())
}

#[test]
fn the_seed_determines_stagger_and_work() {
    let (moments, work) = traffic(5, 0);
    assert_eq!(moments.len(), 20);
    for (window, at) in (0..).zip(&moments) {
        let begin = START + window * 30 * MS;
        assert!((begin..begin + 10 * MS).contains(at), "{window}: {at}");
    }

    assert_eq!(traffic(5, 0), (moments.clone(), work.clone()));
    for other in [traffic(6, 0), traffic(5, 1)] {
        assert_ne!(other.0, moments);
        assert_ne!(other.1, work);
    }
}

#[test]
fn every_frame_is_unique() {
    let mut plan = plan(vec![quota(10)]);
    plan.clients = 2;

    let shared = shared(&plan);
    let mut seen = std::collections::HashSet::new();
    for index in 0..2 {
        let mut client = Client::new(&plan, index, &shared);
        for _ in 0..10 {
            client.request();
            assert_eq!(
                client.message().frame().len(),
                client.message().reply_room()
            );
            assert!(seen.insert(client.message().frame().to_vec()));
        }
    }
}

#[test]
fn the_ramp_is_accounted_for_but_not_measured() {
    let plan = plan(vec![window(0, 100, 120)]);
    let (script, report) = whole(&plan, 0, works);
    let begun = moments(&script, Exchange);
    let of_ramp = begun.iter().filter(|&&at| at < START + 100 * MS).count() as u64;
    assert!(of_ramp > 0, "the seed gives this client some of the ramp");

    let window = &report.windows[0];
    assert_eq!(window.planned, begun.len() as u64);
    assert_eq!(window.answered, window.planned);
    assert_eq!(window.latency.len(), window.planned - of_ramp);
    let replies = begun.iter().map(|at| at + MS);
    let in_window = replies.filter(|at| (START + 100 * MS..START + 120 * MS).contains(at));
    assert_eq!(window.replies_in_window, in_window.count() as u64);
    assert_eq!(window.lost, 0);

    // Failures that kept the client waiting after the ramp are unknown latencies.
    let (script, report) = whole(&plan, 0, |action| match action {
        Exchange => Fate::Fails(MS / 10),
        _ => Fate::Works(MS),
    });

    let begun = moments(&script, Exchange);
    let late = |at: &&u64| **at + MS / 10 >= START + 100 * MS;
    let lost = begun.iter().filter(late).count() as u64;

    let window = &report.windows[0];
    assert_eq!((window.failed(), window.lost), (begun.len() as u64, lost));
    assert!(lost < window.failed());
}

#[test]
fn no_request_begins_after_the_end() {
    let windows = vec![window(0, 0, 10), window(15, 15, 25)];
    let (script, report) = whole(&plan(windows.clone()), 0, |action| match action {
        Exchange => Fate::Works(3 * MS + 1),
        _ => Fate::Works(MS),
    });

    for at in moments(&script, Exchange) {
        let at = at - START;
        let inside = |w: &Window| (w.start_ns..w.end_ns).contains(&at);
        assert!(windows.iter().any(inside), "{at}");
    }

    // 1, 4, 7 ms and a bit; the reply to the last comes too late to count as in the window.
    let first = &report.windows[0];
    assert_eq!((first.answered, first.replies_in_window), (3, 2));
    assert_eq!(first.latency.len(), 3);
    assert_eq!(report.windows[1].answered, 4);

    // A think time that reaches beyond the end is the end.
    let mut thinking = plan(windows);
    thinking.workload.think_ns = 8 * MS;
    let (script, _) = whole(&thinking, 0, works);
    let begun = moments(&script, Exchange);
    let in_first = begun.iter().filter(|&&at| at < START + 15 * MS);
    assert_eq!(in_first.count(), 1, "{begun:?}");
}

#[test]
fn think_time_separates_requests() {
    let mut plan = plan(vec![quota(3)]);
    plan.workload.think_ns = 5 * MS;
    let (script, _) = whole(&plan, 0, works);
    let expected = [1, 7, 13].map(|ms| START + ms * MS);
    assert_eq!(moments(&script, Exchange), expected);
}

#[test]
fn failed_connects_back_off() {
    let short = plan(vec![window(0, 0, 20)]);
    let (script, report) = whole(&plan(vec![window(0, 0, 500)]), 0, |_| Fate::Fails(0));
    let tries = moments(&script, Connect);
    let pauses: Vec<_> = tries
        .windows(2)
        .map(|pair| (pair[1] - pair[0]) / MS)
        .collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 100, 100, 100]);

    let window = &report.windows[0];
    assert_eq!((window.planned, window.failed()), (11, 11));
    assert_eq!((window.connections, window.lost), (0, 11));
    assert_eq!(report.clients_never_served(), 1);
    assert_eq!(report.messages[&ErrorKind::Reset], "scripted");

    // An answer makes the next pause short again.
    let mut fates = [
        Fate::Fails(0),
        Fate::Fails(0),
        Fate::Works(0),
        Fate::Works(0),
        Fate::Fails(0),
    ]
    .into_iter();
    let fate = |_| fates.next().unwrap_or(Fate::Fails(0));
    let (script, _) = whole(&short, 0, fate);
    let tries = moments(&script, Connect);
    let expected = [0, 1, 3, 3, 5, 9, 17].map(|ms| START + ms * MS);
    assert_eq!(tries, expected);
}

#[test]
fn a_quota_is_abandoned_after_a_timeout_without_success() {
    let (script, report) = whole(&plan(vec![quota(100)]), 0, |_| Fate::Fails(0));
    let tries = moments(&script, Connect);
    assert_eq!(tries.len(), 6);
    assert!(tries.iter().all(|at| *at < START + 50 * MS));

    let window = &report.windows[0];
    assert_eq!((window.planned, window.failed()), (100, 6));
    assert_eq!((window.answered, window.unsent), (0, 94));

    // A client that is answered now and then goes on.
    let mut count = 0;
    let (_, report) = whole(&plan(vec![quota(100)]), 0, |action| {
        count += 1;
        match action {
            Exchange if count % 3 == 0 => Fate::Fails(20 * MS),
            _ => Fate::Works(20 * MS),
        }
    });

    assert_eq!(report.windows[0].unsent, 0);
    assert!(report.windows[0].failed() > 10);
    balanced(&report.windows[0]);
}

#[test]
fn a_window_of_time_is_not_abandoned() {
    let (script, report) = whole(&plan(vec![window(0, 0, 1_000)]), 0, |_| Fate::Fails(MS));
    let last = moments(&script, Connect).pop().unwrap();
    assert!(last > START + 850 * MS, "{last}");
    assert_eq!(report.windows[0].unsent, 0);
}

#[test]
fn connections_stay_until_the_end_of_the_plan() {
    let mut plan = plan(vec![window(0, 0, 10)]);
    plan.end_ns = Some(100 * MS);
    let (script, _) = whole(&plan, 0, works);
    assert!(moments(&script, Close).is_empty());
    let end = START + 100 * MS;
    assert_eq!(
        script[script.len() - 2..],
        [(START + 10 * MS, Action::SleepUntil(end)), (end, Done)]
    );
}

#[test]
fn a_deadline_is_the_timeout_or_the_end() {
    let mut plan = plan(vec![window(0, 0, 10)]);

    let shared = shared(&plan);
    let mut client = Client::new(&plan, 0, &shared);
    client.start(START);
    assert_eq!(client.deadline(START + MS), START + 51 * MS);
    assert_eq!(client.deadline(u64::MAX), u64::MAX);
    drop(client);

    // A little earlier than others close their connections.
    plan.clients = 10;
    for (end, deadline) in [(20, 14), (55, 49), (80, 51)] {
        plan.end_ns = Some(end * MS);
        let mut client = Client::new(&plan, 0, &shared);
        client.start(START);
        assert_eq!(client.deadline(START + MS), START + deadline * MS);
    }
}

#[test]
fn wrong_replies_are_classified() {
    let plan = plan(vec![quota(1)]);

    let shared = shared(&plan);
    let mut client = Client::new(&plan, 0, &shared);
    client.request();
    let right = client.message().frame().to_vec();
    assert!(client.message().check(&right).is_ok());
    for at in 0..right.len() {
        let mut reply = right.clone();
        reply[at] ^= 0x80;
        let failure = client.message().check(&reply).unwrap_err();
        assert_eq!(failure.kind, ErrorKind::WrongBytes);
        assert!(failure.message.starts_with(&format!("byte {at} of")));
    }

    // The reply to the request before.
    client.request();
    assert_eq!(
        client.message().check(&right).unwrap_err().kind,
        ErrorKind::WrongBytes
    );

    for reason in Reason::ALL {
        let mut reply = error_frame(reason, 1);
        let kind = match reason {
            Reason::Overloaded => ErrorKind::Overloaded,
            _ => ErrorKind::ProtocolError,
        };
        let failure = client.message().end_of_stream(&reply).unwrap_err();
        assert_eq!(failure.kind, kind);
        assert!(failure.message.contains(&reason.to_string()));
        reply.resize(client.message().reply_room(), 0);
        let failure = client.message().check(&reply).unwrap_err();
        assert_eq!(failure.kind, kind);
    }

    for length in [0, 1, HEADER_LEN, client.message().reply_room() - 1] {
        let failure = client
            .message()
            .end_of_stream(&client.message().frame()[..length])
            .unwrap_err();
        assert_eq!(failure.kind, ErrorKind::EarlyClose);
        let words = format!("{length} of {} bytes", client.message().reply_room());
        assert!(failure.message.contains(&words), "{}", failure.message);
    }
}

#[test]
fn a_time_reply_is_one_line_of_text() {
    let mut plan = plan(vec![quota(1)]);
    plan.workload.request_kind = RequestKind::Time;

    let shared = shared(&plan);
    let mut client = Client::new(&plan, 0, &shared);
    client.request();
    assert!(client.message().frame().is_empty());
    for right in ["Sun, 06 Nov 1994 08:49:37 GMT\r\n", "noon\n"] {
        assert_eq!(
            client.message().end_of_stream(right.as_bytes()).unwrap(),
            right.len()
        );
        assert!(
            client.message().check(right.as_bytes()).is_ok(),
            "{right:?}"
        );
    }

    assert_eq!(
        client.message().end_of_stream(b"").unwrap_err().kind,
        ErrorKind::EarlyClose
    );
    for wrong in ["noon", "\r\n", "noon\nand more\n", "no\0on\n"] {
        let failure = client.message().check(wrong.as_bytes()).unwrap_err();
        assert_eq!(failure.kind, ErrorKind::WrongBytes, "{wrong:?}");
    }
}

#[test]
fn a_connection_that_fails_before_the_start_is_no_request() {
    let plan = plan(vec![quota(2)]);
    let shared = shared(&plan);
    let mut client = Client::new(&plan, 0, &shared);
    for _ in 0..3 {
        attempt(&mut client, Connect, START - MS, Fate::Fails(0));
    }

    client.start(START);
    let script = play(&mut client, START, works);
    assert_eq!(moments(&script, Exchange).len(), 2);
    client.finish(0);

    let report = shared.into_inner().unwrap();
    assert_eq!(report.errors_before_start.count(ErrorKind::Reset), 3);
    assert_eq!(report.messages[&ErrorKind::Reset], "scripted");
    let window = &report.windows[0];
    assert_eq!((window.planned, window.answered, window.lost), (2, 2, 0));
    assert!(window.first_ns >= START);
}

#[test]
fn a_reply_counts_in_the_window_that_it_arrives_in() {
    // Ten clients, one second of work: ten replies per second, of which the warm-up began some.
    let mut plan = plan(vec![window(0, 0, 1_500), window(1_500, 1_500, 6_500)]);
    plan.clients = 10;
    plan.workload.timeout_ns = 5_000 * MS;
    let shared = shared(&plan);
    for index in 0..plan.clients {
        let mut client = Client::new(&plan, index, &shared);
        client.connected(START - MS, START - MS);
        client.start(START);
        play(&mut client, START, |_| Fate::Works(1_000 * MS));
        client.finish(0);
    }

    let report = shared.into_inner().unwrap();
    let [warmup, measured] = &report.windows[..] else {
        panic!("two windows")
    };
    assert_eq!((warmup.answered, warmup.replies_in_window), (20, 10));
    assert_eq!((measured.answered, measured.replies_in_window), (50, 50));
    let window = &plan.windows[1];
    assert_eq!(measured.throughput_per_second(window), Some(10.0));
    assert_eq!(measured.busy_connections(window), Some(10.0));
}

#[test]
fn time_without_replies_is_part_of_the_measurement() {
    // 100 replies within 2 ms, then a server that answers nothing.
    let mut fates = (0..101).map(|_| Fate::Works(20_000));
    let (_, report) = whole(&plan(vec![quota(1_000)]), 0, |_| {
        fates.next().unwrap_or(Fate::Fails(50 * MS))
    });

    let window = &report.windows[0];
    assert_eq!((window.answered, window.failed()), (100, 2));
    let elapsed_ns = window.elapsed_ns(&quota(1_000));
    // Two timeouts of 50 ms, and the pause between them.
    assert!((100 * MS..110 * MS).contains(&elapsed_ns), "{elapsed_ns}");
    let busy = window.busy_connections(&quota(1_000)).unwrap();
    assert!(busy <= 1.0, "{busy}");

    // One request: the extremes of its latency are the time that it took.
    let (_, report) = whole(&plan(vec![quota(1)]), 0, |_| Fate::Works(1_234_567));
    let window = &report.windows[0];
    assert_eq!(window.elapsed_ns(&quota(1)), 1_234_567);
    assert_eq!(window.latency.min(), 1_234_567);
    assert_eq!(window.latency.max(), 1_234_567);
    assert_eq!(window.busy_connections(&quota(1)), Some(1.0));
}

#[test]
fn late_replies_and_connections_are_timeouts() {
    let plan = plan(vec![quota(3)]);
    let shared = shared(&plan);
    let mut client = Client::new(&plan, 0, &shared);
    client.start(START);
    let late = client.connect_ended(START, START + 50 * MS, Ok(()));
    assert!(late.is_none());
    let in_time = client.connect_ended(START, START + 50 * MS - 1, Ok(()));
    assert!(in_time.is_some());

    for (ns, answered) in [(50 * MS - 1, 1), (50 * MS, 1)] {
        client.request();
        let reply = client.message().frame().to_vec();
        client.exchange_ended(START, START + ns, Ok(&reply));
        assert_eq!(client.tally.begun(0), if ns < 50 * MS { 2 } else { 3 });
        assert_eq!(client.connection.requests, answered);
    }
    assert!(!client.connection.is_open);

    client.finish(0);
    let report = shared.into_inner().unwrap();
    let errors = &report.windows[0].errors;
    assert_eq!(errors.to_string(), "connect_timed_out=1;timed_out=1");
    assert_eq!(report.windows[0].latency.max(), 50 * MS - 1);
}

#[test]
fn served_clients_make_no_room_for_others() {
    let windows = |last| vec![window(0, 0, 10), last];
    let stays = |plan: &Plan| Client::new(plan, 0, &shared(plan)).stays_connected();
    let mut timed = plan(windows(window(10, 10, 20)));
    assert!(stays(&timed));
    // The plan has an end of its own, at which all close together.
    timed.end_ns = Some(30 * MS);
    assert!(!stays(&timed));
    assert!(!stays(&plan(windows(quota(5)))));
    let mut churn = plan(windows(window(10, 10, 20)));
    churn.workload.requests_per_connection = Some(16);
    assert!(!stays(&churn));
}

fn pending(bytes: &[u8]) -> PendingBytes {
    let (mut writer, reader) = UnixStream::pair().unwrap();
    writer.write_all(bytes).unwrap();
    PendingBytes::of(&reader)
}

#[test]
fn bytes_before_the_first_request_are_an_early_reply() {
    let mut plan = plan(vec![quota(3)]);
    let shared = shared(&plan);
    let early = |client: &Client<'_>, bytes: &[u8]| {
        let failure = client.early_reply(|| pending(bytes));
        failure.map(|failure| failure.kind)
    };

    let mut client = Client::new(&plan, 0, &shared);
    client.start(START);
    client.connected(START, START);
    assert_eq!(early(&client, b""), None);
    assert_eq!(early(&client, b"hello"), Some(ErrorKind::EarlyReply));
    // A server may refuse a connection before it reads from it.
    assert_eq!(early(&client, &error_frame(Reason::ALL[0], 0)), None);
    client.answered(START, START + MS);
    assert_eq!(early(&client, b"hello"), None);
    drop(client);

    plan.workload.request_kind = RequestKind::Time;
    let client = Client::new(&plan, 0, &shared);
    assert_eq!(early(&client, b"noon\n"), None);
}

#[test]
fn a_later_reply_without_the_number_of_its_request_is_early() {
    let plan = plan(vec![quota(3)]);
    let shared = shared(&plan);
    let mut client = Client::new(&plan, 0, &shared);
    client.start(START);
    client.connected(START, START);

    // On a new connection it may be a server that does not echo.
    client.request();
    let first = client.message().frame().to_vec();
    let kind = |client: &Client<'_>, reply: &[u8]| client.message().check(reply).unwrap_err().kind;
    assert_eq!(kind(&client, &vec![7; first.len()]), ErrorKind::WrongBytes);
    client.answered(START, START + MS);

    client.request();
    let second = client.message().frame().to_vec();
    for reply in [first, vec![7; second.len()]] {
        assert_eq!(kind(&client, &reply), ErrorKind::EarlyReply);
    }
    // Bytes too many after the reply before.
    let shifted = [b"!", &second[..second.len() - 1]].concat();
    assert_eq!(kind(&client, &shifted), ErrorKind::WrongBytes);
    // Some changed bytes, in the number or behind it.
    for at in [HEADER_LEN - 1, second.len() - 1] {
        let mut changed = second.clone();
        changed[at] ^= 1;
        assert_eq!(kind(&client, &changed), ErrorKind::WrongBytes);
    }
}

#[test]
fn bytes_after_the_last_reply_on_a_connection_are_wrong() {
    let mut plan = plan(vec![quota(3)]);
    plan.workload.requests_per_connection = Some(2);
    let shared = shared(&plan);
    let mut client = Client::new(&plan, 0, &shared);
    client.start(START);
    client.connected(START, START);
    assert!(client.check_surplus(|| pending(b"!")).is_ok());

    client.answered(START, START + MS);
    assert!(client.check_surplus(|| pending(b"")).is_ok());
    let failure = client.check_surplus(|| pending(b"!")).unwrap_err();
    assert_eq!(failure.kind, ErrorKind::WrongBytes);

    // In the same read as the reply.
    client.request();
    let reply = [client.message().frame(), b"!"].concat();
    assert_eq!(reply.len(), client.message().reply_capacity());
    let failure = client.message().check(&reply).unwrap_err();
    assert_eq!(failure.kind, ErrorKind::WrongBytes);
    assert_eq!(failure.message, "1 or more bytes after the end of a reply");
}

#[test]
fn an_open_loop_far_beyond_reach_ends_in_time() {
    for spacing in [Spacing::Constant, Spacing::Poisson] {
        let mut plan = plan(vec![window(0, 1_000, 5_000)]);
        plan.clients = 2;
        plan.workload.arrivals = Some(Arrivals {
            per_second: 1e9,
            spacing,
        });
        let (script, report) = whole(&plan, 1, works);
        let (end, _) = script[script.len() - 1];
        assert!(end <= START + 5_051 * MS, "{end}");

        let window = &report.windows[0];
        balanced(window);
        let share = |counted: u64, expected: f64| (counted as f64 / expected - 1.0).abs() < 1e-3;
        assert!(share(window.planned, 2.5e9), "{}", window.planned);
        assert!(share(window.lost, 2e9), "{}", window.lost);
        assert_eq!(window.lost, window.lost_unsent);
    }
}

#[test]
fn an_open_loop_of_less_than_a_request_per_second_keeps_its_times() {
    let mut plan = plan(vec![window(0, 0, 9_000)]);
    plan.clients = 2;
    plan.workload.arrivals = Some(Arrivals {
        per_second: 0.5,
        spacing: Spacing::Constant,
    });
    for (index, seconds) in [(0, [0, 4, 8].as_slice()), (1, &[2, 6])] {
        let shared = shared(&plan);
        let mut client = Client::new(&plan, index, &shared);
        client.connected(START - MS, START - MS);
        client.start(START);
        let script = play(&mut client, START, works);
        let expected: Vec<_> = seconds.iter().map(|s| START + s * 1_000 * MS).collect();
        assert_eq!(moments(&script, Exchange), expected);
    }

    // The slowest Poisson process there is: its times may lie beyond the clock.
    plan.clients = 1_000_000;
    plan.workload.arrivals = Some(Arrivals {
        per_second: 0.001,
        spacing: Spacing::Poisson,
    });
    for index in 0..1_000 {
        let (script, _) = whole(&plan, index, works);
        assert_eq!(actions(&script), [Done]);
    }
}

/// A random plan, and the share of failures of its server.
fn random_plan(random: &mut fastrand::Rng) -> (Plan, f64) {
    let mut windows = Vec::new();
    let mut at = 0;
    for _ in 0..random.u64(1..5) {
        let ramp = random.u64(0..10);
        let length = random.u64(1..40);
        let mut next = window(at, at + ramp, at + ramp + length);
        if random.u8(0..4) == 0 {
            next.requests = Some(random.u64(0..20));
        }

        windows.push(next);
        at += ramp + length + random.u64(0..10);
    }

    if random.bool() {
        let last = windows.last_mut().unwrap();
        last.requests = Some(random.u64(0..60));
        last.end_ns = u64::MAX;
    }

    let mut plan = plan(windows);
    plan.clients = random.u32(1..5);
    plan.workload.seed = random.u64(..);
    plan.workload.think_ns = random.u64(0..3) * MS / 2;
    if random.bool() {
        plan.workload.requests_per_connection = Some(random.u64(1..5));
    }

    if random.bool() {
        plan.end_ns = Some((at + 20) * MS);
    }

    let failing = [0.0, 0.05, 0.5, 0.95, 1.0];
    (plan, random.choice(failing).unwrap())
}

/// Expected counts of a window, taken beside the client.
#[derive(Clone, Default)]
struct Expected {
    begun: u64,
    answered: u64,
    measured: u64,
    replies: u64,
    busy_ns: u64,
}

#[test]
fn everything_planned_is_accounted_for() {
    for case in 0..500 {
        let mut random = fastrand::Rng::with_seed(case);
        let (plan, failing) = random_plan(&mut random);
        let shared = shared(&plan);
        let mut expected = vec![Expected::default(); plan.windows.len()];
        let mut failed_before = 0;
        for index in 0..plan.clients {
            let mut client = Client::new(&plan, index, &shared);
            if client.connects_before_start() {
                let fate = random_fate(&mut random, failing);
                failed_before += u64::from(matches!(fate, Fate::Fails(_)));
                attempt(&mut client, Connect, START - 10 * MS, fate);
            }

            client.start(START);
            let mut fates = Vec::new();
            let script = play(&mut client, START, |action| {
                let fate = random_fate(&mut random, failing);
                fates.push((action, fate));
                fate
            });

            client.finish(0);
            let attempts = script
                .iter()
                .filter(|(_, action)| matches!(action, Connect | Exchange));
            for (&(at, action), (_, fate)) in attempts.zip(fates) {
                count(&plan, &mut expected, at - START, action, fate);
            }
        }

        let report = shared.into_inner().unwrap();
        assert_eq!(report.errors_before_start.total(), failed_before);
        for ((window, report), expected) in plan.windows.iter().zip(&report.windows).zip(expected) {
            balanced(report);
            assert_eq!(report.planned, window.requests.unwrap_or(expected.begun));
            assert_eq!(
                report.planned - report.unsent,
                expected.begun,
                "case {case}"
            );
            assert_eq!(report.answered, expected.answered, "case {case}");
            if plan.workload.think_ns == 0 {
                assert_eq!(report.latency.len(), expected.measured, "case {case}");
            }

            assert_eq!(report.replies_in_window, expected.replies, "case {case}");
            assert_eq!(report.busy_ns, expected.busy_ns, "case {case}");
            let busy = report.busy_connections(window).unwrap_or(0.0);
            assert!(
                busy <= f64::from(plan.clients) + 1e-9,
                "case {case}: {busy}"
            );
            assert!(report.lost <= report.failed());
        }
    }
}

fn random_fate(random: &mut fastrand::Rng, failing: f64) -> Fate {
    let ns = random.u64(1..3 * MS);
    if random.f64() < failing {
        Fate::Fails(ns)
    } else {
        Fate::Works(ns)
    }
}

/// Counts an attempt that began `at` nanoseconds after the start, which must be in a window.
fn count(plan: &Plan, expected: &mut [Expected], at: u64, action: Action, fate: Fate) {
    let inside = |window: &Window| (window.start_ns..window.end_ns).contains(&at);
    let own = plan.windows.iter().position(inside);
    let own = own.expect("nothing begins outside the windows");

    let (ns, works) = match fate {
        Fate::Works(ns) => (ns, true),
        Fate::Fails(ns) => (ns, false),
    };
    if action == Exchange || !works {
        expected[own].begun += 1;
    }
    if action != Exchange {
        return;
    }

    let is_measured = at >= plan.windows[own].measure_ns;
    expected[own].answered += u64::from(works);
    expected[own].measured += u64::from(works && is_measured);
    for (index, window) in plan.windows.iter().enumerate() {
        if index == own || window.requests.is_none() {
            let (from, to) = (at.max(window.measure_ns), (at + ns).min(window.end_ns));
            let has_reply = works && (window.measure_ns..window.end_ns).contains(&(at + ns));
            expected[index].busy_ns += to.saturating_sub(from);
            expected[index].replies += u64::from(has_reply);
        }
    }
}

#[test]
fn everything_due_is_accounted_for() {
    for case in 0..500 {
        let mut random = fastrand::Rng::with_seed(case);
        let (mut plan, failing) = random_plan(&mut random);
        let spacing = random.choice([Spacing::Constant, Spacing::Poisson]);
        plan.workload.think_ns = 0;
        plan.workload.arrivals = Some(Arrivals {
            per_second: 20.0 + 2_000.0 * random.f64(),
            spacing: spacing.unwrap(),
        });

        let shared = shared(&plan);
        let mut begun = 0;
        for index in 0..plan.clients {
            let mut client = Client::new(&plan, index, &shared);
            client.start(START);
            play(&mut client, START, |action| {
                let fate = random_fate(&mut random, failing);
                let ends_request = action == Exchange || matches!(fate, Fate::Fails(_));
                begun += u64::from(ends_request);
                fate
            });

            client.finish(0);
        }

        let report = shared.into_inner().unwrap();
        for (window, report) in plan.windows.iter().zip(&report.windows) {
            balanced(report);
            assert!(window.requests.is_none_or(|quota| quota == report.planned));
            assert!(report.latency.len() + report.lost <= report.planned);
            assert_eq!(report.latency.len(), report.service.len());
            begun -= report.planned - report.unsent;
        }

        assert_eq!(begun, 0, "case {case}");
    }
}

#[test]
fn calm_lag_is_the_lag_of_the_generator_itself() {
    let mut plan = plan(vec![window(0, 0, 10)]);
    plan.workload.arrivals = Some(Arrivals {
        per_second: 1_000.0,
        spacing: Spacing::Constant,
    });

    for hiccup in [false, true] {
        let shared = shared(&plan);
        let mut client = Client::new(&plan, 0, &shared);
        client.connected(START - MS, START - MS / 2);
        client.start(START);
        if hiccup {
            client.hiccup();
        }

        let mut request = 0;
        play(&mut client, START, |_| {
            request += 1;
            // The third keeps the three after it waiting.
            Fate::Works(if request == 3 { 5 * MS / 2 } else { 2 * MS / 5 })
        });

        client.finish(0);
        let report = shared.into_inner().unwrap();
        let window = &report.windows[0];
        assert_eq!((window.answered, window.lag.len()), (10, 10));
        assert!(window.lag.max() > MS);
        let calm = 7 - u64::from(hiccup);
        assert_eq!((window.calm_lag.len(), window.calm_lag.max()), (calm, 0));
        assert_eq!(window.hiccups, u64::from(hiccup));
    }
}

#[test]
fn samples_survive_many_flushes() {
    let mut plan = plan(vec![quota(20_000)]);
    plan.workload.timeout_ns = Duration::from_secs(1).as_nanos().try_into().unwrap();
    let mut ns = 0;
    let (_, report) = whole(&plan, 0, |_| {
        ns += 1;
        Fate::Works(ns)
    });

    let window = &report.windows[0];
    assert_eq!((window.latency.len(), window.connect.len()), (20_000, 1));
    assert_eq!(window.latency.min(), 2);
    assert!(window.latency.max() >= 20_001);
}
