//! One accepted connection, served by an asynchronous loop on tokio to its end: what
//! [`Connection::serve`] is for threads and processes.

use std::io;

use echobench_protocol::{Session, Step, Work};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

use crate::connection::{Connection, LINGER, Serving};
use crate::work;

/// Serves the connection to its end. Its errors are counted and go no further.
pub(crate) async fn serve(connection: Connection) {
    let Ok((mut stream, serving)) = connection.begin(TcpStream::from_std) else {
        return;
    };
    let mut session = serving.session();
    let result = converse(&mut stream, &mut session, &serving).await;
    serving.conclude(&session, &result);
}

/// Does what the session says until it says close.
async fn converse(
    stream: &mut TcpStream,
    session: &mut Session,
    serving: &Serving,
) -> io::Result<()> {
    let mut cut_off = None;
    loop {
        match session.step() {
            Step::Receive => {
                let read = stream.read(session.space());
                let count = match cut_off {
                    None => read.await?,
                    Some(cut_off) => timeout_at(cut_off, read).await??,
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
                cut_off = Some(Instant::now() + LINGER);
                session.finished();
            }
            Step::Close => return Ok(()),
        }
    }
}
