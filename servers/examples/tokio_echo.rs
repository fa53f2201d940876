//! The peer of `async`: the echo example of tokio itself, with `TCP_NODELAY` and a port to choose.

#![allow(missing_docs, reason = "an executable")]

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).unwrap_or_default();
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;

    loop {
        let (mut socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;

        tokio::spawn(async move {
            let mut buf = vec![0; 1024];
            while let Ok(count @ 1..) = socket.read(&mut buf).await {
                if socket.write_all(&buf[..count]).await.is_err() {
                    break;
                }
            }
        });
    }
}
