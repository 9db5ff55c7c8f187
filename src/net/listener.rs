//! Where MQTT clients come in: over TCP, and from within the process.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::net::{TcpListener, TcpStream};

use super::connection;
use super::stream::Stream;
use crate::node::Node;
use crate::ops::shutdown::Shutdown;
use crate::ops::tasks;

/// After an accept that failed (for example no file descriptor is left) the listener rests so long.
const ACCEPT_REST_MS: u64 = 50;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4_096;

/// A bound listener.
pub struct Listener {
    socket: TcpListener,
    door: Door,
}

/// Lets connections into a node.
pub struct Door {
    node: Arc<Node>,
    random: StdRng,
}

impl Listener {
    /// Binds `address`. `random` makes the client ids that are assigned.
    ///
    /// # Errors
    /// The address cannot be bound; the error names it.
    pub fn bind(address: SocketAddr, node: Arc<Node>, random: StdRng) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
        let socket = match address {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
        }
        .map_err(named)?;
        socket.set_reuseaddr(true).map_err(named)?;
        socket.bind(address).map_err(named)?;
        let socket = socket.listen(BACKLOG).map_err(named)?;
        Ok(Self { socket, door: Door::new(node, random) })
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until the drain begins.
    pub async fn run(mut self, shutdown: Shutdown) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.draining() => return,
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, _)) => self.on_accepted(stream),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(ACCEPT_REST_MS)).await;
                    }
                },
            }
        }
    }

    fn on_accepted(&mut self, stream: TcpStream) {
        self.door.node.metrics.connections_accepted.inc();
        if let Err(error) = stream.set_nodelay(true) {
            // The socket is gone already.
            tracing::debug!(%error, "a connection ended at once");
            return;
        }
        self.door.let_in(Stream::Tcp(stream));
    }
}

impl Door {
    /// A door of `node`. `random` makes the client ids that are assigned.
    pub fn new(node: Arc<Node>, random: StdRng) -> Self {
        Self { node, random }
    }

    /// Serves the client behind `stream`, unless the node is full.
    pub fn let_in(&mut self, stream: Stream) {
        if let Some(serving) = connection::serve(stream, Arc::clone(&self.node), self.random.random()) {
            tasks::spawn("connection", serving);
        }
    }
}
