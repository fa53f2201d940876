//! One accepted connection served by an asynchronous loop on tokio: the counterpart of
//! [`Connection::serve`] for tasks.

use std::io;

use echobench_protocol::{Session, Step, Work};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

use crate::connection::{Connection, LINGER, Serving};
use crate::work;

/// Serves the connection until it is closed. Its errors are counted and go no further.
pub(crate) async fn serve(connection: Connection) {
    let Ok((mut stream, serving)) = connection.begin(TcpStream::from_std) else {
        return;
    };
    let mut session = serving.session();
    let result = run_session(&mut stream, &mut session, &serving).await;
    serving.finish(&session, &result);
}

/// Carries out the steps of the session up to its close.
async fn run_session(
    stream: &mut TcpStream,
    session: &mut Session,
    serving: &Serving,
) -> io::Result<()> {
    let mut deadline = None;

    loop {
        match session.step() {
            Step::Receive => {
                let read = stream.read(session.space());
                let count = match deadline {
                    None => read.await?,
                    Some(deadline) => timeout_at(deadline, read).await??,
                };
                session.received(count);
            }

            Step::Work(work) => {
                serving.work_begins(work);
                match work {
                    Work::Block(time) => sleep(time).await,
                    work => work::perform(work),
                }
                serving.work_ends();
                session.worked();
            }

            Step::Send => {
                let count = stream.write(session.output()).await?;
                serving.answered(session.sent(count));
            }

            Step::Finish => {
                stream.shutdown().await?;
                deadline = Some(Instant::now() + LINGER);
                session.finished();
            }

            Step::Close => return Ok(()),
        }
    }
}
