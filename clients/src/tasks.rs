//! The driver `tasks`: a tokio task for each client, many on few threads.

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

use crate::client::{Action, Client, Failure};
use crate::clock::{self, Watch};
use crate::connect::{connect_failure, exchange_failure, socket, timed_out};
use crate::pacer::Pacer;
use crate::plan::Plan;
use crate::report::{ErrorKind, Report};
use crate::{LoadError, blocking};

pub(crate) fn run(plan: &Plan, start: impl FnOnce() -> u64) -> Result<Report, LoadError> {
    let runtime = runtime(plan.task_threads).map_err(LoadError::system(
        "cannot start the threads of the tasks driver",
    ))?;
    let plan = Arc::new(plan.clone());
    let shared = Arc::new(Mutex::new(Report::empty(plan.windows.len())));
    let ran: io::Result<()> = runtime.block_on(async {
        let pacer = Arc::new(Pacer::new()?);
        let alarm = tokio::spawn(Arc::clone(&pacer).run());
        let (ready, mut all_ready) = mpsc::channel::<()>(1);
        let (go, started) = watch::channel(None);
        let mut clients = JoinSet::new();
        for index in 0..plan.clients {
            let (plan, shared) = (Arc::clone(&plan), Arc::clone(&shared));
            let (ready, mut started) = (ready.clone(), started.clone());
            let pacer = Arc::clone(&pacer);
            clients.spawn(async move {
                let wait_for_start = async move {
                    drop(ready);
                    started
                        .wait_for(Option::is_some)
                        .await
                        .ok()
                        .and_then(|start| *start)
                };
                let client = Client::new(&plan, index, &shared);
                run_client(&plan, client, &pacer, wait_for_start).await;
            });
        }
        drop(ready);
        // Nobody sends: the channel ends when the last client is ready.
        let _ = all_ready.recv().await;
        // Fails only when there is no client left to tell.
        let _ = go.send(Some(start()));
        let cpu_before = clock::process_cpu();
        clients.join_all().await;
        shared.lock().expect("no client panics").cpu_ns = clock::process_cpu() - cpu_before;
        alarm.abort();
        Ok(())
    });
    ran.map_err(LoadError::system(
        "cannot pace the requests of the tasks driver",
    ))?;
    let shared = std::mem::take(&mut *shared.lock().expect("no client panics"));
    Ok(shared)
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

async fn run_client(
    plan: &Plan,
    mut client: Client<'_>,
    pacer: &Pacer,
    ready: impl Future<Output = Option<u64>>,
) {
    let mut reply = vec![0; client.reply_room()];
    let mut stream = None;
    if client.connects_ahead() {
        stream = connect(plan, &mut client).await;
    }
    let Some(start) = ready.await else { return };
    client.start(start);
    // One timer for all requests: it is moved only when it goes off, not for each of them.
    let mut timer = Box::pin(tokio::time::sleep_until(instant(clock::now(), start)));
    let mut now = clock::now();
    loop {
        match client.next(now) {
            Action::SleepUntil(until) => {
                pacer.sleep_until(until).await;
                now = clock::now();
            }
            Action::Pace(until) => {
                pacer
                    .sleep_until(until.saturating_sub(clock::SPIN_NS))
                    .await;
                let mut watch = Watch::until(until);
                // Others have their turn while this one watches the clock.
                while !watch.is_due() {
                    let before = pacer.turns();
                    tokio::task::yield_now().await;
                    watch.look(pacer.turns() != before);
                }
                if watch.hiccup {
                    client.hiccup();
                }
                now = clock::now();
            }
            Action::Connect => {
                pacer.turn();
                stream = connect(plan, &mut client).await;
                pacer.turn();
                now = clock::now();
            }
            Action::Exchange => {
                let open = stream.as_mut().expect("a connected client has a stream");
                pacer.turn();
                now = exchange(&mut client, open, &mut reply, timer.as_mut()).await;
                pacer.turn();
            }
            Action::Close => {
                stream = None;
                pacer.turn();
                now = clock::now();
            }
            Action::Done => break,
        }
    }
    drop(stream);
    // All tasks share threads: their CPU time is that of the process.
    client.finish(0);
}

/// The runtime's name for an instant of our clock.
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
        Ok(Err(error)) => connect_failure(plan.target, &error),
        Err(_) => Failure::new(
            ErrorKind::ConnectTimedOut,
            format!("cannot connect to {} in {timeout:?}", plan.target),
        ),
    };
    client.failed(began, now, failure);
    None
}

/// One request and its reply; returns the time at its end.
async fn exchange(
    client: &mut Client<'_>,
    stream: &mut TcpStream,
    reply: &mut [u8],
    mut timer: Pin<&mut Sleep>,
) -> u64 {
    client.request();
    let sent = clock::now();
    let outcome = {
        let exchange = there_and_back(client, stream, reply);
        tokio::pin!(exchange);
        loop {
            tokio::select! {
                biased;
                outcome = &mut exchange => break outcome,
                () = timer.as_mut() => {
                    let (now, deadline) = (clock::now(), client.deadline(sent));
                    if now >= deadline {
                        break Err(timed_out());
                    }
                    timer.as_mut().reset(instant(now, deadline));
                }
            }
        }
    };
    let received = clock::now();
    let checked = outcome.and_then(|length| client.check(&reply[..length]).map(|()| length));
    match checked {
        Ok(length) => {
            client.answered(sent, received);
            blocking::print(client.line(&reply[..length]));
        }
        Err(failure) => client.failed(sent, received, failure),
    }
    received
}

async fn there_and_back(
    client: &Client<'_>,
    stream: &mut TcpStream,
    reply: &mut [u8],
) -> Result<usize, Failure> {
    let (mut from, mut to) = stream.split();
    let receive = async {
        let mut received = 0;
        while received < reply.len() {
            match from.read(&mut reply[received..]).await {
                Ok(0) => return client.ended(&reply[..received]),
                Ok(count) => received += count,
                Err(error) => return Err(exchange_failure(&error)),
            }
        }
        Ok(received)
    };
    let send = async {
        to.write_all(client.frame())
            .await
            .map_err(|error| exchange_failure(&error))
    };
    if client.frame().len() <= blocking::SEND_WHOLE {
        send.await?;
        return receive.await;
    }
    // A large frame may come back while it is still being sent.
    tokio::pin!(send, receive);
    tokio::select! {
        biased;
        sent = &mut send => {
            sent?;
            receive.await
        }
        // The reply is there, or an error frame before everything was sent.
        received = &mut receive => received,
    }
}
