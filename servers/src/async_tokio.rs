//! A task per connection on tokio.
//!
//! One thread accepts, and a task per connection waits for it without a thread of its own. By
//! default the worker threads of the runtime share the tasks; on the current-thread runtime one
//! thread does everything. Blocking work waits on the runtime's timer, which has a resolution of one
//! millisecond; spinning work occupies its worker thread, as any computation would.

use std::io;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::acceptor::{Accept, Acceptor};
use crate::settings::{ModelOption, Settings};
use crate::{Family, Model, runtime, task};

pub(crate) const MODEL: Model = Model {
    name: "async",
    summary: "a task per connection on tokio",
    family: Family::Tasks,
    options: &[ModelOption::Workers, ModelOption::Runtime],
    accept: &[],
    serve,
};

fn serve(acceptor: Acceptor, settings: &Settings) -> io::Result<()> {
    let runtime = runtime::start(settings)?;
    let result = runtime.block_on(accept(acceptor));

    // Tasks that outlast the drain limit are not waited for.
    runtime.shutdown_background();
    result
}

async fn accept(mut acceptor: Acceptor) -> io::Result<()> {
    #[expect(unsafe_code, reason = "tokio cannot see who owns the descriptor")]
    // SAFETY: an `OwnedFd` stays open and the same until it is dropped.
    let events =
        unsafe { AsyncFd::register_with_interest(acceptor.events()?, Interest::READABLE) }?;

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
