//! The last moment of a connection that we end.

use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::stream::Stream;
use crate::session::CloseCause;

/// A connection that we close is given so long to read the last packet.
const LINGER_MS: u64 = 1_000;

/// What a client still sends would make the kernel throw away our last packet, so it is read and dropped for a moment.
pub(super) async fn linger(mut stream: Stream) {
    let until_closed = std::future::poll_fn(|cx| {
        ready!(Pin::new(&mut stream).poll_shutdown(cx))?;
        let mut bytes = [0; 256];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut stream).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(io::Result::Ok(()));
            }
        }
    });
    // Whether the client closed, broke off or took too long: it is over.
    let _ = tokio::time::timeout(Duration::from_millis(LINGER_MS), until_closed).await;
}

/// Whether the client is owed a last look at what it was sent.
pub(super) fn must_linger(cause: CloseCause) -> bool {
    match cause {
        CloseCause::Disconnected | CloseCause::SocketClosed => false,
        CloseCause::Protocol(_)
        | CloseCause::Refused(_)
        | CloseCause::ConnectTimeout
        | CloseCause::KeepAlive
        | CloseCause::TakenOver
        | CloseCause::ShuttingDown
        | CloseCause::Evicted(_)
        | CloseCause::AppendFailed => true,
    }
}
