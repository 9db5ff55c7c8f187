//! One connection: its socket and the bytes between two wake-ups. An idle one holds no buffer.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};

use bytes::{Buf, BytesMut};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use crate::client::{Client, ClientError, State};

/// Memory that a connection may keep for the beginning of a frame.
const PARTIAL_BYTES_KEPT: usize = 4096;

/// Why a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnError {
    /// No socket, or none from this source address.
    #[error("no socket from {from}: {error}{hint}", from = .from.map_or_else(|| "any address".to_owned(), |ip| ip.to_string()))]
    Socket {
        /// The source address.
        from: Option<IpAddr>,
        /// What the system said.
        error: io::Error,
        /// What helps.
        hint: &'static str,
    },
    /// The TCP connection was not made.
    #[error("cannot connect to {broker}: {error}")]
    Connect {
        /// The broker.
        broker: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// Nobody answered in time.
    #[error("not ready within the connect timeout, still {0:?}")]
    Timeout(State),
    /// Reading failed.
    #[error("reading from the broker: {0}")]
    Read(io::Error),
    /// Writing failed.
    #[error("writing to the broker: {0}")]
    Write(io::Error),
    /// End of file.
    #[error("the broker closed the connection")]
    Closed,
    /// The conversation ended.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// ```text
/// Waiting ──open──▶ Opening ──writable──▶ Open ──▶ Closed
///    ▲                 ├───────────────────┼─────────▲
///    └──────reset──────┴───────────────────┘
/// ```
#[derive(Debug)]
enum Link {
    /// Its turn has not come.
    Waiting,
    /// TCP connects.
    Opening(TcpStream),
    /// There.
    Open(TcpStream),
    /// Over.
    Closed,
}

/// One connection.
#[derive(Debug)]
pub struct Conn {
    /// Index in the run.
    pub index: u32,
    /// The conversation.
    pub client: Client,
    /// When it was to be opened.
    pub intended_ns: u64,
    /// When something was last written.
    pub sent_ns: u64,
    /// When it is given up, if it is not ready by then.
    pub connect_due_ns: u64,
    /// When it is to be pinged.
    pub ping_due_ns: u64,
    /// When the connection ended that this one follows.
    pub ended_ns: Option<u64>,
    /// When its client was ready for the first time.
    pub first_ready_ns: Option<u64>,
    /// Connections that it lost or did not get.
    pub turns: u32,
    /// Attempts since it was ready.
    pub attempts: u32,
    /// What a subscriber that came back has still to get: topics, and the sequence that will do.
    pub behind: Vec<(u32, u64)>,
    /// Whether it stands in the queue of those with something to do.
    pub is_queued: bool,
    /// Of the last connection.
    broker: Option<SocketAddr>,
    link: Link,
    may_read: bool,
    is_ending: bool,
    /// The beginning of a frame.
    partial: Vec<u8>,
    /// What the socket did not take.
    pending: BytesMut,
}

impl Conn {
    /// Waits for its turn.
    pub fn new(index: u32, client: Client) -> Self {
        Self {
            index,
            client,
            intended_ns: 0,
            sent_ns: 0,
            connect_due_ns: 0,
            ping_due_ns: 0,
            ended_ns: None,
            first_ready_ns: None,
            turns: 0,
            attempts: 0,
            behind: Vec::new(),
            is_queued: false,
            broker: None,
            link: Link::Waiting,
            may_read: false,
            is_ending: false,
            partial: Vec::new(),
            pending: BytesMut::new(),
        }
    }

    /// Begins to connect; the first event tells how that went.
    pub fn open(
        &mut self,
        broker: SocketAddr,
        from: Option<IpAddr>,
        registry: &Registry,
        token: Token,
    ) -> Result<(), ConnError> {
        let socket = socket(broker, from).map_err(|error| {
            let hint = hint(&error);
            ConnError::Socket { from, error, hint }
        })?;
        let mut stream = TcpStream::from_std(socket.into());
        registry
            .register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)
            .map_err(|error| ConnError::Socket { from, error, hint: "" })?;
        self.link = Link::Opening(stream);
        self.broker = Some(broker);
        (self.may_read, self.is_ending) = (false, false);
        Ok(())
    }

    /// Whether there is no socket now, and there will be one.
    pub fn is_waiting(&self) -> bool {
        matches!(self.link, Link::Waiting)
    }

    /// Whether the first writable event is still awaited.
    pub fn is_opening(&self) -> bool {
        matches!(self.link, Link::Opening(_))
    }

    /// Whether packets can be exchanged.
    pub fn is_open(&self) -> bool {
        matches!(self.link, Link::Open(_))
    }

    /// Whether it failed or was closed.
    pub fn is_closed(&self) -> bool {
        matches!(self.link, Link::Closed)
    }

    /// The socket had an event while TCP connected. True once it is connected.
    pub fn on_opening(&mut self) -> Result<bool, ConnError> {
        let (Link::Opening(stream), Some(broker)) = (&self.link, self.broker) else { return Ok(false) };
        if let Ok(Some(error)) | Err(error) = stream.take_error() {
            return Err(ConnError::Connect { broker, error });
        }
        match stream.peer_addr() {
            Ok(_) => {
                if let Link::Opening(stream) = std::mem::replace(&mut self.link, Link::Closed) {
                    self.link = Link::Open(stream);
                }
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(ConnError::Connect { broker, error }),
        }
    }

    /// Lets go of the socket, for good.
    pub fn close(&mut self) {
        self.let_go(Link::Closed);
    }

    /// Lets go of the socket, and waits to be opened again.
    pub fn reset(&mut self) {
        self.let_go(Link::Waiting);
        self.client.on_disconnected();
        self.behind.clear();
    }

    fn let_go(&mut self, link: Link) {
        self.link = link;
        self.partial = Vec::new();
        self.pending = BytesMut::new();
    }

    /// The socket has something to read; no further event will follow if that ends with its end.
    pub fn on_readable(&mut self, is_ending: bool) {
        self.may_read = true;
        self.is_ending |= is_ending;
    }

    /// Whether a read may find something.
    pub fn may_read(&self) -> bool {
        self.may_read
    }

    /// Whether the socket took everything so far.
    pub fn is_clear(&self) -> bool {
        self.pending.is_empty()
    }

    /// Reads once, behind the beginning of a frame that was kept, and returns the bytes that `buffer` holds then.
    /// A read that does not fill the buffer has emptied the socket, unless the end is still to be read.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ConnError> {
        let Link::Open(stream) = &mut self.link else { return Ok(0) };
        let kept = self.partial.len();
        let (head, space) = buffer.split_at_mut(kept);
        head.copy_from_slice(&self.partial);
        match stream.read(space) {
            Ok(0) => Err(ConnError::Closed),
            Ok(read) => {
                self.may_read = self.is_ending || read == space.len();
                Ok(kept + read)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.may_read = false;
                Ok(kept)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(kept),
            Err(error) => Err(ConnError::Read(error)),
        }
    }

    /// Keeps the beginning of a frame for the next read.
    pub fn keep(&mut self, partial: &[u8]) {
        self.partial.clear();
        if partial.is_empty() && self.partial.capacity() > PARTIAL_BYTES_KEPT {
            self.partial = Vec::new();
        }
        self.partial.extend_from_slice(partial);
    }

    /// Writes `out` after what is pending; what the socket does not take becomes pending.
    pub fn write(&mut self, out: &[u8], now_ns: u64) -> Result<(), ConnError> {
        if self.pending.is_empty() {
            let written = self.write_once(out)?;
            self.pending.extend_from_slice(out.get(written..).unwrap_or_default());
            if written > 0 {
                self.sent_ns = now_ns;
            }
            return Ok(());
        }
        self.pending.extend_from_slice(out);
        self.flush(now_ns)
    }

    /// Writes what is pending.
    pub fn flush(&mut self, now_ns: u64) -> Result<(), ConnError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        let written = self.write_once(&pending)?;
        self.pending = pending;
        self.pending.advance(written);
        if written > 0 {
            self.sent_ns = now_ns;
        }
        if self.pending.is_empty() {
            self.pending = BytesMut::new();
        }
        Ok(())
    }

    /// The bytes that the socket took; fewer than there are means that a writable event will follow.
    fn write_once(&mut self, bytes: &[u8]) -> Result<usize, ConnError> {
        let Link::Open(stream) = &mut self.link else { return Ok(0) };
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match stream.write(rest) {
                Ok(0) => return Err(ConnError::Closed),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ConnError::Write(error)),
            }
        }
        Ok(written)
    }
}

fn hint(error: &io::Error) -> &'static str {
    const TOO_MANY_OPEN_FILES: i32 = 24;
    if matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse) {
        " (is it an address of this host? one address has about 28,000 ports: see --source-addresses)"
    } else if error.raw_os_error() == Some(TOO_MANY_OPEN_FILES) {
        " (see ulimit -n)"
    } else {
        ""
    }
}

/// A socket that connects.
fn socket(broker: SocketAddr, from: Option<IpAddr>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(broker), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(ip) = from {
        socket.bind(&SocketAddr::new(ip, 0).into())?;
    }
    match socket.connect(&broker.into()) {
        Err(error) if !is_in_progress(&error) => Err(error),
        Ok(()) | Err(_) => Ok(socket),
    }
}

fn is_in_progress(error: &io::Error) -> bool {
    // EINPROGRESS has no kind of its own in stable Rust; 115 on Linux, 36 on BSD and macOS.
    error.kind() == io::ErrorKind::WouldBlock || matches!(error.raw_os_error(), Some(115 | 36))
}
