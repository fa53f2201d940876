//! A task per connection on tokio.
//!
//! A task waits for its connection without a thread of its own. By default one thread accepts, and the
//! worker threads of the runtime share the tasks; on the current-thread runtime one thread does
//! everything. With a runtime per core, each worker thread accepts from a listener of its own, and its
//! tasks stay on it: the shared-nothing design of Seastar.
//!
//! Blocking work waits on the runtime's timer, which has a resolution of one millisecond; spinning work
//! occupies its worker thread, as any computation would.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Runtime;
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::acceptor::{Accept, Acceptor};
use crate::connection::Connection;
use crate::incoming::{Incoming, Offer};
use crate::listener::BACK_OFF;
use crate::settings::{self, AcceptMode, ModelOption, Settings};
use crate::{Family, Model, runtime, task};

pub(crate) const MODEL: Model = Model {
    name: "async",
    summary: "a task per connection on tokio",
    family: Family::Tasks,
    options: &[ModelOption::Workers, ModelOption::Runtime],
    accept: &[],
    probe: None,
    serve,
};

fn serve(acceptor: Acceptor, settings: &Settings) -> io::Result<()> {
    let workers = settings.event_workers()?;
    match settings.runtime.unwrap_or_default() {
        settings::Runtime::MultiThread => serve_on(runtime::multi_thread(workers)?, acceptor),
        settings::Runtime::CurrentThread => serve_on(runtime::current_thread()?, acceptor),
        settings::Runtime::PerCore => serve_per_core(acceptor, workers),
    }
}

fn serve_on(runtime: Runtime, acceptor: Acceptor) -> io::Result<()> {
    let result = runtime.block_on(accept(acceptor));

    // Tasks that outlast the drain limit are not waited for.
    runtime.shutdown_background();
    result
}

async fn accept(mut acceptor: Acceptor) -> io::Result<()> {
    let events = watch(acceptor.events()?)?;

    loop {
        match acceptor.poll_accept()? {
            Accept::Connection(connection) => {
                tokio::spawn(task::serve(connection));
                // Without it a burst of connections would starve the tasks of this thread.
                tokio::task::consume_budget().await;
            }
            // Cleared first: what happens from here on makes it readable again.
            Accept::Wait => events.readable().await?.clear_ready(),
            Accept::Stop => return Ok(()),
        }
    }
}

fn serve_per_core(mut acceptor: Acceptor, workers: usize) -> io::Result<()> {
    for number in 1..=workers {
        let incoming = acceptor.incoming(number, AcceptMode::Reuseport)?;
        let (runtime, arrivals) =
            start_core(incoming).map_err(|error| runtime::cannot_start(number, workers, &error))?;
        acceptor.start_worker(number, workers, move || {
            runtime.block_on(serve_all(arrivals));
        })?;
    }
    acceptor.accept().map(|_end| ())
}

/// The runtime of one worker, and the connections it accepts.
fn start_core(incoming: Incoming) -> io::Result<(Runtime, Arrivals)> {
    let runtime = runtime::current_thread()?;
    let entered = runtime.enter();
    let arrivals = Arrivals::new(incoming)?;
    drop(entered);
    Ok((runtime, arrivals))
}

/// Serves all connections of one runtime, up to the close of the last one.
async fn serve_all(mut arrivals: Arrivals) {
    // Nothing is sent: the channel closes when the last task drops its end.
    let (open, mut closed) = mpsc::channel::<Infallible>(1);

    while let Some(connection) = arrivals.next().await {
        let open = open.clone();
        tokio::spawn(async move {
            task::serve(connection).await;
            drop(open);
        });
        tokio::task::consume_budget().await;
    }

    // The server waits until each worker has let go of its listener.
    drop((arrivals, open));
    closed.recv().await;
}

/// The connections that one runtime accepts.
struct Arrivals {
    incoming: Incoming,
    listener: AsyncFd<OwnedFd>,
    stop: AsyncFd<OwnedFd>,
}

impl Arrivals {
    fn new(incoming: Incoming) -> io::Result<Self> {
        let listener = watch(incoming.listener_event()?.try_clone_to_owned()?)?;
        let stop = watch(incoming.stop_event().try_clone_to_owned()?)?;
        Ok(Arrivals {
            incoming,
            listener,
            stop,
        })
    }

    /// Waits for a connection; `None` once the drain has emptied the backlog.
    async fn next(&mut self) -> Option<Connection> {
        loop {
            match self.incoming.offer() {
                Offer::Connection(connection) => return Some(connection),
                Offer::Refused => tokio::task::consume_budget().await,
                Offer::Exhausted => sleep(BACK_OFF).await,
                Offer::End => return None,
                Offer::Nothing => select! {
                    ready = self.listener.readable() => ready.ok()?.clear_ready(),
                    // Never cleared: it is readable slightly before the drain begins.
                    ready = self.stop.readable() => drop(ready.ok()?),
                },
            }
        }
    }
}

/// Makes tokio watch a descriptor.
fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(unsafe_code, reason = "tokio cannot see who owns the descriptor")]
    // SAFETY: an `OwnedFd` stays open and the same until it is dropped.
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
    Ok(watched)
}
