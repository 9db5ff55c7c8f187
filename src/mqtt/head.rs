//! The fixed header, checked before one byte of the body is buffered (MQTT5 §2.1).

use super::decode::DecodeError;
use super::packet::ProtocolVersion;

/// Which end sent the packet; each end may send only some packet types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// What a server receives.
    Client,
    /// What a client receives.
    Server,
}

/// A checked fixed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The first byte: packet type and flags, already checked against each other.
    pub first: u8,
    /// Bytes of the fixed header, 2 to 5.
    pub head_bytes: usize,
    /// Bytes of the rest (Remaining Length).
    pub body_bytes: usize,
}

impl Head {
    /// Bytes of the whole packet.
    pub const fn frame_bytes(&self) -> usize {
        self.head_bytes.saturating_add(self.body_bytes)
    }
}

/// Reads a fixed header from the beginning of `buffer`; `Ok(None)` while more bytes are needed.
///
/// `version` is `None` before CONNECT, when CONNECT is the only packet allowed. `frame_bytes_max` limits the
/// whole packet (MQTT5 §3.1.2.11.4).
///
/// # Errors
/// A packet type the sender may not send, wrong flags, a length that is too long for four bytes,
/// overlong (not minimal), impossible for this packet type or above the limit.
pub fn frame_head(
    _buffer: &[u8],
    _version: Option<ProtocolVersion>,
    _sender: Sender,
    _frame_bytes_max: usize,
) -> Result<Option<Head>, DecodeError> {
    todo!("codec")
}
