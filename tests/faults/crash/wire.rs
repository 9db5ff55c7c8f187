//! A socket on which whole packets come and go.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use millrace::clock;
use millrace::mqtt::head::{Sender, frame_head};
use millrace::mqtt::packet::{Connect, Packet, ProtocolVersion};
use millrace::mqtt::{ReasonCode, decode, encode};

/// A look whether the time is over.
const LOOK: Duration = Duration::from_millis(200);

pub struct Wire {
    stream: TcpStream,
    version: ProtocolVersion,
    received: Vec<u8>,
}

/// Why nothing came.
#[derive(Debug)]
pub enum Silence {
    /// The connection is over.
    Closed,
    /// The time is.
    Late,
}

impl Wire {
    /// Only the first step: whoever sends CONNECT reads CONNACK, too.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn open(at: SocketAddr, connect: &Connect<'_>) -> std::io::Result<Self> {
        let stream = TcpStream::connect(at)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
        let mut wire = Self { stream, version: connect.version, received: Vec::new() };
        wire.send(&Packet::Connect(Box::new(connect.clone())));
        Ok(wire)
    }

    /// Whether it is accepted; and whether there is a session.
    ///
    /// # Errors
    /// What came instead of CONNACK.
    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else was asked for")]
    pub fn connack(&mut self, deadline: Instant) -> Result<bool, String> {
        let frame = self.next(deadline).map_err(|silence| format!("{silence:?} before CONNACK"))?;
        match self.packet(&frame)? {
            Packet::ConnAck(connack) if connack.reason == ReasonCode::Success => Ok(connack.session_present),
            other => Err(format!("{other:?} where CONNACK should come")),
        }
    }

    /// A node that is dead does not get it; who waits for its answer sees that.
    pub fn send(&mut self, packet: &Packet<'_>) {
        let mut out = BytesMut::new();
        encode::packet(packet, self.version, usize::MAX, &mut out).unwrap();
        let _ = self.stream.write_all(&out);
    }

    /// The next whole packet.
    ///
    /// # Errors
    /// None comes.
    pub fn next(&mut self, deadline: Instant) -> Result<Vec<u8>, Silence> {
        loop {
            let head = frame_head(&self.received, Some(self.version), Sender::Server, usize::MAX).unwrap();
            if let Some(bytes) = head.map(|head| head.frame_bytes()).filter(|bytes| *bytes <= self.received.len()) {
                let rest = self.received.split_off(bytes);
                return Ok(std::mem::replace(&mut self.received, rest));
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(Silence::Closed),
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if clock::now() > deadline {
                        return Err(Silence::Late);
                    }
                }
                Err(_) => return Err(Silence::Closed),
            }
        }
    }

    /// What the bytes of a packet say.
    ///
    /// # Errors
    /// Nothing that a server may say.
    pub fn packet<'a>(&self, frame: &'a [u8]) -> Result<Packet<'a>, String> {
        decode::packet(frame, Some(self.version), Sender::Server).map_err(|error| format!("{frame:02x?}: {error}"))
    }
}
