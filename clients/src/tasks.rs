//! The driver `tasks`: a tokio task per client, many on few threads.

use std::io;
use std::net::TcpStream as StdStream;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};

use crate::client::{Action, Client};
use crate::clock::{self, SpinWait};
use crate::connect::socket;
use crate::failure::{ErrorKind, Failure};
use crate::pacer::Pacer;
use crate::plan::Plan;
use crate::report::LoadReport;
use crate::{LoadError, blocking};

pub(crate) fn run(plan: &Plan, start: impl FnOnce() -> u64) -> Result<LoadReport, LoadError> {
    let runtime = runtime(plan.task_threads).map_err(LoadError::system(
        "cannot start the threads of the tasks driver",
    ))?;
    let shared = Arc::new(Mutex::new(LoadReport::empty(plan.windows.len())));
    runtime
        .block_on(run_clients(plan, &shared, start))
        .map_err(LoadError::system(
            "cannot pace the requests of the tasks driver",
        ))?;

    let report = std::mem::take(&mut *shared.lock().expect("no client panics"));
    Ok(report)
}

fn runtime(threads: u32) -> io::Result<Runtime> {
    let mut builder = match threads {
        0 | 1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads as usize);
    }
    builder.enable_all().build()
}

/// Starts a task per client, waits until all are ready, and runs them from the start to the end.
async fn run_clients(
    plan: &Plan,
    shared: &Arc<Mutex<LoadReport>>,
    start: impl FnOnce() -> u64,
) -> io::Result<()> {
    let plan = Arc::new(plan.clone());
    let pacer = Arc::new(Pacer::new()?);
    let timer = tokio::spawn(Arc::clone(&pacer).run());
    let (ready, mut all_ready) = mpsc::channel::<()>(1);
    let (go, started) = watch::channel(None);

    let mut clients = JoinSet::new();
    for index in 0..plan.clients {
        let (plan, shared) = (Arc::clone(&plan), Arc::clone(shared));
        let (ready, mut started) = (ready.clone(), started.clone());
        let pacer = Arc::clone(&pacer);
        clients.spawn(async move {
            let wait_for_start = async move {
                drop(ready);
                let start = started.wait_for(Option::is_some).await;
                start.ok().and_then(|start| *start)
            };
            let client = Client::new(&plan, index, &shared);
            run_client(&plan, client, &pacer, wait_for_start).await;
        });
    }

    // Nothing is ever sent: the channel closes when the last client is ready.
    drop(ready);
    let _ = all_ready.recv().await;
    // Fails only if no client is left.
    let _ = go.send(Some(start()));

    let cpu_before = clock::process_cpu();
    clients.join_all().await;
    shared.lock().expect("no client panics").cpu_ns = clock::process_cpu() - cpu_before;
    timer.abort();
    Ok(())
}

async fn run_client(
    plan: &Plan,
    mut client: Client<'_>,
    pacer: &Pacer,
    ready: impl Future<Output = Option<u64>>,
) {
    let mut reply = vec![0; client.message().reply_room()];
    let mut stream = None;
    if client.connects_before_start() {
        stream = connect(plan, &mut client).await;
    }
    let Some(start) = ready.await else { return };

    client.start(start);
    // One timer for all requests: it is moved only when it expires, not for each of them.
    let mut timer = Box::pin(tokio::time::sleep_until(instant(clock::now(), start)));
    let mut now = clock::now();

    loop {
        match client.next(now) {
            Action::SleepUntil(until) => {
                pacer.sleep_until(until).await;
                now = clock::now();
            }
            Action::Pace(due) => {
                pace(&mut client, pacer, due).await;
                now = clock::now();
            }
            Action::Connect => {
                pacer.record_turn();
                stream = connect(plan, &mut client).await;
                pacer.record_turn();
                now = clock::now();
            }
            Action::Exchange => {
                let open = stream.as_mut().expect("a connected client has a stream");
                pacer.record_turn();
                now = exchange(&mut client, open, &mut reply, timer.as_mut()).await;
                pacer.record_turn();
            }
            Action::Close => {
                stream = None;
                pacer.record_turn();
                now = clock::now();
            }
            Action::Done => break,
        }
    }

    drop(stream);
    // All tasks share threads: their CPU time is that of the process.
    client.finish(0);
}

/// Waits until a request is due; other tasks run meanwhile.
async fn pace(client: &mut Client<'_>, pacer: &Pacer, due: u64) {
    pacer.sleep_until(due.saturating_sub(clock::SPIN_NS)).await;

    let mut wait = SpinWait::until(due);
    while !wait.is_over() {
        let before = pacer.turns();
        tokio::task::yield_now().await;
        wait.read(pacer.turns() != before);
    }
    if wait.had_hiccup {
        client.hiccup();
    }
}

/// Converts an instant on our clock to one of the runtime.
fn instant(now: u64, at: u64) -> Instant {
    Instant::now() + Duration::from_nanos(at.saturating_sub(now))
}

async fn connect(plan: &Plan, client: &mut Client<'_>) -> Option<TcpStream> {
    let began = clock::now();
    let timeout = Duration::from_nanos(plan.workload.timeout_ns);
    let opening = async {
        let socket = socket(plan, client)?;
        socket.set_nonblocking(true)?;
        TcpSocket::from_std_stream(StdStream::from(socket))
            .connect(plan.target)
            .await
    };
    let opened = tokio::time::timeout(timeout, opening).await;

    let now = clock::now();
    let failure = match opened {
        Ok(Ok(stream)) => {
            client.connected(began, now);
            return Some(stream);
        }
        Ok(Err(error)) => Failure::connect(plan.target, &error),
        Err(_) => Failure::new(
            ErrorKind::ConnectTimedOut,
            format!("cannot connect to {} in {timeout:?}", plan.target),
        ),
    };
    client.failed(began, now, failure);
    None
}

/// Sends one request and receives its reply; returns the time at its end.
async fn exchange(
    client: &mut Client<'_>,
    stream: &mut TcpStream,
    reply: &mut [u8],
    mut timer: Pin<&mut Sleep>,
) -> u64 {
    client.request();
    let sent = clock::now();
    let outcome = {
        let exchange = send_and_receive(client, stream, reply);
        tokio::pin!(exchange);
        loop {
            tokio::select! {
                biased;
                outcome = &mut exchange => break outcome,
                () = timer.as_mut() => {
                    let (now, deadline) = (clock::now(), client.deadline(sent));
                    if now >= deadline {
                        break Err(Failure::timed_out());
                    }
                    timer.as_mut().reset(instant(now, deadline));
                }
            }
        }
    };
    let received = clock::now();

    let checked = outcome.and_then(|length| {
        client.message().check(&reply[..length])?;
        Ok(length)
    });
    match checked {
        Ok(length) => {
            client.answered(sent, received);
            blocking::print_line(client.message().printed_line(&reply[..length]));
        }
        Err(failure) => client.failed(sent, received, failure),
    }
    received
}

async fn send_and_receive(
    client: &Client<'_>,
    stream: &mut TcpStream,
    reply: &mut [u8],
) -> Result<usize, Failure> {
    let message = client.message();
    let (mut reader, mut writer) = stream.split();
    let receive = async {
        let mut received = 0;
        while received < reply.len() {
            match reader.read(&mut reply[received..]).await {
                Ok(0) => return message.end_of_stream(&reply[..received]),
                Ok(count) => received += count,
                Err(error) => return Err(Failure::exchange(&error)),
            }
        }
        Ok(received)
    };
    let send = async {
        let sent = writer.write_all(message.frame()).await;
        sent.map_err(|error| Failure::exchange(&error))
    };

    if message.frame().len() <= blocking::SEND_FIRST_MAX_BYTES {
        send.await?;
        return receive.await;
    }
    tokio::pin!(send, receive);
    tokio::select! {
        biased;
        sent = &mut send => {
            sent?;
            receive.await
        }
        // A complete reply, or an error frame, may arrive before the whole request was sent.
        received = &mut receive => received,
    }
}
